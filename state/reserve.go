package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// reserveBytes are kept on the disk for the state, beyond what it takes: etcd
// ends the program where it can't write, and what fills a disk is mostly
// something else. (Its log has its room from the start anyway.)
const reserveBytes = 32 << 20

// reserve takes them, without changing what anybody reads. Where the disk is
// full already, or its file system can't, the state lives with what there is.
func reserve(dir string) error {
	f, err := os.OpenFile(filepath.Join(etcdDir(dir), "member", "snap", "db"), os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("state: reserve room: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("state: reserve room: %w", err)
	}
	err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, info.Size()+reserveBytes)
	if err != nil && !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("state: reserve room in %s: %w", f.Name(), err)
	}
	return nil
}
