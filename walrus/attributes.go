package walrus

import (
	"errors"
	"fmt"
	"os"

	"github.com/versity/versitygw/backend/meta"
	"golang.org/x/sys/unix"
)

// The library's name of the attribute that it sets once an object's or part's
// bytes are all staged, and ours for the canned ACL of an object.
const (
	etagAttribute   = "etag"
	cannedAttribute = "canned-acl"
)

// attributes keeps metadata in extended attributes, as the library does, and
// uses the moment at which the library has staged an object's last byte and
// not yet published it.
type attributes struct {
	meta.XattrMeta
	staged func(*os.File) error
}

// StoreAttribute sets one attribute of f where the library has the file open,
// of bucket/object otherwise.
func (a attributes) StoreAttribute(f *os.File, bucket, object, name string, value []byte) error {
	if f != nil && name == etagAttribute {
		if err := a.staged(f); err != nil {
			return err
		}
	}
	return a.XattrMeta.StoreAttribute(f, bucket, object, name, value)
}

// probeAttributes fails when files in dir can't carry user attributes.
func probeAttributes(dir string) error {
	f, err := os.CreateTemp(dir, ".probe-")
	if err != nil {
		return fmt.Errorf("try a file in the object store's folder: %w", err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	err = unix.Fsetxattr(int(f.Fd()), "user.mallee-probe", make([]byte, 1024), 0)
	if errors.Is(err, unix.ENOTSUP) {
		return fmt.Errorf("the file system of %s keeps no user extended attributes, which the object store needs: use a folder on ext4, XFS or Btrfs", dir)
	}
	if err != nil {
		return fmt.Errorf("set an extended attribute in %s: %w", dir, err)
	}
	return nil
}
