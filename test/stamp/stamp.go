// Package stamp is what the guest's writer (test/writer) and the test that
// judges it (endure_test.go) have agreed on: blocks that say where they belong and
// when they were written, and the lines in which the guest tells of them.
//
// Whatever a block holds is its volume's, its place's and its sequence number's
// alone, and all of it is under a checksum: one that is torn, somebody else's, or
// at another place, is seen as such.
package stamp

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"strings"
)

// Size of a block in bytes.
const Size = 4096

// Blocks of a volume that are written. The first ones lie side by side, and share
// what a disk's format keeps of its clusters; the others lie apart, so that each needs
// clusters, tables and a snapshot's block of its own.
const (
	Blocks = 32
	beside = 12
	apart  = 24<<20 + 20<<10
)

// Offset of a block in a volume of at least a GiB.
func Offset(block int) int64 {
	if block < beside {
		return 1<<20 + int64(block)*Size
	}
	return int64(block) * apart
}

// FileOffset of a block in a file.
func FileOffset(block int) int64 { return int64(block) * Size }

// Stamp is what a block says of itself.
type Stamp struct {
	Volume string // its serial
	Block  int
	Seq    uint64 // ascends with each write of whoever writes to the volume
}

const (
	magic  = "mallee endures\n\x00"
	header = len(magic) + 32 + 8 + 8
)

// Bytes of the block.
func (s Stamp) Bytes() []byte {
	p := make([]byte, 0, Size)
	p = append(p, magic...)
	p = append(p, make([]byte, 32)...)
	copy(p[len(magic):], s.Volume)
	p = binary.BigEndian.AppendUint64(p, uint64(s.Block))
	p = binary.BigEndian.AppendUint64(p, s.Seq)
	noise := rand.New(rand.NewPCG(s.Seq, uint64(s.Block)))
	for len(p) < Size-sha256.Size {
		p = binary.BigEndian.AppendUint64(p, noise.Uint64())
	}
	sum := sha256.Sum256(p)
	return append(p, sum[:]...)
}

// ErrEmpty is a block of zeroes: it was never written.
var ErrEmpty = errors.New("it was never written")

// Read what a block says.
func Read(p []byte) (Stamp, error) {
	body, sum := p[:Size-sha256.Size], p[Size-sha256.Size:Size]
	if want := sha256.Sum256(body); !bytes.Equal(sum, want[:]) || !bytes.HasPrefix(body, []byte(magic)) {
		if len(bytes.Trim(p, "\x00")) == 0 {
			return Stamp{}, ErrEmpty
		}
		return Stamp{}, fmt.Errorf("it is damaged: it begins with %.64q", p)
	}
	name, rest := body[len(magic):len(magic)+32], body[len(magic)+32:header]
	return Stamp{
		Volume: string(bytes.TrimRight(name, "\x00")),
		Block:  int(binary.BigEndian.Uint64(rest)),
		Seq:    binary.BigEndian.Uint64(rest[8:]),
	}, nil
}

// Kinds of lines.
const (
	Began   = 'B' // the writer has begun, after a boot; Volume is nothing
	Found   = 'F' // what a block held when the volume was opened, before anything was written
	Blank   = 'Z' // it held nothing
	Damaged = 'D' // it held neither a stamp nor nothing
	Scanned = 'E' // that was all that was found
	Wrote   = 'W' // a write was acknowledged
	Failed  = 'X' // a read or a write failed
)

// Line is something that the guest says. At is the block's place; the stamp found
// there may name another.
type Line struct {
	Kind rune
	On   string // the volume
	At   int
	Stamp
}

// String is the line as it goes over the console, where the kernel may write into
// it: it has a checksum.
func (l Line) String() string {
	text := fmt.Sprintf("%c %s %d %s %d %d", l.Kind, or(l.On), l.At, or(l.Volume), l.Block, l.Seq)
	return fmt.Sprintf("=%s %08x", text, crc32.ChecksumIEEE([]byte(text)))
}

func or(name string) string {
	if name == "" {
		return "-"
	}
	return name
}

// Parse a line of a console; what is none, or not whole, is not ok.
func Parse(text string) (l Line, ok bool) {
	at := strings.LastIndexByte(text, '=')
	if at < 0 {
		return l, false
	}
	text = strings.TrimRight(text[at+1:], "\r\n")
	end := strings.LastIndexByte(text, ' ')
	if end < 0 || text[end+1:] != fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(text[:end]))) {
		return l, false
	}
	n, err := fmt.Sscanf(text[:end], "%c %s %d %s %d %d", &l.Kind, &l.On, &l.At, &l.Volume, &l.Block, &l.Seq)
	return l, err == nil && n == 6
}
