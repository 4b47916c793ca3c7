package image

import (
	"bytes"
	"fmt"
	"io/fs"
	"os/exec"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// readCPIO is the format read strictly, for what writeCPIO has written.
func readCPIO(b []byte) (tree, []string, error) {
	t, order := tree{}, []string(nil)
	for off := 0; ; {
		if len(b) < off+cpioHeader || string(b[off:off+6]) != cpioMagic {
			return nil, nil, fmt.Errorf("no header at %d", off)
		}
		var field [13]int
		for i := range field {
			v, err := strconv.ParseUint(string(b[off+6+8*i:off+14+8*i]), 16, 32)
			if err != nil {
				return nil, nil, err
			}
			field[i] = int(v)
		}
		mode, size, nameSize := field[1], field[6], field[11]
		nameEnd := off + cpioHeader + nameSize
		start := (nameEnd + 3) &^ 3
		if len(b) < start+size || b[nameEnd-1] != 0 {
			return nil, nil, fmt.Errorf("entry at %d is cut short", off)
		}
		name, data := string(b[off+cpioHeader:nameEnd-1]), b[start:start+size]
		if name == cpioTrailer {
			return t, order, nil
		}
		if field[2] != 0 || field[3] != 0 || int64(field[5]) != epoch.Unix() {
			return nil, nil, fmt.Errorf("%s is owned by %d:%d, of time %d", name, field[2], field[3], field[5])
		}
		n := &node{mode: fs.FileMode(mode & 0o777), data: data}
		switch mode &^ 0o777 {
		case 0o040000:
			n.mode |= fs.ModeDir
		case 0o120000:
			n.mode, n.link, n.data = n.mode|fs.ModeSymlink, string(data), nil
		case 0o020000:
			n.mode, n.major, n.minor = n.mode|fs.ModeDevice|fs.ModeCharDevice, uint32(field[9]), uint32(field[10])
		}
		t[name], order = n, append(order, name)
		off = (start + size + 3) &^ 3
	}
}

func sameTree(t testing.TB, got, want tree) {
	t.Helper()
	if !slices.Equal(got.names(), want.names()) {
		t.Fatalf("names %q, want %q", got.names(), want.names())
	}
	for name, w := range want {
		g := got[name]
		if g.mode != w.mode || !bytes.Equal(g.data, w.data) || g.link != w.link || g.major != w.major || g.minor != w.minor {
			t.Errorf("%s: %+v, want %+v", name, g, w)
		}
	}
}

func exampleTree() tree {
	t := tree{}
	t.file("bin/sh", 0o755, []byte("shell"))
	t.symlink("bin/ash", "sh")
	t.console("dev/console")
	t.dir("tmp", 0o700)
	t.file("empty", 0o600, nil)
	return t
}

func TestCPIO(t *testing.T) {
	var b bytes.Buffer
	want := exampleTree()
	if err := writeCPIO(&b, want); err != nil {
		t.Fatal(err)
	}
	got, order, err := readCPIO(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	sameTree(t, got, want)
	for i, name := range order {
		if up := path.Dir(name); up != "." && !slices.Contains(order[:i], up) {
			t.Errorf("%s comes before its folder", name)
		}
	}
}

// GNU cpio and BusyBox's agree with our reading, where one of them is there.
func TestCPIOIsReadByOthers(t *testing.T) {
	tool, args := "cpio", []string{"-t", "--quiet"}
	if _, err := exec.LookPath(tool); err != nil {
		tool, args = "busybox", []string{"cpio", "-t"}
	}
	if _, err := exec.LookPath(tool); err != nil {
		t.Skip("no cpio: apt-get install cpio")
	}
	var b bytes.Buffer
	if err := writeCPIO(&b, exampleTree()); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(tool, args...)
	cmd.Stdin = &b
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Fields(string(out)); !slices.Equal(got, exampleTree().names()) {
		t.Errorf("%s lists %q, want %q", tool, got, exampleTree().names())
	}
}

func FuzzCPIO(f *testing.F) {
	f.Add("bin/sh", []byte("shell"), "etc/link", "../bin/sh", uint16(0o755))
	f.Add("a", []byte{}, "a/b", "", uint16(0))
	f.Fuzz(func(t *testing.T, name string, data []byte, link, target string, perm uint16) {
		want := tree{}
		want.file(name, fs.FileMode(perm).Perm(), data)
		want.symlink(link, target)
		for n := range want {
			if n == cpioTrailer || strings.Contains(n, "\x00") {
				t.Skip("no name for a file")
			}
		}
		var b bytes.Buffer
		if err := writeCPIO(&b, want); err != nil {
			t.Fatal(err)
		}
		got, _, err := readCPIO(b.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		sameTree(t, got, want)
	})
}
