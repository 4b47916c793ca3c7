package dir

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"mallee/blob"
)

// walk yields the blobs of a folder in the order of their keys.
type walk struct {
	ctx    context.Context
	root   string
	prefix string
	yield  func(blob.Info, error) bool
}

// folder walks one folder and those below it. It returns fs.SkipAll when no
// more is wanted.
func (w *walk) folder(name string) error {
	entries, err := os.ReadDir(filepath.Join(w.root, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // deleted meanwhile
	}
	if err != nil {
		return err
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(orderOf(a), orderOf(b)) })
	for _, e := range entries {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		if err := w.entry(path.Join(name, e.Name()), e); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) entry(key string, e fs.DirEntry) error {
	if e.IsDir() {
		below := key + "/"
		if key == staging || !strings.HasPrefix(below, w.prefix) && !strings.HasPrefix(w.prefix, below) {
			return nil
		}
		return w.folder(key)
	}
	key, ok := strings.CutSuffix(key, mark)
	if !ok || !strings.HasPrefix(key, w.prefix) {
		return nil
	}
	info, err := e.Info()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // deleted meanwhile
	}
	if err != nil {
		return err
	}
	if !w.yield(blob.Info{Key: key, Size: info.Size()}, nil) {
		return fs.SkipAll
	}
	return nil
}

// orderOf is what an entry sorts by, a blob by its key and a folder by the
// slash that follows it in every key there: a, a-b, a/b.
func orderOf(e fs.DirEntry) string {
	if e.IsDir() {
		return e.Name() + "/"
	}
	return strings.TrimSuffix(e.Name(), mark)
}
