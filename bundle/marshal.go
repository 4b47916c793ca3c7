package bundle

import (
	"encoding/hex"
	"encoding/xml"
	"slices"
	"strconv"
	"strings"
)

// document is the XML being written: compact, as the signature wants it.
type document struct {
	strings.Builder
}

func (d *document) text(name, text string, attrs ...string) {
	d.open(name, attrs...)
	// A strings.Builder never fails, so neither does this.
	_ = xml.EscapeText(d, []byte(text))
	d.close(name)
}

// open writes a start tag; attrs are names and values by turns.
func (d *document) open(name string, attrs ...string) {
	d.WriteString("<" + name)
	for pair := range slices.Chunk(attrs, 2) {
		d.WriteString(" " + pair[0] + `="` + pair[1] + `"`)
	}
	d.WriteString(">")
}

func (d *document) close(name string) { d.WriteString("</" + name + ">") }

// marshal writes the manifest. sign, given the bytes to cover, returns the signature element's text.
func (m *Manifest) marshal(sign func(signed []byte) (string, error)) ([]byte, error) {
	var d document
	d.open("manifest")
	d.text("version", manifestVersion)
	d.open("bundler")
	d.text("name", m.Bundler.Name)
	d.text("version", m.Bundler.Version)
	d.text("release", m.Bundler.Release)
	d.close("bundler")
	from := d.Len()
	m.marshalConfiguration(&d)
	m.marshalImage(&d)
	signature, err := sign([]byte(d.String()[from:]))
	if err != nil {
		return nil, err
	}
	d.text("signature", signature)
	d.close("manifest")
	return []byte(d.String()), nil
}

func (m *Manifest) marshalConfiguration(d *document) {
	d.open("machine_configuration")
	d.text("architecture", m.Architecture)
	if len(m.BlockDeviceMappings) > 0 {
		d.open("block_device_mapping")
		for _, mapping := range m.BlockDeviceMappings {
			d.open("mapping")
			d.text("virtual", mapping.Virtual)
			d.text("device", mapping.Device)
			d.close("mapping")
		}
		d.close("block_device_mapping")
	}
	if len(m.ProductCodes) > 0 {
		d.open("product_codes")
		for _, code := range m.ProductCodes {
			d.text("product_code", code)
		}
		d.close("product_codes")
	}
	if m.KernelID != "" {
		d.text("kernel_id", m.KernelID)
	}
	if m.RamdiskID != "" {
		d.text("ramdisk_id", m.RamdiskID)
	}
	d.close("machine_configuration")
}

// marshalImage writes type right after user and the user_encrypted elements even if empty: EC2 insists on both.
func (m *Manifest) marshalImage(d *document) {
	d.open("image")
	d.text("name", m.Name)
	d.text("user", m.Account)
	d.text("type", string(m.Type))
	d.text("digest", hex.EncodeToString(m.Digest[:]), "algorithm", digestAlgorithm)
	d.text("size", strconv.FormatInt(m.Size, 10))
	d.text("bundled_size", strconv.FormatInt(m.BundledSize, 10))
	d.text("ec2_encrypted_key", hex.EncodeToString(m.ForCloud.Key), "algorithm", cipherAlgorithm)
	d.text("user_encrypted_key", hex.EncodeToString(m.ForUser.Key), "algorithm", cipherAlgorithm)
	d.text("ec2_encrypted_iv", hex.EncodeToString(m.ForCloud.IV))
	d.text("user_encrypted_iv", hex.EncodeToString(m.ForUser.IV))
	d.open("parts", "count", strconv.Itoa(len(m.Parts)))
	for i, part := range m.Parts {
		d.open("part", "index", strconv.Itoa(i))
		d.text("filename", part.Name)
		d.text("digest", hex.EncodeToString(part.Digest[:]), "algorithm", digestAlgorithm)
		d.close("part")
	}
	d.close("parts")
	d.close("image")
}
