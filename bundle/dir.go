package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

const temporary = ".tmp"

// WriteDir bundles an image into files of a folder, which it makes if need be, and returns the manifest with its path.
// Files appear under their names, in place of older ones, once all parts are whole, and the manifest last; a failed bundling
// leaves no files.
func WriteDir(ctx context.Context, dir string, src io.Reader, size int64, options Options) (*Manifest, string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, "", fmt.Errorf("make bundle folder: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, "", fmt.Errorf("open bundle folder: %w", err)
	}
	defer root.Close()
	w := &dirWriter{root: root}
	defer w.discard()
	m, xml, err := Write(ctx, src, size, options, w.sink)
	if err != nil {
		return nil, "", err
	}
	name := options.Prefix + ManifestSuffix
	if err := w.publish(name, xml); err != nil {
		return nil, "", fmt.Errorf("write bundle to %s: %w", dir, err)
	}
	return m, filepath.Join(dir, name), nil
}

// dirWriter keeps the parts under temporary names until all are there.
type dirWriter struct {
	root  *os.Root
	names []string // final names of the temporary files there are
}

type filePart struct{ *os.File }

func (f filePart) CloseWithError(error) error { return f.Close() }

func (w *dirWriter) sink(_ context.Context, name string) (PartWriter, error) {
	f, err := w.root.OpenFile(name+temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	w.names = append(w.names, name)
	return filePart{f}, nil
}

func (w *dirWriter) publish(manifest string, xml []byte) error {
	w.names = append(w.names, manifest)
	if err := w.root.WriteFile(manifest+temporary, xml, 0o600); err != nil {
		return err
	}
	for len(w.names) > 0 {
		if err := w.root.Rename(w.names[0]+temporary, w.names[0]); err != nil {
			return err
		}
		w.names = w.names[1:]
	}
	return nil
}

// discard removes what wasn't published.
func (w *dirWriter) discard() {
	for _, name := range w.names {
		_ = w.root.Remove(name + temporary) // nothing better can be done about it
	}
}

// UnpackDir is Unpack for parts that are files of a folder. Its contract for dst is the same.
func UnpackDir(ctx context.Context, m *Manifest, dir string, key, iv []byte, dst io.Writer, progress func(done, total int64)) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open bundle folder: %w", err)
	}
	defer root.Close()
	open := func(_ context.Context, part Part) (io.ReadCloser, error) { return OpenPart(root, part) }
	return Unpack(ctx, m, key, iv, open, dst, progress)
}

// ReadManifestFile reads and parses a manifest on disk.
func ReadManifestFile(path string) (*Manifest, []byte, error) {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = errNotRegular(path)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read manifest: %w", err)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("read manifest: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxManifestSize+1))
	if err != nil {
		return nil, nil, fmt.Errorf("read manifest: %w", err)
	}
	m, err := ParseManifest(data)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, data, nil
}

// OpenPart opens a part that is a file of a folder. It looks before it opens, for opening a FIFO or a device may hang; nothing
// that leads out of the folder is opened.
func OpenPart(root *os.Root, part Part) (*os.File, error) {
	info, err := root.Stat(part.Name)
	if err == nil && !info.Mode().IsRegular() {
		err = errNotRegular(part.Name)
	}
	if err != nil {
		return nil, err
	}
	return root.Open(part.Name)
}

func errNotRegular(path string) error {
	return &fs.PathError{Op: "open", Path: path, Err: errors.New("not a regular file")}
}
