package node

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"mallee/cloud"
)

// Whatever is written in whatever pieces, the file is what a plain one would be.
func TestSparseIsPlain(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		f, err := os.Create(filepath.Join(t.TempDir(), "f"))
		if err != nil {
			t.Fatal(err)
		}
		w := newSparseWriter(f)
		var plain bytes.Buffer
		for range rnd.IntN(12) {
			piece := make([]byte, rnd.IntN(3*hole))
			switch rnd.IntN(4) {
			case 0: // zeroes
			case 1:
				w.Skip(int64(len(piece)))
				plain.Write(piece)
				continue
			case 2:
				piece = piece[:len(piece)&^(hole-1)] // keeps the alignment
				fallthrough
			default:
				for range rnd.IntN(3) {
					if len(piece) > 0 {
						piece[rnd.IntN(len(piece))] = 1
					}
				}
			}
			if n, err := w.Write(piece); n != len(piece) || err != nil {
				t.Fatal(n, err)
			}
			plain.Write(piece)
		}
		if err := w.finish(int64(plain.Len())); err != nil {
			t.Fatal(err)
		}
		plain.Write(make([]byte, roundUp(int64(plain.Len()))-int64(plain.Len())))
		got, err := os.ReadFile(f.Name())
		if err != nil || !bytes.Equal(got, plain.Bytes()) {
			t.Fatalf("seed %d: %d bytes, %v, want %d", seed, len(got), err, plain.Len())
		}
		f.Close()
	}
}

func TestSparseLeavesHoles(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := newSparseWriter(f)
	w.Write(make([]byte, 8<<20))
	w.Write([]byte("data"))
	if err := w.finish(8<<20 + 4); err != nil {
		t.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil || info.Size() != 8<<20+512 {
		t.Fatal(info.Size(), err)
	}
	if took := info.Sys().(*syscall.Stat_t).Blocks * 512; took > 64<<10 {
		t.Errorf("zeroes take %d bytes", took)
	}
}

func TestSparseChecksTheSize(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := newSparseWriter(f)
	w.Write(make([]byte, 10))
	if err := w.finish(11); err == nil || w.err != nil || err.Error() != "the image has 10 bytes where 11 were registered" {
		t.Errorf("error %v, the file's %v", err, w.err)
	}
}

// A write that fails is told apart from what is wrong with the image.
func TestSparseKeepsTheFilesError(t *testing.T) {
	f, err := os.Open(os.DevNull) // for reading
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := newSparseWriter(f)
	if _, err := w.Write(bytes.Repeat([]byte{1}, hole)); err == nil || w.err == nil || !strings.Contains(err.Error(), "image cache") {
		t.Errorf("error %v, the file's %v", err, w.err)
	}
}

func TestMachineUUID(t *testing.T) {
	for id, want := range map[cloud.InstanceID]string{
		"i-01234567":          "ec200000-0000-4012-8345-670000000008",
		"i-01234567000000000": "ec200000-0000-4012-8345-670000000001",
		"i-0123456789abcdef0": "ec200000-0000-4012-8345-6789abcdef01",
		"i-0123456789abcdeff": "ec200000-0000-4012-8345-6789abcdeff1",
	} {
		if got := machineUUID(id); got != want {
			t.Errorf("%s: %s, want %s", id, got, want)
		}
	}
}
