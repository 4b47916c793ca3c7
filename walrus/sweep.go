package walrus

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/versity/versitygw/backend/posix"
)

// inProgress ends the name of an upload's folder while the library assembles
// the object; what precedes it is the upload's id, a dot and a digest.
const inProgress = ".inprogress"

// sweep removes what a crash left staged in every bucket and gives uploads that
// were being completed back to their owners, who may complete them again.
func sweep(root string) error {
	buckets, err := os.ReadDir(root)
	if err != nil {
		return fmt.Errorf("list buckets: %w", err)
	}
	for _, bucket := range buckets {
		if !bucket.IsDir() {
			continue
		}
		if err := sweepBucket(filepath.Join(root, bucket.Name())); err != nil {
			return fmt.Errorf("sweep bucket %s: %w", bucket.Name(), err)
		}
	}
	return nil
}

func sweepBucket(bucket string) error {
	staging := filepath.Join(bucket, posix.MetaTmpDir)
	entries, err := os.ReadDir(staging)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list staged files: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		if err := os.Remove(filepath.Join(staging, e.Name())); err != nil {
			return fmt.Errorf("remove staged file: %w", err)
		}
	}
	return sweepUploads(filepath.Join(bucket, posix.MetaTmpMultipartDir))
}

// sweepUploads works in .sgwtmp/multipart: a folder a key, in it a folder an
// upload and, beside them, the parts being staged.
func sweepUploads(dir string) error {
	beside, err := filepath.Glob(filepath.Join(dir, "*", "*"))
	if err != nil {
		return fmt.Errorf("list uploads: %w", err)
	}
	for _, path := range beside {
		info, err := os.Lstat(path)
		if err != nil || info.IsDir() {
			continue
		}
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("remove staged part: %w", err)
		}
	}
	claimed, err := filepath.Glob(filepath.Join(dir, "*", "*"+inProgress))
	if err != nil {
		return fmt.Errorf("list uploads: %w", err)
	}
	for _, path := range claimed {
		id, _, _ := strings.Cut(filepath.Base(path), ".")
		if err := os.Rename(path, filepath.Join(filepath.Dir(path), id)); err != nil {
			return fmt.Errorf("give back upload %s: %w", id, err)
		}
	}
	return nil
}
