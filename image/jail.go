package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// This is the inside of a sandbox: what runs in the process that becomes the program. It runs
// before main, and only where the process was started by the jailer's name, which needs a person who can
// name a program's arguments at will: that person could as well run the tool itself.
func init() {
	if len(os.Args) != 2 || os.Args[0] != jailerName {
		return
	}
	runtime.LockOSThread() // Landlock and no_new_privs hold for a thread, and for what it becomes
	err := carryOut(os.Args[1])
	fmt.Fprintln(os.Stderr, "sandbox:", err)
	os.Exit(126)
}

// The programs, and the libraries they need. What else a host has nobody sees.
var (
	systemDirs  = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu/store"}
	systemFiles = []string{"/etc/ld.so.cache"}
)

// Where the job's files are in a view.
const (
	viewIn  = "/.in"
	viewOut = "/.out"
)

// carryOut returns only where it fails.
func carryOut(spec string) error {
	var s sentence
	if err := json.Unmarshal([]byte(spec), &s); err != nil {
		return fmt.Errorf("reading the order: %w", err)
	}
	in, out, err := s.open()
	if err != nil {
		return err
	}
	names := [2]string{fdName(in), fdName(out)}
	if s.Private {
		if err := makeView(s.Tool, in, out); err != nil {
			return fmt.Errorf("making a private view of the host's files: %w", err)
		}
		names = [2]string{viewIn, viewOut}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("giving up privileges: %w", err)
	}
	if err := restrict(s.Tool, in, out); err != nil {
		return err
	}
	if s.Tool == "" {
		os.Exit(0) // it was asked whether all this works
	}
	argv := []string{s.Tool}
	for _, a := range s.Args {
		argv = append(argv, strings.NewReplacer(inName, names[0], outName, names[1]).Replace(a))
	}
	if err := s.limit(); err != nil {
		return err
	}
	return fmt.Errorf("starting %s: %w", s.Tool, syscall.Exec(s.Tool, argv, os.Environ()))
}

// open the job's files by their names, and make sure that they are those that were checked. In a
// view only what was opened before by name is there at all. -1 is no file. They stay open in the program where it
// has to find them by descriptor, and close when it starts elsewhere.
func (s sentence) open() (in, out int, err error) {
	if in, err = s.In.open(unix.O_RDONLY, s.Private); err != nil {
		return -1, -1, err
	}
	out, err = s.Out.open(unix.O_RDWR, s.Private)
	return in, out, err
}

func (e *exhibit) open(mode int, private bool) (int, error) {
	if e == nil {
		return -1, nil
	}
	mode |= unix.O_NONBLOCK | unix.O_NOCTTY
	if private {
		mode |= unix.O_CLOEXEC
	}
	fd, err := unix.Open(e.Path, mode, 0)
	if err != nil {
		return -1, fmt.Errorf("opening %s: %w", e.Path, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return -1, err
	}
	if uint64(st.Dev) != e.Device || st.Ino != e.Inode || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return -1, fmt.Errorf("%s is another file than was checked", e.Path)
	}
	return fd, nil
}

func fdName(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// limit what the process may take. From here on there is little memory for us too.
func (s sentence) limit() error {
	for resource, value := range map[int]int64{
		unix.RLIMIT_CORE: 0, unix.RLIMIT_AS: s.Memory, unix.RLIMIT_FSIZE: s.File, unix.RLIMIT_CPU: s.CPU,
	} {
		if value == 0 && resource != unix.RLIMIT_CORE {
			continue
		}
		l := unix.Rlimit{Cur: uint64(value), Max: uint64(value)}
		if resource == unix.RLIMIT_CPU {
			l.Max++ // first SIGXCPU, which says why, then SIGKILL
		}
		if err := unix.Setrlimit(resource, &l); err != nil && !errors.Is(err, unix.EPERM) { // EPERM: it is stricter already
			return fmt.Errorf("limiting resource %d to %d: %w", resource, value, err)
		}
	}
	return nil
}

// makeView replaces the root by an empty one with the system's folders and the job's two files.
func makeView(tool string, in, out int) error {
	const root = "/tmp" // any folder that is there everywhere; what is in it isn't touched, only covered
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("leaving the host's mounts: %w", err)
	}
	sources, err := openSources(tool)
	if err != nil {
		return err
	}
	if err := unix.Mount("mallee", root, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=64k,mode=0700"); err != nil {
		return fmt.Errorf("making an empty root: %w", err)
	}
	for _, s := range append(sources, source{name: viewIn, fd: in}, source{name: viewOut, fd: out, writable: true}) {
		if err := s.show(root); err != nil {
			return fmt.Errorf("showing %s: %w", s.name, err)
		}
	}
	if err := unix.Chdir(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("changing the root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("letting go of the host's root: %w", err)
	}
	return errors.Join(unix.Chdir("/"), freeze("/", 0))
}

// A source is what a view shows under the host's name of it.
type source struct {
	name     string
	fd       int    // -1 where there is none
	link     string // of a symbolic link, where it leads
	writable bool
}

func openSources(tool string) (all []source, err error) {
	for _, name := range append(append([]string{}, systemDirs...), append(systemFiles, toolDir(tool)...)...) {
		info, err := os.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		s := source{name: name, fd: -1}
		if info.Mode()&fs.ModeSymlink != 0 {
			s.link, err = os.Readlink(name)
		} else {
			s.fd, err = unix.Open(name, unix.O_PATH|unix.O_CLOEXEC, 0)
		}
		if err != nil {
			return nil, fmt.Errorf("opening %s: %w", name, err)
		}
		all = append(all, s)
	}
	return all, nil
}

// toolDir is the folder of a tool that isn't in the system's.
func toolDir(tool string) []string {
	for _, dir := range systemDirs {
		if strings.HasPrefix(tool, dir+"/") {
			return nil
		}
	}
	if tool == "" {
		return nil
	}
	return []string{filepath.Dir(tool)}
}

// show the source under root.
func (s source) show(root string) error {
	at := root + s.name
	if s.fd < 0 && s.link == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
		return err
	}
	if s.link != "" {
		return os.Symlink(s.link, at)
	}
	var st unix.Stat_t
	if err := unix.Fstat(s.fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		if err := os.Mkdir(at, 0o700); err != nil {
			return err
		}
	} else if err := os.WriteFile(at, nil, 0o600); err != nil {
		return err
	}
	if err := unix.Mount(fdName(s.fd), at, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	if s.writable {
		return nil
	}
	return freeze(at, unix.AT_RECURSIVE)
}

// freeze makes a mount read-only. Kernels before 5.12 can't do it without knowing the flags that the
// mount has; there the files' own permissions must do.
func freeze(at string, flags uint) error {
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}
	if err := unix.MountSetattr(unix.AT_FDCWD, at, flags, &attr); err != nil && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	return nil
}
