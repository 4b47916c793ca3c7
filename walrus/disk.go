package walrus

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// disk forces what was written below root to stable storage. Names are slash
// separated paths relative to root; the first element is the bucket.
//
// A new file is durable when its own inode and every folder entry on the way
// to it are. Folders above an object are usually old and durable already, and
// forcing a clean folder still costs a flush of the drive, so disk remembers
// the folders whose own entry it knows to be durable. A folder is remembered by
// inode and birth time, never by name alone: a folder removed and made again
// under the same name is another folder.
type disk struct {
	root string
	// fsync forces one open file or folder to the disk; tests watch it.
	fsync func(*os.File) error

	mu    sync.Mutex // guards known
	known map[folder]struct{}
}

// folder identifies one life of a folder.
type folder struct {
	device, inode uint64
	born          int64
	bornNano      uint32
}

// knownFolders bounds disk's memory; when it is full everything is forgotten,
// which costs some flushes and nothing else.
const knownFolders = 8192

func newDisk(root string) *disk {
	return &disk{root: root, fsync: (*os.File).Sync, known: map[folder]struct{}{}}
}

// order makes the bytes of a staged file reach the disk no later than the
// rename that will publish it. It needn't flush the drive's own cache: the
// journal commit that makes the rename durable does that first.
func (d *disk) order(f *os.File) error {
	const writeOut = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	err := unix.SyncFileRange(int(f.Fd()), 0, 0, writeOut)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.ESPIPE) || errors.Is(err, unix.EINVAL) {
		err = d.fsync(f)
	}
	if err != nil {
		return fmt.Errorf("write out %s: %w", f.Name(), err)
	}
	return nil
}

// written makes a file or folder at name durable: its bytes, its attributes
// and every entry on the way to it. A name that is gone was deleted or replaced
// by somebody else meanwhile, and they answer for the entry.
func (d *disk) written(name string) error {
	if _, err := d.force(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return d.entries(name)
}

// entries forces the folders that hold name, up to one that is known to be
// durable itself or to the store's root.
func (d *disk) entries(name string) error {
	var fresh []folder
	for name = filepath.Dir(filepath.Clean(name)); ; name = filepath.Dir(name) {
		id, err := d.force(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if name == "." || d.knows(id) {
			break
		}
		if id != (folder{}) {
			fresh = append(fresh, id)
		}
	}
	d.learn(fresh)
	return nil
}

// removed makes the removal of name durable. Folders above it may be gone too:
// the lowest that is left is what has changed.
func (d *disk) removed(name string) error {
	for name = filepath.Dir(filepath.Clean(name)); ; name = filepath.Dir(name) {
		_, err := d.force(name)
		if errors.Is(err, fs.ErrNotExist) && name != "." {
			continue
		}
		return err
	}
}

// force fsyncs one file or folder and says which one it was; the zero folder
// if the file system doesn't tell one life of a folder from the next.
func (d *disk) force(name string) (folder, error) {
	f, err := os.Open(filepath.Join(d.root, name))
	if err != nil {
		return folder{}, fmt.Errorf("open to sync: %w", err)
	}
	defer f.Close()
	if err := d.fsync(f); err != nil {
		return folder{}, fmt.Errorf("sync %s: %w", name, err)
	}
	var st unix.Statx_t
	err = unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_INO|unix.STATX_BTIME, &st)
	if err != nil || st.Mask&unix.STATX_BTIME == 0 {
		return folder{}, nil
	}
	return folder{
		device: unix.Mkdev(st.Dev_major, st.Dev_minor), inode: st.Ino,
		born: st.Btime.Sec, bornNano: st.Btime.Nsec,
	}, nil
}

func (d *disk) knows(id folder) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, ok := d.known[id]
	return ok
}

func (d *disk) learn(ids []folder) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.known)+len(ids) > knownFolders {
		clear(d.known)
	}
	for _, id := range ids {
		d.known[id] = struct{}{}
	}
}
