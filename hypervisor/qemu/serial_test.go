package qemu

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// echoes gives back what is typed at the serial line.
var echoes = ending{
	0xba, 0xfd, 0x03, // again: mov dx, 0x3fd
	0xec,       // in al, dx
	0xa8, 0x01, // test al, 1           anything typed?
	0x74, 0xf8, // jz again
	0xba, 0xf8, 0x03, // mov dx, 0x3f8
	0xec,       // in al, dx
	0xee,       // out dx, al
	0xeb, 0xf1, // jmp again
}

// watcher is somebody at a console.
type watcher struct {
	keys  chan []byte
	ended chan error

	mu   sync.Mutex
	seen bytes.Buffer  // guarded by mu
	news chan struct{} // has room for one
}

func (w *watcher) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case w.news <- struct{}{}:
	default:
	}
	return w.seen.Write(p)
}

// sees waits until the console shows the text.
func (w *watcher) sees(t *testing.T, text string) {
	t.Helper()
	late := time.After(guestPatience)
	for {
		w.mu.Lock()
		shown := w.seen.String()
		w.mu.Unlock()
		if strings.Contains(shown, text) {
			return
		}
		select {
		case <-w.news:
		case <-late:
			t.Fatalf("the console shows %q, want %q", shown, text)
		}
	}
}

func watch(t *testing.T, dir string) *watcher {
	t.Helper()
	s, err := OpenSerial(dir)
	if err != nil {
		t.Fatal(err)
	}
	w := &watcher{keys: make(chan []byte), ended: make(chan error, 1), news: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	var both sync.WaitGroup
	both.Go(func() { w.ended <- s.Follow(ctx, w, 1<<20) })
	both.Go(func() {
		if err := s.Type(ctx, w.keys); err != nil && ctx.Err() == nil {
			t.Errorf("Type: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); both.Wait() })
	return w
}

// TestSeveralAtTheConsole: two watchers see all that is said, what was said before
// included, and both can type; no program of ours runs. It ends with the machine.
func TestSeveralAtTheConsole(t *testing.T) {
	needsQEMU(t)
	h := openTest(t)
	m := sectorMachine(t, printSector("hello\n", echoes))
	killLater(t, m.Dir)
	if err := h.Start(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	one, two := watch(t, m.Dir), watch(t, m.Dir)
	one.sees(t, "hello\n")
	two.sees(t, "hello\n")
	one.keys <- []byte("from the first.")
	two.keys <- []byte("from the second.")
	for _, w := range []*watcher{one, two} {
		w.sees(t, "from the first.")
		w.sees(t, "from the second.")
	}
	next := openTest(t)
	defer next.Close()
	if err := next.Kill(t.Context(), m.Dir); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(m.Dir); err != nil {
		t.Fatal(err)
	}
	for _, w := range []*watcher{one, two} {
		if err := <-w.ended; err != nil {
			t.Errorf("after the machine's end: %v", err)
		}
	}
	if _, err := OpenSerial(m.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the console of nobody: %v", err)
	}
}
