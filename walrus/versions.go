package walrus

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/versity/versitygw/backend/posix"
)

// The versions of objects that are not the newest lie in a folder beside the
// store's, since the library walks all of the store's own: a folder a bucket, in
// it a folder a key, named by the key's digest.

// versionsOf is the folder of the older versions.
func versionsOf(root string) string { return strings.TrimSuffix(root, "/") + "-versions" }

// keepVersions tells the library where older versions go. Its own option for that
// prints a line to the standard output, which belongs to the program.
func keepVersions(p *posix.Posix, dir string) error {
	field := reflect.ValueOf(p).Elem().FieldByName("versioningDir")
	if !field.IsValid() || field.Kind() != reflect.String {
		return errors.New("this version of the S3 library keeps its versions' folder elsewhere")
	}
	*(*string)(field.Addr().UnsafePointer()) = dir
	return nil
}

// versionFolder is where an object's older versions are, relative to the store's
// folder as disk wants it.
func (s *store) versionFolder(bucket, key string) string {
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte(key)))
	beside := filepath.Base(versionsOf(s.disk.root))
	return path.Join("..", beside, bucket, sum[:2], sum[2:4], sum[4:6], sum)
}

// settleVersions makes what happened to an object's older versions durable; it
// costs nothing where the bucket has none.
func (s *store) settleVersions(err error, version *string, bucket, key string) error {
	if err != nil || version == nil || *version == "" {
		return err
	}
	return s.disk.removed(path.Join(s.versionFolder(bucket, key), "any"))
}

// vanished makes a deletion durable. Where versions are kept it may have left a
// delete marker, or an older version, under the object's own name.
func (s *store) vanished(bucket, key string, version *string) error {
	if version == nil || *version == "" {
		return s.disk.removed(path.Join(bucket, key))
	}
	if err := s.settleVersions(nil, version, bucket, key); err != nil {
		return err
	}
	return s.disk.written(path.Join(bucket, key))
}
