package image

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"slices"
	"time"
	"unicode"
	"unicode/utf8"

	"mallee/cloud"
)

// An index is a catalogue as a file: JSON that names images and says how each is had. One is part of this
// program; administrators add others, which are signed (see Catalogs). docs/catalog.md is its reference
// for people who write one.

// indexFormat is raised when an older program would misread a newer index.
const indexFormat = 1

// What an index may take, so that reading somebody's mistake or malice is cheap.
const (
	maxIndexBytes   = 1 << 20
	maxIndexEntries = 1000
	maxText         = 300       // bytes of a description or need
	maxImageBytes   = 100 << 40 // of a disk
)

// An Index lists the images of one catalogue.
type Index struct {
	Format  int       `json:"format"`
	Name    string    `json:"name"`             // what the catalogue is called here
	Serial  int64     `json:"serial"`           // grows with each edition; never goes back
	Expires time.Time `json:"expires,omitzero"` // after which it isn't to be trusted; zero for the one in the program
	Entries []Entry   `json:"entries"`
}

// An Entry is one image of a catalogue.
type Entry struct {
	Name           string               `json:"name"` // what the user types
	Version        string               `json:"version"`
	Description    string               `json:"description"`
	Architecture   string               `json:"architecture"` // EC2's name: x86_64
	Virtualization cloud.Virtualization `json:"virtualization"`
	Boot           cloud.BootMode       `json:"boot,omitempty"`  // "" where a kernel image boots it
	User           string               `json:"user,omitempty"`  // who logs in with the key pair
	Size           int64                `json:"size"`            // bytes of the disk or root file system that an instance gets
	Needs          []string             `json:"needs,omitempty"` // for people: what has to be there to get or run it
	Recipe         string               `json:"recipe,omitempty"`
	Download       *Download            `json:"download,omitempty"`
}

// A Download is where an image's file is and how to know that it is the right one: by its digest, or by
// a list of digests that the publisher keeps at an https address.
type Download struct {
	URL    string `json:"url"`
	Format string `json:"format"`            // raw or qcow2
	Digest string `json:"digest,omitempty"`  // sha256:HEX or sha512:HEX
	Sums   string `json:"sums,omitempty"`    // address of the list
	Hash   string `json:"sumsAre,omitempty"` // sha256 or sha512: what the list's digests are
}

// Source is where the image comes from, for people.
func (e Entry) Source() string {
	if e.Download != nil {
		return e.Download.URL
	}
	return "recipe " + e.Recipe
}

// Checksum is what the image is held against, for people.
func (e Entry) Checksum() string {
	switch {
	case e.Download == nil:
		return "packages by apt's signed lists"
	case e.Download.Digest != "":
		return e.Download.Digest
	}
	return e.Download.Hash + " in " + e.Download.Sums
}

// ParseIndex reads and checks an index. It refuses what it doesn't know: a word that this program
// ignores might be the one that matters.
func ParseIndex(data []byte) (Index, error) {
	var x Index
	if len(data) > maxIndexBytes {
		return x, fmt.Errorf("catalogue index of %d bytes; at most %d are read", len(data), maxIndexBytes)
	}
	if !utf8.Valid(data) {
		return x, errors.New("catalogue index is not UTF-8")
	}
	var head struct {
		Format int `json:"format"`
	}
	if json.Unmarshal(data, &head) == nil && head.Format > indexFormat {
		return x, fmt.Errorf("catalogue index of format %d; this program reads %d: upgrade it", head.Format, indexFormat)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&x); err != nil {
		return Index{}, fmt.Errorf("catalogue index: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return Index{}, errors.New("catalogue index: something follows the object")
	}
	if err := x.check(); err != nil {
		return Index{}, fmt.Errorf("catalogue index: %w", err)
	}
	return x, nil
}

var (
	catalogName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,62}$`)
	versionName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.+~_-]{0,62}$`)
	userName    = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)
	bootModes   = []cloud.BootMode{cloud.LegacyBIOS, cloud.UEFI, cloud.UEFIPreferred}
	hashes      = map[string]int{"sha256": 64, "sha512": 128} // hexadecimal digits
)

func (x Index) check() error {
	switch {
	case x.Format != indexFormat:
		return fmt.Errorf("format %d, want %d", x.Format, indexFormat)
	case !catalogName.MatchString(x.Name):
		return fmt.Errorf("name %q: want up to 63 of a-z, 0-9, . and -", x.Name)
	case x.Serial < 1:
		return fmt.Errorf("serial %d: want 1 or more", x.Serial)
	case len(x.Entries) > maxIndexEntries:
		return fmt.Errorf("%d entries; at most %d are read", len(x.Entries), maxIndexEntries)
	}
	seen := map[string]bool{}
	for i, e := range x.Entries {
		if err := e.check(); err != nil {
			return fmt.Errorf("entry %d (%q): %w", i+1, e.Name, err)
		}
		if seen[e.Name] {
			return fmt.Errorf("entry %d: a second one named %q", i+1, e.Name)
		}
		seen[e.Name] = true
	}
	return nil
}

func (e Entry) check() error {
	switch {
	case !catalogName.MatchString(e.Name):
		return errors.New("name: want up to 63 of a-z, 0-9, . and -")
	case !versionName.MatchString(e.Version):
		return fmt.Errorf("version %q: want up to 63 letters, digits and .+~_-", e.Version)
	case e.Architecture != "x86_64" && e.Architecture != "arm64":
		return fmt.Errorf("architecture %q: want x86_64 or arm64", e.Architecture)
	case e.Virtualization != cloud.HVM && e.Virtualization != cloud.Paravirtual:
		return fmt.Errorf("virtualization %q: want %s or %s", e.Virtualization, cloud.HVM, cloud.Paravirtual)
	case e.Boot != "" && !slices.Contains(bootModes, e.Boot):
		return fmt.Errorf("boot %q: want one of %q", e.Boot, bootModes)
	case e.User != "" && !userName.MatchString(e.User):
		return fmt.Errorf("user %q is no user's name", e.User)
	case e.Size < 1 || e.Size > maxImageBytes:
		return fmt.Errorf("size of %d bytes", e.Size)
	case len(e.Needs) > 10:
		return fmt.Errorf("%d needs; at most 10 are read", len(e.Needs))
	case (e.Recipe == "") == (e.Download == nil):
		return errors.New("want a recipe or a download, and not both")
	case e.Recipe != "" && !catalogName.MatchString(e.Recipe):
		return fmt.Errorf("recipe %q is no name", e.Recipe)
	}
	for _, text := range append([]string{e.Description}, e.Needs...) {
		if err := checkText(text); err != nil {
			return err
		}
	}
	if e.Download != nil {
		return e.Download.check(e.Virtualization)
	}
	return nil
}

// checkText refuses what could play tricks on the terminal that shows it.
func checkText(s string) error {
	if len(s) > maxText {
		return fmt.Errorf("text of %d bytes; at most %d are read", len(s), maxText)
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("text %q has a character that doesn't print", s)
		}
	}
	return nil
}

func (d Download) check(v cloud.Virtualization) error {
	if v != cloud.HVM {
		return fmt.Errorf("a download is one file, which for a %s image is not enough", v)
	}
	if d.Format != "raw" && d.Format != "qcow2" {
		return fmt.Errorf("format %q: want raw or qcow2", d.Format)
	}
	if err := checkURL(d.URL, "https", "http"); err != nil {
		return err
	}
	switch {
	case d.Digest != "" && (d.Sums != "" || d.Hash != ""):
		return errors.New("want a digest or sums, and not both")
	case d.Digest != "":
		return checkDigest(d.Digest)
	case hashes[d.Hash] == 0:
		return fmt.Errorf("sumsAre %q: want sha256 or sha512", d.Hash)
	}
	// Nothing but TLS vouches for the list.
	return checkURL(d.Sums, "https")
}

// checkDigest wants ALGORITHM:HEX.
func checkDigest(s string) error {
	if _, _, err := splitDigest(s); err != nil {
		return err
	}
	return nil
}

func splitDigest(s string) (hash, sum string, err error) {
	for hash, digits := range hashes {
		if rest, ok := bytes.CutPrefix([]byte(s), []byte(hash+":")); ok && len(rest) == digits {
			if _, err := hex.DecodeString(string(rest)); err == nil {
				return hash, string(bytes.ToLower(rest)), nil
			}
		}
	}
	return "", "", fmt.Errorf("digest %q: want sha256: and 64 hexadecimal digits, or sha512: and 128", s)
}

// checkURL wants an address that holds no secret, of one of the schemes.
func checkURL(s string, schemes ...string) error {
	u, err := url.Parse(s)
	if err != nil {
		return err
	}
	if !slices.Contains(schemes, u.Scheme) || u.Hostname() == "" || u.User != nil || u.Fragment != "" || len(s) > 2048 {
		return fmt.Errorf("address %q: want %s://HOST/PATH without a user", s, schemes[0])
	}
	return checkText(s[:min(len(s), maxText)])
}

// entry finds an image by its name.
func (x Index) entry(name string) (Entry, bool) {
	i := slices.IndexFunc(x.Entries, func(e Entry) bool { return e.Name == name })
	if i < 0 {
		return Entry{}, false
	}
	return x.Entries[i], true
}
