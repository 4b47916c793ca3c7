package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"mallee/durable"
)

// A journal is a sparse file, so that it takes as much space as was written:
//
//	0                        header, within one sector: it is written whole or not at all
//	4096                     a slot for each block, in their order
//	at the next 512 KiB      frames, of which each holds a block that was written in part
//
// A slot is the digest of the block, which is durable before, or says that the
// block is untouched, all zero, or in a frame.
const (
	journalSuffix = ".journal"
	journalTemp   = ".new-" // no writer's name begins like this
	journalMagic  = "mallee journal 1\n"
	slotsAt       = 4096
	slotSize      = int64(len(Digest{}))
)

var validName = regexp.MustCompile(`^[a-z0-9-]{1,200}$`)

var (
	zeroes     [BlockSize]byte
	untouched  = Digest{}
	zeroBlock  = Digest(sha256.Sum256(zeroes[:])) // never stored
	framePlain = bytes.Repeat([]byte{0xff}, len(Digest{})-4)
)

// frameSlot says that a block is in a frame.
func frameSlot(number uint32) Digest {
	return Digest(binary.BigEndian.AppendUint32(slices.Clone(framePlain), number))
}

func (d Digest) frame() (number uint32, ok bool) {
	if !bytes.HasPrefix(d[:], framePlain) {
		return 0, false
	}
	return binary.BigEndian.Uint32(d[len(framePlain):]), true
}

// stored tells whether a slot names a blob.
func (d Digest) stored() bool {
	_, frame := d.frame()
	return d != untouched && d != zeroBlock && !frame
}

// header of a journal.
type header struct {
	Magic      [24]byte
	Size       int64  // bytes of the content
	Parent     Digest // its manifest, zero for none
	ParentSize int64
	Full       uint64 // 1: the parent counts no more
	Committed  Digest // the manifest, zero before
}

type journal struct {
	file   *os.File
	header header
}

func journalPath(dir, name string) string { return filepath.Join(dir, name+journalSuffix) }

// clearJournals removes what a crash left half-made.
func clearJournals(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, journalTemp+"*"))
	for _, path := range left {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// Journals names the writers that are open, or can be opened again, sorted.
func (s *Store) Journals() ([]string, error) {
	files, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("listing the journals of snapshots: %w", err)
	}
	var names []string
	for _, f := range files {
		if name, ok := strings.CutSuffix(f.Name(), journalSuffix); ok && validName.MatchString(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// openJournal opens the one there is, fs.ErrNotExist if none.
func openJournal(path string, flags int) (*journal, error) {
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return nil, err
	}
	j := &journal{file: f}
	if err := j.readHeader(); err != nil {
		f.Close()
		return nil, fmt.Errorf("the journal %s: %w", path, err)
	}
	return j, nil
}

// makeJournal makes a new one, durably.
func makeJournal(dir, name string, h header) (*journal, error) {
	copy(h.Magic[:], journalMagic)
	temp := filepath.Join(dir, journalTemp+name)
	f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	j := &journal{file: f, header: h}
	if err = f.Truncate(j.framesAt()); err == nil {
		err = j.writeHeader()
	}
	if err == nil {
		err = os.Rename(temp, journalPath(dir, name))
	}
	if err == nil {
		err = durable.SyncDir(dir)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), removeIfThere(temp), removeIfThere(journalPath(dir, name)))
	}
	return j, nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (j *journal) readHeader() error {
	size := binary.Size(header{})
	data := make([]byte, size+sha256.Size)
	if _, err := j.file.ReadAt(data, 0); err != nil {
		return fmt.Errorf("reading its header: %w", err)
	}
	if sha256.Sum256(data[:size]) != [sha256.Size]byte(data[size:]) {
		return errors.New("its header is damaged")
	}
	if _, err := binary.Decode(data, binary.BigEndian, &j.header); err != nil {
		return fmt.Errorf("reading its header: %w", err)
	}
	if !bytes.HasPrefix(j.header.Magic[:], []byte(journalMagic)) || j.header.Size <= 0 || j.header.Size > maxSize {
		return errors.New("its header is not one of a journal")
	}
	return nil
}

// writeHeader is durable when it returns, and so are all slots.
func (j *journal) writeHeader() error {
	data, err := binary.Append(nil, binary.BigEndian, j.header)
	if err != nil {
		panic("snapshot: the journal's header has a fixed size: " + err.Error())
	}
	sum := sha256.Sum256(data)
	if _, err := j.file.WriteAt(append(data, sum[:]...), 0); err != nil {
		return err
	}
	return j.sync()
}

func (j *journal) sync() error { return unix.Fdatasync(int(j.file.Fd())) }

func (j *journal) blocks() int64 { return (j.header.Size + BlockSize - 1) / BlockSize }

func (j *journal) framesAt() int64 {
	end := slotsAt + j.blocks()*slotSize
	return (end + BlockSize - 1) / BlockSize * BlockSize
}

func (j *journal) frameAt(number uint32) int64 { return j.framesAt() + int64(number)*BlockSize }

func (j *journal) slot(index int64) (Digest, error) {
	var d Digest
	_, err := j.file.ReadAt(d[:], slotsAt+index*slotSize)
	return d, err
}

func (j *journal) setSlot(index int64, d Digest) error {
	_, err := j.file.WriteAt(d[:], slotsAt+index*slotSize)
	return err
}

// pages calls do with the slots of each page of which any is touched; they are
// overwritten after. Slots beyond the last block are missing.
func (j *journal) pages(do func(number int64, slots []byte) error) error {
	const length = pageBlocks * slotSize
	buf := make([]byte, length)
	end := j.blocks() * slotSize
	for at := int64(0); at < end; {
		data, err := unix.Seek(int(j.file.Fd()), slotsAt+at, unix.SEEK_DATA) // nobody else uses the file's position
		if errors.Is(err, unix.ENXIO) || err == nil && data >= slotsAt+end {
			return nil
		}
		if err != nil {
			return err
		}
		at = max(data-slotsAt, at) / length * length
		slots := buf[:min(end-at, length)]
		if _, err := j.file.ReadAt(slots, slotsAt+at); err != nil {
			return err
		}
		if !bytes.Equal(slots, zeroes[:len(slots)]) {
			if err := do(at/length, slots); err != nil {
				return err
			}
		}
		at += length
	}
	return nil
}

// each calls do for each slot that is touched.
func (j *journal) each(do func(index int64, d Digest) error) error {
	return j.pages(func(number int64, slots []byte) error {
		for i := int64(0); i < int64(len(slots)); i += slotSize {
			d := Digest(slots[i : i+slotSize])
			if d == untouched {
				continue
			}
			if err := do(number*pageBlocks+i/slotSize, d); err != nil {
				return err
			}
		}
		return nil
	})
}
