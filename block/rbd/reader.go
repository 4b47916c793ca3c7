package rbd

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"mallee/block/file"
)

// place is where a disk's qcow2 lies.
func (s *Disks) place(ctx context.Context, name string) file.Place {
	node := map[string]any{
		"driver": "rbd", "conf": s.Conf, "user": s.User, "pool": s.Pool, "namespace": s.Namespace, "image": name,
	}
	return file.Place{Name: s.image(name).String(), Node: node, Bytes: func() io.ReaderAt { return &reader{ctx, node, map[int64][]byte{}} }}
}

// reader reads an image's bytes. Each piece is a process of QEMU's, so it reads
// large ones, and remembers them as long as nobody writes.
type reader struct {
	ctx    context.Context // of the one call that reads
	node   map[string]any
	pieces map[int64][]byte
}

const pieceSize = 128 << 10 // a cluster, in which the header is

// ReadAt is io.ReaderAt's.
func (r *reader) ReadAt(p []byte, offset int64) (n int, err error) {
	for n < len(p) {
		at := offset + int64(n)
		piece, err := r.piece(at / pieceSize)
		if err != nil {
			return n, err
		}
		from := at % pieceSize
		if from >= int64(len(piece)) {
			return n, io.EOF
		}
		n += copy(p[n:], piece[from:])
	}
	return n, nil
}

func (r *reader) piece(number int64) ([]byte, error) {
	if have, ok := r.pieces[number]; ok {
		return have, nil
	}
	piece, err := r.fetch(number)
	if err == nil {
		r.pieces[number] = piece
	}
	return piece, err
}

// fetch has qemu-img read a piece.
func (r *reader) fetch(number int64) ([]byte, error) {
	dir, err := os.MkdirTemp("", "mallee-rbd-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) // a cluster's worth; what can't be removed harms nobody
	image, err := json.Marshal(map[string]any{"driver": "raw", "file": r.node})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.ctx, commandTime)
	defer cancel()
	to := filepath.Join(dir, "piece")
	// QEMU (7.2) counts what it skips.
	command := exec.CommandContext(ctx, "qemu-img", "dd", "-U", "-O", "raw", "bs="+strconv.Itoa(pieceSize),
		"skip="+strconv.FormatInt(number, 10), "count="+strconv.FormatInt(number+1, 10), "if=json:"+string(image), "of="+to)
	if out, err := command.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("qemu-img dd: %w: %s", err, strings.TrimSpace(string(out[max(len(out)-1000, 0):])))
	}
	piece, err := os.ReadFile(to)
	return piece[:min(len(piece), pieceSize)], err
}
