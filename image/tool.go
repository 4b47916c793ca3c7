package image

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// tools are programs that run from a folder of unpacked packages instead of the host's system:
// always at the same version, and with nothing to install.
type tools struct {
	dir string // a tree made by addProgram for each of them
}

// run starts a tool by the dynamic loader and libraries of its own packages, with a fixed time
// and without the host's configuration. It returns what the tool wrote to standard error.
func (t tools) run(ctx context.Context, stdin io.Reader, name string, args ...string) (string, error) {
	loader := filepath.Join(t.dir, "lib64/ld-linux-x86-64.so.2")
	front := []string{"--inhibit-cache", "--library-path", filepath.Join(t.dir, libraryDirs[0]), filepath.Join(t.dir, name)}
	cmd := exec.CommandContext(ctx, loader, append(front, args...)...)
	var msg bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, io.Discard, &msg
	now := fmt.Sprint(epoch.Unix())
	cmd.Env = []string{"LC_ALL=C", "TZ=UTC", "PATH=/usr/bin:/bin",
		"SOURCE_DATE_EPOCH=" + now,   // what e2fsprogs 1.47.1 and later honour
		"E2FSPROGS_FAKE_TIME=" + now, // what 1.47.0 does
		"MKE2FS_CONFIG=" + filepath.Join(t.dir, mkfsConfigName)}
	if err := cmd.Run(); err != nil {
		cmd.Path = name
		return "", commandError(cmd, err, msg.String())
	}
	return msg.String(), nil
}

// hostTool finds a program of the host; administration programs aren't on everybody's PATH.
func hostTool(name, pkg string) (string, error) {
	if file, err := exec.LookPath(name); err == nil {
		return file, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		file := filepath.Join(dir, name)
		if info, err := os.Stat(file); err == nil && info.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", &MissingToolError{Tool: name, Package: pkg}
}
