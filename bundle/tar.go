package bundle

import (
	"archive/tar"
	"bytes"
	"crypto/sha1"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"
)

const (
	tarBlock  = 512
	tarRecord = 20 * tarBlock // the blocking that tar pads an archive to
)

// tarHeader is the header of the one member, byte for byte as Python's tarfile (GNU format, TarInfo's defaults) and so
// euca2ools write it; sizes above 8 GiB in base 256.
func tarHeader(name string, size int64) ([]byte, error) {
	var b bytes.Buffer
	err := tar.NewWriter(&b).WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0), Format: tar.FormatGNU,
	})
	return b.Bytes(), err
}

// tarTrailer is how many zero bytes follow the member's data: up to a whole block, two blocks that end the archive, up to a whole record.
func tarTrailer(header, size int64) int64 {
	end := header + roundUp(size, tarBlock) + 2*tarBlock
	return roundUp(end, tarRecord) - header - size
}

func roundUp(n, to int64) int64 { return (n + to - 1) / to * to }

// tarLimit is the most a tar of one member of this size can have: beside headers and padding there may be the map of a
// sparse member (AWS's bundler runs tar with --sparse).
func tarLimit(size int64) int64 { return size + size/64 + 1<<20 }

// untar is the last stage of Unpack: one regular member out of a tar whose digest it checks.
type untar struct {
	in       io.Reader
	size     int64            // of the image; unknown means the tar's word
	digest   *[sha1.Size]byte // of the tar; nil is not known
	sum      hash.Hash
	left     int64 // bytes that may still come
	progress func(done, total int64)
}

// unknown is the size of an image that nobody has told.
const unknown = -1

func newUntar(in io.Reader, size int64, digest *[sha1.Size]byte, progress func(done, total int64)) *untar {
	u := &untar{in: in, size: size, digest: digest, sum: sha1.New(), left: tarLimit(size), progress: progress}
	if size == unknown {
		u.left = tarLimit(0) // until the header is read
	}
	return u
}

// Read counts and hashes every byte of the tar.
func (u *untar) Read(p []byte) (int, error) {
	n, err := u.in.Read(p)
	u.sum.Write(p[:n])
	if u.left -= int64(n); u.left < 0 {
		return 0, fmt.Errorf("%w of %d bytes", ErrBomb, max(u.size, 0))
	}
	return n, err
}

func (u *untar) run(dst io.Writer) error {
	archive := tar.NewReader(u)
	header, err := archive.Next()
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: it is empty", ErrTar)
	}
	if err != nil {
		return badTar(err)
	}
	if err := u.check(header); err != nil {
		return err
	}
	if err := u.copy(dst, archive); err != nil {
		return err
	}
	if header, err = archive.Next(); err == nil {
		return fmt.Errorf("%w: a second member, %.60q", ErrTar, header.Name)
	}
	if !errors.Is(err, io.EOF) {
		return badTar(err)
	}
	return u.finish()
}

// check wants a regular file of the image's size. Its name is not used for anything.
func (u *untar) check(header *tar.Header) error {
	if header.Typeflag != tar.TypeReg && header.Typeflag != tar.TypeGNUSparse {
		return fmt.Errorf("%w: member %.60q of type %q is not a regular file", ErrTar, header.Name, header.Typeflag)
	}
	if u.size == unknown {
		u.size = header.Size
		u.left += tarLimit(header.Size) - tarLimit(0)
	}
	if header.Size != u.size {
		return fmt.Errorf("%w: tar's member has %d bytes, image/size is %d", ErrImageSize, header.Size, u.size)
	}
	return nil
}

func (u *untar) copy(dst io.Writer, archive io.Reader) error {
	buf := make([]byte, bufferSize)
	for done := int64(0); ; {
		n, err := fill(archive, buf)
		if err != nil && !errors.Is(err, io.EOF) {
			return badTar(err)
		}
		if _, err := dst.Write(buf[:n]); err != nil {
			return fmt.Errorf("write image at byte %d: %w", done, err)
		}
		done += int64(n)
		u.progress(done, u.size)
		if err != nil {
			return nil
		}
	}
}

// finish reads the padding behind the archive's end, which may be nothing but zeros, and compares the digest.
func (u *untar) finish() error {
	buf := make([]byte, tarRecord)
	for {
		n, err := fill(u, buf)
		if bytes.Count(buf[:n], []byte{0}) != n {
			return fmt.Errorf("%w: something follows its end", ErrTar)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return badTar(err)
		}
	}
	if sum := u.sum.Sum(nil); u.digest != nil && !bytes.Equal(sum, u.digest[:]) {
		return fmt.Errorf("%w: SHA-1 %x, not %x", ErrDigest, sum, *u.digest)
	}
	return nil
}

// badTar leaves alone what isn't the tar's fault.
func badTar(err error) error {
	if errors.Is(err, errUpstream) || errors.Is(err, ErrBomb) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrTar, err)
}
