package state

import (
	"context"
	"log/slog"
	"testing"
	"time"
)

// widget is a record of the tests' own.
type widget struct {
	ID    string            `json:"id"`
	Owner string            `json:"owner,omitempty"`
	Size  int               `json:"size,omitempty"`
	Tags  []string          `json:"tags,omitempty"`
	Notes map[string]string `json:"notes,omitempty"`
}

var (
	widgets        = NewTable("test-widget", func(w *widget) string { return w.ID })
	widgetsByOwner = NewIndex(widgets, "owner", func(w *widget) string { return w.Owner })
	widgetsByTag   = NewListIndex(widgets, "tag", func(w *widget) []string { return w.Tags })
)

// within bounds a test that hangs.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func openDir(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(within(t), Options{Dir: dir, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeStore(t, s) })
	return s
}

func openMemory(t testing.TB, m *Memory) *Store {
	t.Helper()
	s, err := OpenMemory(within(t), m, quiet())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeStore(t, s) })
	return s
}

func closeStore(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func update(t testing.TB, s *Store, fn func(*Tx)) {
	t.Helper()
	if err := s.Update(within(t), func(tx *Tx) error { fn(tx); return nil }); err != nil {
		t.Fatal(err)
	}
}

// onBoth runs a test on the embedded etcd and on a Memory.
func onBoth(t *testing.T, test func(t *testing.T, s *Store)) {
	t.Run("etcd", func(t *testing.T) { test(t, openDir(t, t.TempDir())) })
	t.Run("memory", func(t *testing.T) { test(t, openMemory(t, NewMemory())) })
}

func TestUpdateIsThereWhenItReturns(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Store) {
		before := s.View()
		update(t, s, func(tx *Tx) { widgets.Put(tx, widget{ID: "a", Size: 1}) })
		got, rev, ok := widgets.Get(s.View(), "a")
		if !ok || got.Size != 1 || rev != s.View().Revision() {
			t.Fatalf("got %v at %d, ok %v; the view is at %d", got, rev, ok, s.View().Revision())
		}
		if _, _, ok := widgets.Get(before, "a"); ok {
			t.Fatal("a view from before the commit shows it")
		}
	})
}
