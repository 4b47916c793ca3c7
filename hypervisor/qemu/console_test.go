package qemu

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestConsoleIsBounded writes what a chatty guest would, while QEMU has the
// log open for appending.
func TestConsoleIsBounded(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, consoleName)
	log, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	line := bytes.Repeat([]byte("chatter\n"), 4096+1) // no multiple of a block
	for range 5 * consoleMost / len(line) {
		if _, err := log.Write(line); err != nil {
			t.Fatal(err)
		}
		if err := trimConsole(dir); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := log.WriteString("the end"); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if takes := info.Sys().(*syscall.Stat_t).Blocks * 512; takes > consoleMost+1<<20 {
		t.Errorf("the log takes %d bytes, want no more than about %d", takes, consoleMost)
	}
	text := consoleOf(t, dir)
	if len(text) < consoleKept || len(text) > consoleMost+1<<20 {
		t.Errorf("the console has %d bytes, want from %d to %d", len(text), consoleKept, consoleMost)
	}
	if bytes.IndexByte(text, 0) >= 0 || !bytes.HasSuffix(text, []byte("chatter\nthe end")) {
		t.Errorf("the console begins %q and ends %q", text[:8], text[len(text)-16:])
	}
}

func TestConsoleSeeks(t *testing.T) {
	dir := t.TempDir()
	if text := consoleOf(t, dir); len(text) != 0 {
		t.Errorf("no console says %q", text)
	}
	if err := os.WriteFile(filepath.Join(dir, consoleName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if text := consoleOf(t, dir); len(text) != 0 {
		t.Errorf("an empty console says %q", text)
	}
	if err := os.WriteFile(filepath.Join(dir, consoleName), []byte("0123456789"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := openConsole(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if n, err := r.Seek(-3, io.SeekEnd); n != 7 || err != nil {
		t.Errorf("Seek: %d, %v", n, err)
	}
	if text, err := io.ReadAll(r); string(text) != "789" || err != nil {
		t.Errorf("the last three bytes: %q, %v", text, err)
	}
}

func consoleOf(t *testing.T, dir string) []byte {
	t.Helper()
	r, err := openConsole(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
