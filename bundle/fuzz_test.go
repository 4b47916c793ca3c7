package bundle

import (
	"bytes"
	"crypto/sha1"
	"io"
	"slices"
	"strings"
	"testing"
)

// Whatever ParseManifest takes keeps the promises that the cloud relies on.
func FuzzManifest(f *testing.F) {
	f.Add(sampleManifest().xml(f))
	f.Add([]byte(`<?xml version="1.0"?><!DOCTYPE m [<!ENTITY a "b">]><manifest>&a;</manifest>`))
	f.Add([]byte(`<manifest><version>2007-10-10</version><image><parts count="1"><part index="0"/></parts></image></manifest>`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseManifest(data)
		if err != nil {
			return
		}
		checkPromises(t, m)
		signed := m.Signed()
		again, err := ParseManifest(append(append([]byte("<manifest><version>2007-10-10</version>"), signed...), "<signature>UNSIGNED</signature></manifest>"...))
		if err != nil || !slices.Equal(again.Parts, m.Parts) || again.Account != m.Account || again.Digest != m.Digest || again.Size != m.Size {
			t.Errorf("what is signed means something else: %+v, %v", again, err)
		}
	})
}

func checkPromises(t *testing.T, m *Manifest) {
	t.Helper()
	if m.Size < 1 || m.BundledSize < 16 || m.BundledSize%16 != 0 || len(m.Parts) < 1 || len(m.Account) != 12 {
		t.Errorf("nonsense: %+v", m)
	}
	names := make(map[string]bool)
	for i, part := range m.Parts {
		if part.Index != i || names[part.Name] || part.Name == "" || part.Name == "." || part.Name == ".." || strings.ContainsAny(part.Name, "/\\\x00\n") {
			t.Errorf("part %d: %+v", i, part)
		}
		names[part.Name] = true
	}
	if _, err := m.Kind("img"); err != nil && !isTrue(m.KernelID) && !isTrue(m.RamdiskID) {
		t.Error(err)
	}
}

// FuzzUnpack feeds any bytes to one of the three inner formats, in a bundle that is truthful otherwise: whatever comes out
// without an error is what the manifest promised, and never more than that.
func FuzzUnpack(f *testing.F) {
	const size = 700
	stream := tarOf(f, regular("img", size))
	f.Add(byte(0), stream, 512)
	f.Add(byte(1), gzipped(stream), 100)
	f.Add(byte(2), cbc(make([]byte, 160)), 16)
	f.Add(byte(0), tarOf(f, regular("img", size), regular("two", 1)), 3)
	f.Add(byte(0), append([]byte(nil), make([]byte, 10240)...), 1000)
	f.Fuzz(func(t *testing.T, layer byte, data []byte, partSize int) {
		var m *Manifest
		var parts store
		partSize = max(partSize, len(data)/1000+1)
		switch layer % 3 {
		case 0:
			m, parts = sealed(data, size, partSize)
		case 1:
			m, parts = encrypted(data, sha1.Sum(stream), size, partSize)
		case 2:
			m, parts = split(bytes.Clone(data), sha1.Sum(stream), size, partSize)
		}
		var out limited
		err := Unpack(t.Context(), m, testKey, testIV, parts.open, &out, nil)
		if err == nil && out != size {
			t.Errorf("%d bytes of %d, and no error", out, size)
		}
		if out > size {
			t.Errorf("%d bytes of %d: %v", out, size, err)
		}
	})
}

// limited counts bytes.
type limited int64

func (l *limited) Write(p []byte) (int, error) {
	*l += limited(len(p))
	return len(p), nil
}

var _ io.Writer = new(limited)
