// Package durable writes small files that must survive the loss of power: the
// whole old file or the whole new one is there, never a part, and what was
// written is still there after.
package durable

import (
	"errors"
	"os"
	"path/filepath"
)

// WriteFile makes data the content of the file at path, mode 0600. It is
// durable when WriteFile returns nil; after an error the file is the old one or
// the new one. One writer at a time for each path: PATH.new is where the new
// one comes to be.
func WriteFile(path string, data []byte) error {
	temp := path + ".new"
	if err := write(temp, data); err != nil {
		os.Remove(temp)
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		os.Remove(temp)
		return err
	}
	return SyncDir(filepath.Dir(path))
}

func write(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// SyncDir makes durable which names there are in the folder.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
