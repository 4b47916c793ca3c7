package euca

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Folder is the absolute path of a cloud's folder:
//
//	lock        held by the process that runs the cloud, and says who that is
//	eucarc      how to use the cloud
//	known_hosts/ the host keys of instances that mallee ssh went to
//	accel.json  how guests have been proven to run
//	keys/       certificates and their keys
//	state/      etcd
//	walrus/     buckets and objects; beside it walrus-versions/ and walrus-documents/,
//	            their older versions and settings
//	snapshots/  what snapshots hold
//	node/       machines, disks and cached images
//	catalog/    images built and downloaded here
//	catalogs/   the catalogues that the administrator added
type Folder string

// contents of a folder, in the order in which it is taken away: who is
// interrupted in that finds a folder that can be destroyed again.
var contents = []string{"catalog", "catalogs", "node", "walrus", "walrus-versions", "walrus-documents", "snapshots", "state", "accel.json", "eucarc", "known_hosts", "keys", "lock"}

// Destroy takes away all that is the cloud's; kept is true where the folder
// itself has to stay, because it holds something else too.
func (f Folder) Destroy() (kept bool, err error) {
	for _, name := range contents {
		err := errors.Join(os.RemoveAll(f.Path(name+".new")), os.RemoveAll(f.Path(name)))
		if err != nil {
			return true, fmt.Errorf("destroy the cloud: %w", err)
		}
	}
	err = os.Remove(string(f))
	if errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EEXIST) {
		return true, nil
	}
	return false, err
}

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
	if strings.ContainsAny(path, "\r\n") {
		return "", fmt.Errorf("--data %q: a folder's name can't have several lines", path)
	}
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

// lockPatience is how long Lock waits for a holder who hasn't said who it is:
// one that starts, or that only looks.
const lockPatience = time.Second

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
	if err := f.take(file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &Lock{file}, nil
}

// take the lock, and what an earlier holder has said of itself out of it.
func (f Folder) take(file *os.File) error {
	for end := time.Now().Add(lockPatience); ; time.Sleep(lockPatience / 50) {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			err = file.Truncate(0)
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		if h, ok := told(file); ok {
			return &HeldError{f, h}
		}
		if time.Now().After(end) {
			return fmt.Errorf("the folder %s is held by another process, which has not said yet who it is", f)
		}
	}
}

// told is what the lock's holder has said of itself. No process is believed
// that names a group of processes, or init.
func told(file *os.File) (h Holder, ok bool) {
	data := make([]byte, 4096)
	n, _ := file.ReadAt(data, 0)
	err := json.Unmarshal(data[:n], &h)
	return h, err == nil && h.PID > 1
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
	data, err := os.ReadFile(f.Path("eucarc"))
	if err != nil {
		return nil, fmt.Errorf("read how to use the cloud: %w", err)
	}
	vars := map[string]string{}
	for line := range strings.Lines(string(data)) {
		name, value, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "export "), "=")
		if ok {
			vars[name] = unquote(value)
		}
	}
	return vars, nil
}

// unquote a word that was quoted for a POSIX shell: what lies between single
// quotes stands for itself, and a quote is a backslash and itself outside.
func unquote(word string) string {
	inside, ok := strings.CutPrefix(word, "'")
	if !ok {
		return word
	}
	return strings.ReplaceAll(strings.TrimSuffix(inside, "'"), `'\''`, "'")
}
