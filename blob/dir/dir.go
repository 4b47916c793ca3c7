// Package dir is a blob store in a folder: a blob is a file, its key the path.
//
// A blob is written to the folder's .tmp, forced to the disk, renamed to its
// name (so that nothing is replaced) and the folders above it forced too. Puts at
// once share what that costs: sixteen blobs take little longer than one. Files' names end in a tilde, which no key holds, so that
// the blob a and the folder of a/b don't meet. What a crash leaves in .tmp is
// swept by Open.
package dir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"mallee/blob"
	"mallee/durable"
)

const (
	staging = ".tmp" // holds blobs being written; no key can name it
	mark    = "~"    // ends the name of a blob's file
)

// Store is a blob store in a folder; Open makes one.
type Store struct {
	root string

	// A folder seen here was forced, with all above it, since this process
	// opened the store; Delete leaves folders standing, so it stays true.
	mu     sync.Mutex // guards forced
	forced map[string]bool
}

var _ blob.Store = (*Store)(nil)

// Open opens the store in a folder, made if it isn't there, and removes what a
// crash left half written. One process at a time may have it open.
func Open(root string) (*Store, error) {
	tmp := filepath.Join(root, staging)
	if err := os.RemoveAll(tmp); err != nil {
		return nil, fmt.Errorf("sweep blob store: %w", err)
	}
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return nil, fmt.Errorf("make blob store: %w", err)
	}
	return &Store{root: root, forced: map[string]bool{}}, nil
}

// Put implements blob.Store.
func (s *Store) Put(ctx context.Context, key string, r io.Reader) error {
	if err := check(ctx, key); err != nil {
		return err
	}
	if err := s.put(ctx, key, r); err != nil {
		return fmt.Errorf("put blob %s: %w", key, err)
	}
	return nil
}

func (s *Store) put(ctx context.Context, key string, r io.Reader) error {
	f, err := os.CreateTemp(filepath.Join(s.root, staging), "put-") // 0600
	if err != nil {
		return err
	}
	defer f.Close()
	err = s.fill(ctx, f, r)
	if err == nil {
		err = s.name(f, s.file(key))
	}
	if err != nil {
		return errors.Join(err, removeStaged(f.Name()))
	}
	return s.force(key)
}

// fill writes the blob, durably.
func (s *Store) fill(ctx context.Context, f *os.File, r io.Reader) error {
	source := io.Reader(&reader{ctx, r})
	if _, whole := r.(*bytes.Reader); whole {
		source = r // all at once, which takes half the time of many small writes
	}
	if _, err := io.Copy(f, source); err != nil {
		return err
	}
	return f.Sync()
}

// name gives the staged blob its name, unless that is taken.
func (s *Store) name(f *os.File, name string) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	err := renameNew(f.Name(), name)
	if errors.Is(err, fs.ErrExist) {
		if err = s.same(f, name); err == nil {
			err = removeStaged(f.Name())
		}
	}
	return err
}

// renameNew renames but never replaces. File systems that can't do so at once
// are left with a link.
func renameNew(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
		if err != nil {
			return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
		}
		return nil
	}
	if err := os.Link(from, to); err != nil {
		return err
	}
	return os.Remove(from)
}

func removeStaged(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// same fails unless the file at name holds the bytes of staged. Its owner may
// not have forced it yet, so that is done here too.
func (s *Store) same(staged *os.File, name string) error {
	old, err := os.Open(name)
	if err != nil {
		return err
	}
	defer old.Close()
	if _, err := staged.Seek(0, io.SeekStart); err != nil {
		return err
	}
	equal, err := equalReaders(staged, old)
	if err != nil {
		return err
	}
	if !equal {
		return blob.ErrConflict
	}
	return old.Sync()
}

func equalReaders(a, b io.Reader) (bool, error) {
	var x, y [32 << 10]byte
	for {
		n, errA := io.ReadFull(a, x[:])
		m, errB := io.ReadFull(b, y[:])
		if n != m || string(x[:n]) != string(y[:m]) {
			return false, nil
		}
		if errA == nil && errB == nil {
			continue
		}
		for _, err := range []error{errA, errB} {
			if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
				return false, err
			}
		}
		return true, nil
	}
}

// force makes the entry of key durable, and those of the folders above it that
// may be new.
func (s *Store) force(key string) error {
	var fresh []string
	for folder := path.Dir(key); ; folder = path.Dir(folder) {
		if err := durable.SyncDir(filepath.Join(s.root, folder)); err != nil {
			return err
		}
		if folder == "." || s.isForced(folder) {
			break
		}
		fresh = append(fresh, folder)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, folder := range fresh {
		s.forced[folder] = true
	}
	return nil
}

func (s *Store) isForced(folder string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.forced[folder]
}

// Get implements blob.Store.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := check(ctx, key); err != nil {
		return nil, err
	}
	if offset < 0 {
		return nil, fmt.Errorf("get blob %s from %d: %w", key, offset, fs.ErrInvalid)
	}
	f, err := os.Open(s.file(key))
	if err != nil {
		return nil, fmt.Errorf("get blob %s: %w", key, s.away(err))
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		f.Close()
		return nil, fmt.Errorf("get blob %s from %d: %w", key, offset, err)
	}
	if length < 0 {
		return f, nil
	}
	return &limited{io.LimitedReader{R: f, N: length}, f}, nil
}

// away makes another error of one that says that a file isn't there, where all of
// the store isn't. The folder of staging is always there otherwise.
func (s *Store) away(err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, gone := os.Stat(filepath.Join(s.root, staging)); gone != nil {
		return fmt.Errorf("the store of blobs %s is not there, or can't be read (%v): is its disk mounted?", s.root, gone)
	}
	return err
}

type limited struct {
	io.LimitedReader
	io.Closer
}

// Has implements blob.Store.
func (s *Store) Has(ctx context.Context, key string) (bool, error) {
	if err := check(ctx, key); err != nil {
		return false, err
	}
	_, err := os.Stat(s.file(key))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil && !s.isForced(path.Dir(key)) {
		err = s.force(key) // a process before this one may have ended between its rename and that
	}
	if err != nil {
		return false, fmt.Errorf("look for blob %s: %w", key, err)
	}
	return true, nil
}

// Delete implements blob.Store. Folders stay: they are few and will be used again.
func (s *Store) Delete(ctx context.Context, key string) error {
	there, err := s.Has(ctx, key)
	if err != nil || !there {
		return err
	}
	name := s.file(key)
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete blob %s: %w", key, err)
	}
	if err := durable.SyncDir(filepath.Dir(name)); err != nil {
		return fmt.Errorf("delete blob %s: %w", key, err)
	}
	return nil
}

// List implements blob.Store.
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[blob.Info, error] {
	return func(yield func(blob.Info, error) bool) {
		w := walk{ctx: ctx, root: s.root, prefix: prefix, yield: yield}
		if err := w.folder("."); err != nil && !errors.Is(err, fs.SkipAll) {
			yield(blob.Info{}, fmt.Errorf("list blobs: %w", err))
		}
	}
}

func (s *Store) file(key string) string { return filepath.Join(s.root, filepath.FromSlash(key)) + mark }

func check(ctx context.Context, key string) error {
	if err := blob.CheckKey(key); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("blob %s: %w", key, err)
	}
	return nil
}

// reader stops reading when its context ends.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
