package image

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Landlock, by the kernel's Documentation/userspace-api/landlock.rst: a thread names the kinds of
// access that it gives up, and the files for which it doesn't. It needs no privilege.

// landlockVersion is the version of the kernel's Landlock; 0 without.
func landlockVersion() int {
	v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(v)
}

// landlockFiles are the kinds of access to files that a version knows.
func landlockFiles(version int) uint64 {
	all := uint64(unix.LANDLOCK_ACCESS_FS_MAKE_SYM<<1 - 1) // version 1: from execute up to make_sym
	if version >= 2 {
		all |= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if version >= 3 {
		all |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if version >= 5 {
		all |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	return all
}

// restrict this thread to the system's folders and the job's two files; -1 is no file. It does nothing on a kernel without Landlock.
func restrict(tool string, in, out int) error {
	version := landlockVersion()
	if version == 0 {
		return nil
	}
	files := landlockFiles(version)
	rules := unix.LandlockRulesetAttr{Handled_access_fs: files}
	size := unsafe.Sizeof(rules.Handled_access_fs)
	if version >= 4 {
		rules.Handled_access_net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
		size += unsafe.Sizeof(rules.Handled_access_net)
	}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&rules)), size, 0)
	if errno != 0 {
		return fmt.Errorf("making Landlock rules: %w", errno)
	}
	defer unix.Close(int(fd))
	if err := allowAll(int(fd), tool, in, out, files); err != nil {
		return err
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); errno != 0 {
		return fmt.Errorf("entering the Landlock rules: %w", errno)
	}
	return nil
}

func allowAll(rules int, tool string, in, out int, files uint64) error {
	const (
		read  = unix.LANDLOCK_ACCESS_FS_READ_FILE
		write = read | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE
		use   = read | unix.LANDLOCK_ACCESS_FS_READ_DIR | unix.LANDLOCK_ACCESS_FS_EXECUTE
	)
	for _, dir := range append(append([]string{}, systemDirs...), toolDir(tool)...) {
		if err := allowName(rules, dir, use&files); err != nil {
			return err
		}
	}
	for _, name := range systemFiles {
		if err := allowName(rules, name, read&files); err != nil {
			return err
		}
	}
	return errors.Join(allow(rules, in, read&files), allow(rules, out, write&files))
}

func allowName(rules int, name string, access uint64) error {
	fd, err := unix.Open(name, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("opening %s: %w", name, err)
	}
	defer unix.Close(fd)
	return allow(rules, fd, access)
}

func allow(rules, fd int, access uint64) error {
	if fd < 0 {
		return nil
	}
	rule := unix.LandlockPathBeneathAttr{Allowed_access: access, Parent_fd: int32(fd)}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(rules), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("adding a Landlock rule: %w", errno)
	}
	return nil
}
