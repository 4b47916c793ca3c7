package task

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"mallee/cloud"
	"mallee/snapshot"
)

// storing is how many blocks are stored at once.
const storing = 4

// store a raw file as a content, under a journal of the task's, and remove the
// file. Holes aren't read.
func (r *run) store(ctx context.Context, raw string, n int, s stage) (_ cloud.Content, err error) {
	f, err := os.Open(raw)
	if err != nil {
		return cloud.Content{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return cloud.Content{}, err
	}
	w, err := r.Contents.Write(ctx, journalName(r.task.ID, n), info.Size(), nil)
	if err != nil {
		return cloud.Content{}, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if err := storeFile(ctx, w, f, info.Size(), s.progress); err != nil {
		return cloud.Content{}, fmt.Errorf("store the disk: %w", err)
	}
	content, err := w.Commit(ctx)
	if err != nil {
		return cloud.Content{}, fmt.Errorf("store the disk: %w", err)
	}
	return content, os.Remove(raw)
}

// journalName of the task's disk n: it keeps the content until the cloud has it.
func journalName(id cloud.TaskID, n int) string { return fmt.Sprintf("%s-%d", id, n) }

// storeFile writes what isn't a hole, several blocks at once.
func storeFile(ctx context.Context, w *snapshot.Writer, f *os.File, size int64, progress func(done, total int64)) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(storing)
	for offset := int64(0); offset < size && ctx.Err() == nil; {
		data, err := seekData(f, offset)
		if errors.Is(err, unix.ENXIO) {
			break // nothing but a hole follows
		}
		if err != nil {
			return errors.Join(err, group.Wait())
		}
		offset = data / snapshot.BlockSize * snapshot.BlockSize
		at := offset
		group.Go(func() error { return storeBlock(ctx, w, f, at, min(snapshot.BlockSize, size-at)) })
		offset += snapshot.BlockSize
		progress(offset, size)
	}
	return group.Wait()
}

func storeBlock(ctx context.Context, w *snapshot.Writer, f *os.File, at, length int64) error {
	block := make([]byte, length)
	if _, err := f.ReadAt(block, at); err != nil {
		return err
	}
	return w.WriteAt(ctx, block, at)
}

// seekData finds the first byte from offset on that isn't in a hole; ENXIO where
// there is none. File systems that know no holes say offset.
func seekData(f *os.File, offset int64) (int64, error) {
	return unix.Seek(int(f.Fd()), offset, unix.SEEK_DATA)
}

// load writes a content to an empty file, leaving holes.
func (r *run) load(ctx context.Context, c cloud.Content, dst *os.File, s stage) error {
	reader, err := r.Contents.Read(ctx, c)
	if err != nil {
		return err
	}
	if err := dst.Truncate(c.Size); err != nil {
		return err
	}
	block := make([]byte, snapshot.BlockSize)
	for b, err := range reader.Blocks(ctx, 0) {
		if err != nil {
			return err
		}
		at := b.Index * snapshot.BlockSize
		part := block[:min(snapshot.BlockSize, c.Size-at)]
		if err := reader.ReadAt(ctx, part, at); err != nil {
			return err
		}
		if _, err := dst.WriteAt(part, at); err != nil {
			return err
		}
		s.progress(at, c.Size)
	}
	return nil
}

// removeJournals of the task's disks.
func (w *Worker) removeJournals(id cloud.TaskID) error {
	names, err := w.Contents.Journals()
	errs := []error{err}
	for _, name := range names {
		if strings.HasPrefix(name, string(id)+"-") {
			errs = append(errs, w.Contents.RemoveJournal(name))
		}
	}
	return errors.Join(errs...)
}
