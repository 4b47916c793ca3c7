package image

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"
)

// entryOf is an entry that is right, for tests to spoil.
func entryOf(name string) Entry {
	return Entry{Name: name, Version: "1", Description: "an image", Architecture: "x86_64", Virtualization: "hvm", Boot: "legacy-bios",
		User: "root", Size: 1 << 30, Download: &Download{URL: "https://host/" + name + ".qcow2", Format: "qcow2", Digest: "sha256:" + strings.Repeat("0a", 32)}}
}

func indexOf(name string, serial int64, entries ...Entry) Index {
	return Index{Format: 1, Name: name, Serial: serial, Expires: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), Entries: entries}
}

func encode(t testing.TB, x Index) []byte {
	t.Helper()
	data, err := json.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestParseIndexReadsItsOwn(t *testing.T) {
	want := indexOf("acme", 7, entryOf("one"), entryOf("two"))
	got, err := ParseIndex(encode(t, want))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(encode(t, got), encode(t, want)) {
		t.Errorf("read %+v, want %+v", got, want)
	}
}

func TestParseIndexRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(x *Index, e *Entry)
		want  string // in the error
	}{
		"another format":           {func(x *Index, _ *Entry) { x.Format = 0 }, "format 0"},
		"a newer format":           {func(x *Index, _ *Entry) { x.Format = 2 }, "upgrade"},
		"no name":                  {func(x *Index, _ *Entry) { x.Name = "" }, "name"},
		"a path for a name":        {func(x *Index, _ *Entry) { x.Name = "../x" }, "name"},
		"no serial":                {func(x *Index, _ *Entry) { x.Serial = 0 }, "serial"},
		"a path for an image":      {func(_ *Index, e *Entry) { e.Name = "a/b" }, "name"},
		"no version":               {func(_ *Index, e *Entry) { e.Version = "" }, "version"},
		"another architecture":     {func(_ *Index, e *Entry) { e.Architecture = "vax" }, `"vax"`},
		"another virtualization":   {func(_ *Index, e *Entry) { e.Virtualization = "lxc" }, `"lxc"`},
		"another boot mode":        {func(_ *Index, e *Entry) { e.Boot = "floppy" }, `"floppy"`},
		"no user's name":           {func(_ *Index, e *Entry) { e.User = "a b" }, `"a b"`},
		"no size":                  {func(_ *Index, e *Entry) { e.Size = 0 }, "size"},
		"an absurd size":           {func(_ *Index, e *Entry) { e.Size = 1 << 62 }, "size"},
		"neither kind":             {func(_ *Index, e *Entry) { e.Download = nil }, "a recipe or a download"},
		"both kinds":               {func(_ *Index, e *Entry) { e.Recipe = "tiny" }, "a recipe or a download"},
		"a recipe's path":          {func(_ *Index, e *Entry) { e.Download, e.Recipe = nil, "../tiny" }, "recipe"},
		"a terminal's escape":      {func(_ *Index, e *Entry) { e.Description = "\x1b[2J" }, "print"},
		"an escape in a need":      {func(_ *Index, e *Entry) { e.Needs = []string{"\x1b]0;x\a"} }, "print"},
		"a book":                   {func(_ *Index, e *Entry) { e.Description = strings.Repeat("x", 1000) }, "300"},
		"paravirtual download":     {func(_ *Index, e *Entry) { e.Virtualization = "paravirtual" }, "paravirtual"},
		"another disk format":      {func(_ *Index, e *Entry) { e.Download.Format = "iso" }, `"iso"`},
		"a file's address":         {func(_ *Index, e *Entry) { e.Download.URL = "file:///etc/passwd" }, "https://"},
		"an address with password": {func(_ *Index, e *Entry) { e.Download.URL = "https://a:b@host/x" }, "https://"},
		"no checksum":              {func(_ *Index, e *Entry) { e.Download.Digest = "" }, "sumsAre"},
		"a broken hash":            {func(_ *Index, e *Entry) { e.Download.Digest = "md5:" + strings.Repeat("0", 32) }, "sha256"},
		"half a digest":            {func(_ *Index, e *Entry) { e.Download.Digest = "sha256:00" }, "sha256"},
		"two checksums":            {func(_ *Index, e *Entry) { e.Download.Sums = "https://host/SUMS" }, "not both"},
		"sums without https": {func(_ *Index, e *Entry) {
			e.Download.Digest, e.Download.Sums, e.Download.Hash = "", "http://host/SUMS", "sha256"
		}, "https://"},
		"the same name twice": {func(x *Index, _ *Entry) { x.Entries = append(x.Entries, entryOf("one")) }, "second"},
		"too many": {func(x *Index, _ *Entry) {
			x.Entries = make([]Entry, maxIndexEntries+1)
		}, "1000"},
	} {
		t.Run(name, func(t *testing.T) {
			x := indexOf("acme", 1, entryOf("one"))
			c.spoil(&x, &x.Entries[0])
			_, err := ParseIndex(encode(t, x))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want an error with %q", err, c.want)
			}
		})
	}
	good := encode(t, indexOf("acme", 1, entryOf("one")))
	for name, bad := range map[string][]byte{
		"nothing":         nil,
		"a web page":      []byte("<!DOCTYPE html>"),
		"half":            good[:len(good)/2],
		"two":             append(bytes.Clone(good), good...),
		"an unknown word": bytes.Replace(good, []byte(`"serial"`), []byte(`"digestIgnored":true,"serial"`), 1),
		"not UTF-8":       bytes.Replace(good, []byte("an image"), []byte("\xff"), 1),
		"too long":        append(bytes.Clone(good), bytes.Repeat([]byte(" "), maxIndexBytes)...),
	} {
		if x, err := ParseIndex(bad); err == nil {
			t.Errorf("%s: read as %+v", name, x)
		}
	}
}

// The shipped catalogue is right, has every recipe of this program, and downloads only what a publisher vouches for.
func TestShippedCatalogue(t *testing.T) {
	x, err := ParseIndex(shippedIndex)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range Catalog {
		e, ok := x.entry(r.Name)
		if !ok || e.Recipe != r.Name || e.Virtualization != r.Virtualization || e.Architecture != r.Architecture || e.Description != r.Description {
			t.Errorf("recipe %s is listed as %+v", r.Name, e)
		}
	}
	for _, e := range x.Entries {
		if e.Recipe != "" {
			if _, err := FindRecipe(e.Recipe); err != nil {
				t.Error(err)
			}
		} else if !strings.HasPrefix(e.Download.URL, "https://") {
			t.Errorf("%s is downloaded from %s", e.Name, e.Download.URL)
		}
	}
	for _, name := range []string{"tiny", "tiny-pv", "debian-12", "debian-13-cloud", "ubuntu-26.04", "fedora-44", "almalinux-10", "alpine-3.23", "cirros-0.6.3"} {
		if _, ok := x.entry(name); !ok {
			t.Errorf("no %s is shipped", name)
		}
	}
	doc, err := os.ReadFile("../docs/catalog.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range x.Entries {
		if !bytes.Contains(doc, []byte("`"+e.Name+"`")) {
			t.Errorf("docs/catalog.md doesn't name %s", e.Name)
		}
	}
}

func FuzzParseIndex(f *testing.F) {
	f.Add(shippedIndex)
	f.Add(encode(f, indexOf("acme", 1, entryOf("one"))))
	f.Add([]byte(`{"format":1,"name":"a","serial":1,"entries":[{}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		x, err := ParseIndex(data)
		if err != nil {
			return
		}
		again, err := ParseIndex(encode(t, x))
		if err != nil || !bytes.Equal(encode(t, again), encode(t, x)) {
			t.Errorf("%q reads as %+v, and that as %+v, %v", data, x, again, err)
		}
	})
}
