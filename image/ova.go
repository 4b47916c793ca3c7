package image

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"hash"
	"io"
	"path"
	"regexp"
	"strings"

	"mallee/cloud"
)

// OVA, by DMTF's DSP0243 (OVF) 1.1 and 2.1: a tar archive with a description in XML first, disks, and perhaps a manifest
// of digests.

const maxDescription = 1 << 20 // bytes of a description, or of a manifest

// ovf is as much of a description as it takes to find the disks. Namespaces aren't looked at.
type ovf struct {
	Files []struct {
		ID          string `xml:"id,attr"`
		Href        string `xml:"href,attr"`
		Compression string `xml:"compression,attr"`
		Chunk       string `xml:"chunkSize,attr"`
	} `xml:"References>File"`
	Disks []struct {
		ID     string `xml:"diskId,attr"`
		File   string `xml:"fileRef,attr"`
		Parent string `xml:"parentRef,attr"`
	} `xml:"DiskSection>Disk"`
	Systems []struct {
		System struct {
			Type string `xml:"osType,attr"`
		} `xml:"OperatingSystemSection"`
		Hardware []struct {
			Items []struct {
				Resource []string `xml:"HostResource"`
			} `xml:"Item"`
			Storage []struct {
				Resource []string `xml:"HostResource"`
			} `xml:"StorageItem"`
			Config []struct {
				Key   string `xml:"key,attr"`
				Value string `xml:"value,attr"`
			} `xml:"Config"`
		} `xml:"VirtualHardwareSection"`
	} `xml:"VirtualSystem"`
}

// An ova is an opened archive.
type ova struct {
	description member
	manifest    *member
	disks       []member // in the machine's order, so that the first is what it boots from
	boot        cloud.BootMode
	arch        string
}

// isOVA tells whether an archive has a description.
func isOVA(all []member) bool { return findSuffix(all, ".ovf") != nil }

func findSuffix(all []member, suffix string) *member {
	for i := range all {
		if strings.HasSuffix(strings.ToLower(all[i].name), suffix) {
			return &all[i]
		}
	}
	return nil
}

// openOVA reads the description of an archive and finds the disks that it names.
func openOVA(r io.ReaderAt, all []member) (*ova, error) {
	o := &ova{description: *findSuffix(all, ".ovf"), manifest: findSuffix(all, ".mf")}
	text, err := readMember(r, o.description)
	if err != nil {
		return nil, err
	}
	var d ovf
	if err := xml.Unmarshal(text, &d); err != nil {
		return nil, refuse("the OVA's description %q is no XML that can be read: %v", o.description.name, err)
	}
	if len(d.Systems) > 1 {
		return nil, refuse("the OVA has %d machines in it; one is taken", len(d.Systems))
	}
	hrefs, err := d.hrefs()
	if err != nil {
		return nil, err
	}
	for _, href := range hrefs {
		m, err := diskMember(all, path.Dir(o.description.name), href)
		if err != nil {
			return nil, err
		}
		o.disks = append(o.disks, m)
	}
	o.boot, o.arch = d.firmware()
	return o, nil
}

// readMember reads a text of bounded length.
func readMember(r io.ReaderAt, m member) ([]byte, error) {
	if m.size > maxDescription || m.off < 0 {
		return nil, refuse("the OVA's %q has %d bytes; %d is the most", m.name, m.size, maxDescription)
	}
	b, err := readAt(r, m.off, m.size)
	if err != nil {
		return nil, fmt.Errorf("reading %q in the archive: %w", m.name, err)
	}
	return b, nil
}

// hrefs are the names of the disks' files: those that the machine's hardware names, in its order, or else all
// that there are.
func (d *ovf) hrefs() (all []string, err error) {
	byDisk := map[string]string{}
	var order []string
	for _, disk := range d.Disks {
		if disk.Parent != "" {
			return nil, refuse("the OVA's disk %q is the child of another one, %q: export it without snapshots", disk.ID, disk.Parent)
		}
		if disk.File == "" {
			continue // an empty disk, which the machine would have made for itself
		}
		for _, f := range d.Files {
			if f.ID != disk.File {
				continue
			}
			if f.Compression != "" && f.Compression != "identity" || f.Chunk != "" {
				return nil, refuse("the OVA's file %q is compressed by itself (%q), or in pieces: unpack it, and take the disk in it", printable([]byte(f.Href)), f.Compression)
			}
			byDisk[disk.ID] = f.Href
			order = append(order, disk.ID)
		}
	}
	if used := d.used(byDisk); len(used) > 0 {
		order = used
	}
	for _, id := range order {
		all = append(all, byDisk[id])
	}
	if len(all) == 0 {
		return nil, refuse("the OVA's description names no disk")
	}
	return all, nil
}

// used are the disks that the hardware names, once each.
func (d *ovf) used(known map[string]string) (ids []string) {
	seen := map[string]bool{}
	for _, s := range d.Systems {
		for _, h := range s.Hardware {
			var resources []string
			for _, i := range append(h.Items, h.Storage...) {
				resources = append(resources, i.Resource...)
			}
			for _, r := range resources {
				id := path.Base(r)
				if _, ok := known[id]; ok && strings.Contains(r, "disk/") && !seen[id] {
					seen[id] = true
					ids = append(ids, id)
				}
			}
		}
	}
	return ids
}

// firmware and architecture, where the machine's description says them.
func (d *ovf) firmware() (cloud.BootMode, string) {
	var boot cloud.BootMode
	arch := ""
	for _, s := range d.Systems {
		if strings.Contains(s.System.Type, "64") {
			arch = "x86_64"
		}
		for _, h := range s.Hardware {
			for _, c := range h.Config {
				if c.Key == "firmware" {
					boot = map[string]cloud.BootMode{"efi": cloud.UEFI, "bios": cloud.LegacyBIOS}[c.Value]
				}
			}
		}
	}
	return boot, arch
}

// diskMember is the file that a description means. It is a file of the archive, or refused.
func diskMember(all []member, folder, href string) (member, error) {
	if strings.Contains(href, "://") {
		return member{}, refuse("the OVA's disk is elsewhere, at %q, and isn't fetched from there", printable([]byte(href)))
	}
	if err := checkName(href); err != nil {
		return member{}, err
	}
	name := path.Join(folder, href)
	for _, m := range all {
		if m.name != name {
			continue
		}
		if m.off < 0 {
			return member{}, refuse("the OVA's disk %q is stored with holes: pack it again without", name)
		}
		return m, nil
	}
	return member{}, refuse("the OVA's description names the disk %q, which isn't in the archive", printable([]byte(href)))
}

var digestLine = regexp.MustCompile(`^(SHA1|SHA256|SHA512)\s*\((.+)\)\s*=\s*([0-9a-fA-F]+)\s*$`)

var manifestHashes = map[string]func() hash.Hash{"SHA1": sha1.New, "SHA256": sha256.New, "SHA512": sha512.New}

// verify the description and the disks by the manifest, if there is one: all of them have to be in it.
func (o *ova) verify(ctx context.Context, r io.ReaderAt, progress Progress) error {
	if o.manifest == nil {
		return nil
	}
	text, err := readMember(r, *o.manifest)
	if err != nil {
		return err
	}
	sums := map[string][2]string{}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		if m := digestLine.FindStringSubmatch(lines.Text()); m != nil {
			sums[path.Join(path.Dir(o.description.name), m[2])] = [2]string{m[1], strings.ToLower(m[3])}
		}
	}
	for _, m := range append([]member{o.description}, o.disks...) {
		sum, ok := sums[m.name]
		if !ok {
			return refuse("the OVA's manifest has no digest of %q", m.name)
		}
		got, err := sumOf(ctx, io.NewSectionReader(r, m.off, m.size), manifestHashes[sum[0]](), m.size, progress)
		if err != nil {
			return err
		}
		if got != sum[1] {
			return refuse("the OVA's %q has %s %s, its manifest says %s: the file is damaged", m.name, sum[0], got, sum[1])
		}
	}
	return nil
}

// sumOf reads a file to its end.
func sumOf(ctx context.Context, r io.Reader, h hash.Hash, size int64, progress Progress) (string, error) {
	buf := make([]byte, copyBuffer)
	for done := int64(0); ; {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		n, err := r.Read(buf)
		h.Write(buf[:n])
		done += int64(n)
		progress("verifying the image", done, size)
		if err == io.EOF {
			return hex.EncodeToString(h.Sum(nil)), nil
		}
		if err != nil {
			return "", fmt.Errorf("verifying the image: %w", err)
		}
	}
}
