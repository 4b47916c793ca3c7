package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

const (
	peekPage  = 1 << 20 // bytes
	peekPages = 24      // at most; what is looked at is a table or two and a boot loader's folder
)

// A peeker reads some parts of the disk in a disk image, each by a QEMU of its own in a sandbox.
type peeker struct {
	ctx    context.Context
	driver driver
	window window
	limits Limits
	dir    string
	pages  map[int64][]byte
}

func newPeeker(ctx context.Context, d driver, w window, limits Limits) (*peeker, error) {
	dir, err := os.MkdirTemp("", "mallee-peek-")
	if err != nil {
		return nil, err
	}
	return &peeker{ctx: ctx, driver: d, window: w, limits: limits, dir: dir, pages: map[int64][]byte{}}, nil
}

func (p *peeker) close() { os.RemoveAll(p.dir) }

var errPeek = errors.New("the image is looked at in too many places")

// ReadAt reads bytes of the disk.
func (p *peeker) ReadAt(b []byte, off int64) (n int, err error) {
	for n < len(b) {
		at := off + int64(n)
		if at >= p.driver.virtual {
			return n, io.EOF
		}
		page, err := p.page(at / peekPage)
		if err != nil {
			return n, err
		}
		n += copy(b[n:], page[min(at%peekPage, int64(len(page))):])
	}
	return n, nil
}

func (p *peeker) page(number int64) ([]byte, error) {
	if b, ok := p.pages[number]; ok {
		return b, nil
	}
	if len(p.pages) >= peekPages {
		return nil, errPeek
	}
	off := number * peekPage
	length := min(peekPage, p.driver.virtual-off)
	b, err := p.read(off, length)
	if err != nil {
		return nil, err
	}
	p.pages[number] = b
	return b, nil
}

func (p *peeker) read(off, length int64) ([]byte, error) {
	file := filepath.Join(p.dir, "page")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return nil, err
	}
	if err := os.Truncate(file, length); err != nil {
		return nil, err
	}
	from, err := p.driver.source(p.window, &extent{off, length})
	if err != nil {
		return nil, err
	}
	err = qemuImg(p.ctx, "looking into the image", p.limits, p.window.file, file, Quiet, "convert", "-n", "--target-is-zero", "-O", "raw", from, outName)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(file)
	if err == nil && int64(len(b)) != length {
		err = fmt.Errorf("QEMU wrote %d bytes of %d", len(b), length)
	}
	return b, err
}
