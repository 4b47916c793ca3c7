package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"strings"
)

// maxFile bounds what one file of a package may take in memory; the largest, a kernel, has 14 MB.
const maxFile = 256 << 20

// readDeb adds to the tree those files of a package that keep wants, by their paths. dpkg-deb
// unpacks the archive; we read its tar stream, so nothing of the package touches the disk and no
// path of it can lead anywhere.
func readDeb(ctx context.Context, t tree, file string, keep func(name string) bool) error {
	tool, err := exec.LookPath("dpkg-deb")
	if err != nil {
		return &MissingToolError{Tool: "dpkg-deb", Package: "dpkg"}
	}
	var msg bytes.Buffer
	cmd := exec.CommandContext(ctx, tool, "--fsys-tarfile", file)
	cmd.Stderr = &msg
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting dpkg-deb: %w", err)
	}
	readErr := readTar(t, out, keep)
	io.Copy(io.Discard, out)
	if err := cmd.Wait(); err != nil {
		return commandError(cmd, err, msg.String())
	}
	if readErr != nil {
		return fmt.Errorf("reading package %s: %w", file, readErr)
	}
	return nil
}

func readTar(t tree, r io.Reader, keep func(name string) bool) error {
	archive := tar.NewReader(r)
	for {
		h, err := archive.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
		if keep(name) {
			if err := readEntry(t, name, h, archive); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
}

func readEntry(t tree, name string, h *tar.Header, r io.Reader) error {
	switch h.Typeflag {
	case tar.TypeDir:
		t.put(name, &node{mode: h.FileInfo().Mode()}) // perhaps an empty one, which something expects
	case tar.TypeReg:
		if h.Size > maxFile {
			return fmt.Errorf("%d bytes are more than the %d expected of any file", h.Size, maxFile)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		t.file(name, fs.FileMode(h.Mode).Perm(), data)
	case tar.TypeSymlink:
		t.symlink(name, h.Linkname)
	case tar.TypeLink:
		data, err := t.follow(strings.TrimPrefix(path.Clean("/"+h.Linkname), "/"))
		if err != nil {
			return err
		}
		t.file(name, fs.FileMode(h.Mode).Perm(), data)
	}
	return nil
}

// verify compares a file with the checksum that apt's lists have for it.
func (d deb) verify(file string) error {
	algorithm, want, _ := strings.Cut(d.Sum, ":")
	var h hash.Hash
	switch algorithm {
	case "SHA256":
		h = sha256.New()
	case "SHA512":
		h = sha512.New()
	default:
		return fmt.Errorf("package %s has a checksum of unknown kind %q", d.Name, algorithm)
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		return fmt.Errorf("package file %s has %s %s, apt's lists say %s", file, algorithm, got, want)
	}
	return nil
}
