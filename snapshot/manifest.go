package snapshot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sort"
)

const (
	pageBlocks = 1024                   // blocks that a page lists at most
	pageBytes  = pageBlocks * BlockSize // of a content, that a page covers
	maxSize    = 1 << 46                // bytes of a content: 64 TiB, whose manifest has 4.5 MiB

	manifestMagic = "mallee manifest 1\n"
	pageMagic     = "mallee page 1\n"

	entrySize   = 4 + len(Digest{})
	maxPage     = len(pageMagic) + pageBlocks*entrySize // bytes
	maxManifest = len(manifestMagic) + 8 + maxSize/pageBytes*entrySize
)

// entries is the encoded list of a page or a manifest: numbers and digests.
type entries []byte

func (e entries) len() int { return len(e) / entrySize }

func (e entries) at(i int) (number uint32, d Digest) {
	entry := e[i*entrySize:]
	return binary.BigEndian.Uint32(entry), Digest(entry[4:entrySize])
}

// find is the digest under a number, zero where there is none.
func (e entries) find(number uint32) Digest {
	i := e.search(number)
	if i < e.len() {
		if n, d := e.at(i); n == number {
			return d
		}
	}
	return Digest{}
}

// search is the place of the first number that is not less.
func (e entries) search(number uint32) int {
	return sort.Search(e.len(), func(i int) bool { n, _ := e.at(i); return n >= number })
}

func (e entries) append(number uint32, d Digest) entries {
	return append(binary.BigEndian.AppendUint32(e, number), d[:]...)
}

// check that numbers ascend and stay below a bound, and digests aren't zero: so
// that a list has one encoding only.
func (e entries) check(bound int64) error {
	if len(e)%entrySize != 0 {
		return fmt.Errorf("ends within an entry, after %d bytes", len(e))
	}
	last := int64(-1)
	for i := range e.len() {
		n, d := e.at(i)
		switch {
		case int64(n) <= last:
			return fmt.Errorf("number %d follows %d", n, last)
		case int64(n) >= bound:
			return fmt.Errorf("number %d, want less than %d", n, bound)
		case d == Digest{}:
			return fmt.Errorf("number %d has no digest", n)
		}
		last = int64(n)
	}
	return nil
}

func encodePage(list entries) []byte { return append([]byte(pageMagic), list...) }

func decodePage(data []byte) (entries, error) {
	list, ok := bytes.CutPrefix(data, []byte(pageMagic))
	switch {
	case !ok:
		return nil, fmt.Errorf("not a page: begins with %.20q", data)
	case len(list) == 0:
		return nil, errors.New("a page without blocks")
	}
	if err := entries(list).check(pageBlocks); err != nil {
		return nil, fmt.Errorf("damaged page: %w", err)
	}
	return list, nil
}

// manifest lists the pages of a content.
type manifest struct {
	size  int64
	pages entries
}

// pagesOf is how many pages cover so many bytes.
func pagesOf(size int64) int64 { return (size + pageBytes - 1) / pageBytes }

func (m manifest) encode() []byte {
	out := binary.BigEndian.AppendUint64([]byte(manifestMagic), uint64(m.size))
	return append(out, m.pages...)
}

func decodeManifest(data []byte) (manifest, error) {
	rest, ok := bytes.CutPrefix(data, []byte(manifestMagic))
	if !ok || len(rest) < 8 {
		return manifest{}, fmt.Errorf("not a manifest: begins with %.20q", data)
	}
	size := binary.BigEndian.Uint64(rest)
	if size == 0 || size > maxSize {
		return manifest{}, fmt.Errorf("the manifest of %d bytes, want 1 to %d", size, int64(maxSize))
	}
	m := manifest{size: int64(size), pages: rest[8:]}
	if err := m.pages.check(pagesOf(m.size)); err != nil {
		return manifest{}, fmt.Errorf("damaged manifest: %w", err)
	}
	return m, nil
}
