package bundle

import (
	"crypto/sha1"
	"encoding/xml"
	"errors"
	"fmt"
	"strconv"
)

// The elements of a manifest, each with the table of its children.

func (p *parser) readManifest(t xml.StartElement) error {
	return p.group(t, fields{
		"version":               {read: p.readVersion, need: true},
		"bundler":               {read: p.readBundler},
		"machine_configuration": {read: p.keep(&p.configuration, p.readConfiguration), need: true},
		"image":                 {read: p.keep(&p.image, p.readImage), need: true},
		"signature":             {read: p.readSignature, need: true},
	})
}

// keep reads an element and keeps its exact bytes, from < to >, for the signature.
func (p *parser) keep(into *[]byte, read func(xml.StartElement) error) func(xml.StartElement) error {
	return func(t xml.StartElement) error {
		// The decoder is past the start tag, which holds no < besides its own: attribute values can't.
		from := lastStart(p.data[:p.decoder.InputOffset()])
		if err := read(t); err != nil {
			return err
		}
		*into = p.data[from:p.decoder.InputOffset()]
		return nil
	}
}

func lastStart(data []byte) int {
	for i := len(data) - 1; i >= 0; i-- {
		if data[i] == '<' {
			return i
		}
	}
	return 0
}

func (p *parser) readVersion(t xml.StartElement) error {
	var version string
	return p.string(&version, func(s string) error {
		if s != manifestVersion {
			return fmt.Errorf("%.40q is not %s", s, manifestVersion)
		}
		return nil
	})(t)
}

func (p *parser) readBundler(t xml.StartElement) error {
	b := &p.manifest.Bundler
	return p.group(t, fields{
		"name":    {read: p.string(&b.Name, nil)},
		"version": {read: p.string(&b.Version, nil)},
		"release": {read: p.string(&b.Release, nil)},
	})
}

func (p *parser) readConfiguration(t xml.StartElement) error {
	m := p.manifest
	children := fields{
		"architecture": {read: p.token(&m.Architecture)},
		"kernel_id":    {read: p.token(&m.KernelID)},
		"ramdisk_id":   {read: p.token(&m.RamdiskID)},
	}
	// euca2ools writes the first spelling of each and reads the second; other bundlers follow one or the other.
	mappings := p.once("block device mappings", p.readMappings)
	children["block_device_mapping"] = field{read: mappings}
	children["block_device_mappings"] = field{read: mappings}
	codes := p.once("product codes", p.readProductCodes)
	children["product_codes"] = field{read: codes}
	children["productcodes"] = field{read: codes}
	return p.group(t, children)
}

// once refuses a second reading: of the other spelling of an element that was there already.
func (p *parser) once(what string, read func(xml.StartElement) error) func(xml.StartElement) error {
	done := false
	return func(t xml.StartElement) error {
		if done {
			return fmt.Errorf("%s twice, in two spellings", what)
		}
		done = true
		return read(t)
	}
}

func (p *parser) readMappings(t xml.StartElement) error {
	return p.group(t, fields{
		"mapping":              {read: p.readMapping, many: true},
		"block_device_mapping": {read: p.readMapping, many: true},
	})
}

func (p *parser) readMapping(t xml.StartElement) error {
	var mapping Mapping
	err := p.group(t, fields{
		"virtual": {read: p.token(&mapping.Virtual), need: true},
		"device":  {read: p.token(&mapping.Device), need: true},
	})
	p.manifest.BlockDeviceMappings = append(p.manifest.BlockDeviceMappings, mapping)
	return err
}

func (p *parser) readProductCodes(t xml.StartElement) error {
	code := p.list(&p.manifest.ProductCodes)
	return p.group(t, fields{"product_code": code, "productcode": code})
}

func (p *parser) readImage(t xml.StartElement) error {
	m := p.manifest
	return p.group(t, fields{
		"name":               {read: p.string(&m.Name, checkName), need: true},
		"user":               {read: p.string(&m.Account, checkAccount), need: true},
		"type":               {read: p.string((*string)(&m.Type), checkKind)},
		"digest":             {read: p.digest(&m.Digest), need: true},
		"size":               {read: p.size(&m.Size), need: true},
		"bundled_size":       {read: p.bundledSize, need: true},
		"ec2_encrypted_key":  {read: p.encryptedKey(&m.ForCloud.Key, true), need: true},
		"user_encrypted_key": {read: p.encryptedKey(&m.ForUser.Key, false)},
		"ec2_encrypted_iv":   {read: p.encrypted(&m.ForCloud.IV, true), need: true},
		"user_encrypted_iv":  {read: p.encrypted(&m.ForUser.IV, false)},
		"ancestry":           {read: p.readAncestry},
		"parts":              {read: p.readParts, need: true},
	})
}

// readAncestry reads an element of AWS's bundler: the images that the bundled one came from.
func (p *parser) readAncestry(t xml.StartElement) error {
	return p.group(t, fields{"ancestor_ami_id": p.list(&p.manifest.Ancestors)})
}

func (p *parser) readParts(t xml.StartElement) error {
	count, err := attributes(t, "count")
	if err != nil {
		return err
	}
	if p.partCount, err = parseSize(count[0], 1); err != nil {
		return fmt.Errorf("parts: count %w", err)
	}
	p.names = make(map[string]bool)
	return p.children(t, fields{"part": {read: p.readPart, many: true}})
}

// readPart wants the parts in order: a list that a reader by position and a reader by index understand
// differently is no list.
func (p *parser) readPart(t xml.StartElement) error {
	part := Part{Index: len(p.manifest.Parts)}
	index, err := attributes(t, "index")
	if err != nil {
		return err
	}
	if index[0] != strconv.Itoa(part.Index) {
		return fmt.Errorf("part index %.40q where %d is next", index[0], part.Index)
	}
	err = p.children(t, fields{
		"filename": {read: p.string(&part.Name, checkName), need: true},
		"digest":   {read: p.digest(&part.Digest), need: true},
	})
	if err == nil && p.names[part.Name] {
		err = fmt.Errorf("part %d: name %q was another part's", part.Index, part.Name)
	}
	p.names[part.Name] = true
	p.manifest.Parts = append(p.manifest.Parts, part)
	return err
}

func (p *parser) readSignature(t xml.StartElement) error {
	var signature string
	return p.string(&signature, func(s string) (err error) {
		switch s {
		case unsigned:
			return nil
		case "":
			return errors.New("empty (a bundle without one says UNSIGNED)")
		}
		p.manifest.Signature, err = parseRSA(s)
		return err
	})(t)
}

// string reads text, and checks it unless check is nil.
func (p *parser) string(into *string, check func(string) error) func(xml.StartElement) error {
	return func(t xml.StartElement) error {
		if _, err := attributes(t); err != nil {
			return err
		}
		s, err := p.text(t)
		if err == nil && check != nil {
			err = check(s)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", t.Name.Local, err)
		}
		*into = s
		return nil
	}
}

func (p *parser) token(into *string) func(xml.StartElement) error {
	return p.string(into, func(s string) error { return checkToken("value", s) })
}

func (p *parser) list(into *[]string) field {
	read := func(t xml.StartElement) error {
		var s string
		err := p.token(&s)(t)
		*into = append(*into, s)
		return err
	}
	return field{read: read, many: true}
}

func (p *parser) size(into *int64) func(xml.StartElement) error {
	var s string
	return p.string(&s, func(s string) (err error) {
		*into, err = parseSize(s, 1)
		return err
	})
}

func (p *parser) bundledSize(t xml.StartElement) error {
	err := p.size(&p.manifest.BundledSize)(t)
	if err == nil && p.manifest.BundledSize%keySize != 0 {
		err = fmt.Errorf("bundled_size: %d is not a multiple of the cipher's %d-byte block", p.manifest.BundledSize, keySize)
	}
	return err
}

func (p *parser) digest(into *[sha1.Size]byte) func(xml.StartElement) error {
	return p.withAlgorithm(digestAlgorithm, func(s string) (err error) {
		*into, err = parseDigest(s)
		return err
	})
}

func (p *parser) encryptedKey(into *[]byte, need bool) func(xml.StartElement) error {
	return p.withAlgorithm(cipherAlgorithm, rsaText(into, need))
}

func (p *parser) encrypted(into *[]byte, need bool) func(xml.StartElement) error {
	var s string
	return p.string(&s, rsaText(into, need))
}

func rsaText(into *[]byte, need bool) func(string) error {
	return func(s string) (err error) {
		if need && s == "" {
			return errors.New("empty")
		}
		*into, err = parseRSA(s)
		return err
	}
}

// withAlgorithm reads an element whose algorithm attribute must be the one the format has.
func (p *parser) withAlgorithm(want string, parse func(string) error) func(xml.StartElement) error {
	return func(t xml.StartElement) error {
		algorithm, err := attributes(t, "algorithm")
		if err != nil {
			return err
		}
		s, err := p.text(t)
		if err == nil && algorithm[0] != want {
			err = fmt.Errorf("algorithm %.40q is not %s", algorithm[0], want)
		}
		if err == nil {
			err = parse(s)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", t.Name.Local, err)
		}
		return nil
	}
}

func checkKind(s string) error {
	switch Kind(s) {
	case Machine, Kernel, Ramdisk:
		return nil
	}
	return fmt.Errorf("%.40q is not machine, kernel or ramdisk", s)
}
