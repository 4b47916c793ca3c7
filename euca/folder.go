package euca

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Folder is the absolute path of a cloud's folder:
//
//	lock      held by the process that runs the cloud, and says who that is
//	eucarc    how to use the cloud
//	keys/     certificates and their keys
//	state/    etcd
//	walrus/   buckets and objects
//	node/     machines, disks and cached images
//	catalog/  images built here
type Folder string

// DefaultFolder is below the user's data folder (XDG Base Directory).
func DefaultFolder() string {
	data := os.Getenv("XDG_DATA_HOME")
	if data == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			home = "/var/lib"
		}
		data = filepath.Join(home, ".local", "share")
	}
	return filepath.Join(data, "mallee")
}

// OpenFolder takes what --data says; nothing is the default folder.
func OpenFolder(path string) (Folder, error) {
	if path == "" {
		path = DefaultFolder()
	}
	path, err := filepath.Abs(path)
	return Folder(path), err
}

// Path of something in the folder.
func (f Folder) Path(parts ...string) string {
	return filepath.Join(append([]string{string(f)}, parts...)...)
}

// Holder is the process that runs the cloud of a folder.
type Holder struct {
	PID    int    `json:"pid"`
	Listen string `json:"listen"` // host:port
}

// Endpoint is the URL of the holder's cloud.
func (h Holder) Endpoint() string { return "http://" + h.Listen }

// ErrNotRunning tells that nobody runs the folder's cloud.
var ErrNotRunning = errors.New("no cloud is running")

// HeldError tells who runs the cloud already.
type HeldError struct {
	Folder Folder
	Holder Holder
}

func (e *HeldError) Error() string {
	return fmt.Sprintf("the cloud of %s is run by process %d, at %s", e.Folder, e.Holder.PID, e.Holder.Endpoint())
}

// Lock is the hold on a folder; it ends with the process at the latest.
type Lock struct{ file *os.File }

// Lock makes this process the one that runs the folder's cloud, or returns a
// *HeldError.
func (f Folder) Lock() (*Lock, error) {
	if err := os.MkdirAll(string(f), 0o700); err != nil {
		return nil, fmt.Errorf("make the cloud's folder: %w", err)
	}
	file, err := os.OpenFile(f.Path("lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the cloud's folder: %w", err)
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return &Lock{file}, nil
	}
	defer file.Close()
	if !errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("lock %s: %w", file.Name(), err)
	}
	var h Holder
	if err := json.NewDecoder(file).Decode(&h); err != nil || h.PID <= 1 { // never a group of processes, nor init
		return nil, fmt.Errorf("the folder %s is held by another process, which has not said yet who it is", f)
	}
	return nil, &HeldError{f, h}
}

// Tell others who holds the folder.
func (l *Lock) Tell(h Holder) error {
	data, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if err := l.file.Truncate(0); err != nil {
		return fmt.Errorf("say who holds the folder: %w", err)
	}
	if _, err := l.file.WriteAt(data, 0); err != nil {
		return fmt.Errorf("say who holds the folder: %w", err)
	}
	return nil
}

// Release the folder.
func (l *Lock) Release() error { return errors.Join(l.file.Truncate(0), l.file.Close()) }

// Holder finds who runs the folder's cloud; ErrNotRunning where nobody does.
func (f Folder) Holder() (Holder, error) {
	if _, err := os.Stat(f.Path("lock")); errors.Is(err, fs.ErrNotExist) {
		return Holder{}, fmt.Errorf("%w on %s: start it by `mallee up --data %s`", ErrNotRunning, f, f)
	}
	lock, err := f.Lock()
	var held *HeldError
	switch {
	case errors.As(err, &held):
		return held.Holder, nil
	case err != nil:
		return Holder{}, err
	}
	if err := lock.Release(); err != nil {
		return Holder{}, err
	}
	return Holder{}, fmt.Errorf("%w on %s: start it by `mallee up --data %s`", ErrNotRunning, f, f)
}

// Eucarc reads the variables that DIR/eucarc exports.
func (f Folder) Eucarc() (map[string]string, error) {
	file, err := os.Open(f.Path("eucarc"))
	if err != nil {
		return nil, fmt.Errorf("read how to use the cloud: %w", err)
	}
	defer file.Close()
	vars := map[string]string{}
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		name, value, ok := strings.Cut(strings.TrimPrefix(lines.Text(), "export "), "=")
		if ok {
			vars[name] = strings.ReplaceAll(strings.Trim(value, "'"), `'\''`, "'")
		}
	}
	return vars, lines.Err()
}
