package file

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"mallee/block"
)

// qemuTime bounds how long qemu-img may take; it takes a second or two.
const qemuTime = 2 * time.Minute

// secretID names the key among qemu-img's objects.
const secretID = "key"

// qemuImg runs it. The key goes through a pipe, where no other process sees it.
func qemuImg(ctx context.Context, key []byte, command string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, qemuTime)
	defer cancel()
	all := []string{command}
	var pipe *os.File
	if len(key) > 0 {
		var err error
		if pipe, err = pipeOf(block.Passphrase(key)); err != nil {
			return err
		}
		defer pipe.Close()
		all = append(all, "--object", "secret,id="+secretID+",file=/dev/fd/3")
	}
	run := exec.CommandContext(ctx, "qemu-img", append(all, args...)...)
	if pipe != nil {
		run.ExtraFiles = []*os.File{pipe}
	}
	out, err := run.CombinedOutput()
	if err == nil {
		return nil
	}
	said := strings.TrimSpace(string(out[:min(len(out), 1000)]))
	if strings.Contains(said, syscall.ENOSPC.Error()) || strings.Contains(said, "No space left") {
		err = syscall.ENOSPC
	}
	return fmt.Errorf("qemu-img %s: %w: %s", command, err, said)
}

// pipeOf holds a short text to be read once.
func pipeOf(text string) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	_, err = io.WriteString(w, text) // less than a pipe holds
	if err = errors.Join(err, w.Close()); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// resizeFile grows the image in a file.
func resizeFile(ctx context.Context, path string, d block.Disk) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	node := map[string]any{"driver": "file", "filename": path}
	return resize(ctx, Place{Name: path, Bytes: func() io.ReaderAt { return f }, Node: node}, d)
}

// resize has qemu-img grow an image and its dirty bitmaps. It refuses where a bitmap
// is not whole because a hypervisor died with it open; such a bitmap says nothing any more, and goes.
func resize(ctx context.Context, p Place, d block.Disk) error {
	image := p.described(d)
	err := qemuImg(ctx, d.Key, "resize", "-q", image, strconv.FormatInt(d.Size, 10))
	if err == nil {
		return nil
	}
	names, found := brokenBitmaps(p)
	if found != nil || len(names) == 0 {
		return errors.Join(err, found)
	}
	for _, name := range names {
		if err := qemuImg(ctx, d.Key, "bitmap", "--remove", image, name); err != nil {
			return err
		}
	}
	return qemuImg(ctx, d.Key, "resize", "-q", image, strconv.FormatInt(d.Size, 10))
}

// described is how qemu-img shall open an image: by itself, its base left alone.
func (p Place) described(d block.Disk) string {
	image := map[string]any{"driver": "qcow2", "backing": nil, "file": p.Node}
	if len(d.Key) > 0 {
		image["encrypt"] = map[string]any{"format": "luks", "key-secret": secretID}
	}
	out, err := json.Marshal(image)
	if err != nil {
		panic("block/file: strings are always JSON: " + err.Error())
	}
	return "json:" + string(out)
}

// What follows of bitmaps is docs/interop/qcow2.txt's.
const (
	bitmapInUse      = 1 << 0
	maxBitmaps       = 65535
	maxBitmapsLength = 16 << 20 // bytes of their directory
	bitmapEntry      = 24       // bytes, before its extra data and name
)

// brokenBitmaps names the dirty bitmaps that were not saved whole.
func brokenBitmaps(p Place) ([]string, error) {
	now := p.Bytes()
	have, err := decodeHeader(now)
	if err != nil {
		return nil, err
	}
	directory, err := bitmapDirectory(now, have.find(extensionBitmaps))
	if err != nil {
		return nil, fmt.Errorf("the dirty bitmaps of %s: %w", p.Name, err)
	}
	return decodeBitmaps(directory)
}

func bitmapDirectory(r io.ReaderAt, value []byte) ([]byte, error) {
	var e struct {
		Count, _     uint32
		Size, Offset uint64
	}
	if err := binary.Read(bytes.NewReader(value), binary.BigEndian, &e); err != nil {
		return nil, err
	}
	if e.Count > maxBitmaps || e.Size > maxBitmapsLength {
		return nil, fmt.Errorf("%d of them in %d bytes", e.Count, e.Size)
	}
	directory := make([]byte, e.Size)
	_, err := r.ReadAt(directory, int64(e.Offset))
	return directory, err
}

func decodeBitmaps(directory []byte) (broken []string, err error) {
	for len(directory) > 0 {
		if len(directory) < bitmapEntry {
			return nil, errors.New("the directory of dirty bitmaps is cut")
		}
		flags := binary.BigEndian.Uint32(directory[12:])
		name := int(binary.BigEndian.Uint16(directory[18:]))
		extra := int64(binary.BigEndian.Uint32(directory[20:]))
		length := (bitmapEntry + extra + int64(name) + 7) &^ 7
		if length > int64(len(directory)) {
			return nil, errors.New("the directory of dirty bitmaps is cut")
		}
		if flags&bitmapInUse != 0 {
			broken = append(broken, string(directory[bitmapEntry+extra:][:name]))
		}
		directory = directory[length:]
	}
	return broken, nil
}
