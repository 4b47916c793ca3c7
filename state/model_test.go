package state

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// model is what a store should hold, as plain as can be.
type model map[string]widget

func (m model) clone() model { return maps.Clone(m) }

func (m model) sorted(keep func(widget) bool) []widget {
	var out []widget
	for _, w := range m {
		if keep(w) {
			out = append(out, w)
		}
	}
	slices.SortFunc(out, func(a, b widget) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

func drawWidget(t *rapid.T) widget {
	tags := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"red", "big", "re", ""}), 0, 3, rapid.ID[string])
	return widget{
		ID:    drawID(t),
		Owner: rapid.SampledFrom([]string{"", "x", "y", "xy"}).Draw(t, "owner"),
		Size:  rapid.IntRange(0, 3).Draw(t, "size"),
		Tags:  slices.Clip(tags.Draw(t, "tags")),
	}
}

func drawID(t *rapid.T) string {
	return rapid.SampledFrom([]string{"a", "aa", "b", "b/c", "c", "ä"}).Draw(t, "id")
}

// agree compares all that can be read with the model.
func agree(t *rapid.T, what string, r Reader, m model) {
	check := func(name string, got, want []widget) {
		if len(got)+len(want) > 0 && !reflect.DeepEqual(got, want) {
			t.Fatalf("%s, %s:\ngot  %+v\nwant %+v", what, name, got, want)
		}
	}
	values := func(seq func(func(*widget, int64) bool)) (out []widget) {
		seq(func(w *widget, _ int64) bool {
			v := *w
			if len(v.Tags) == 0 {
				v.Tags = []string{} // JSON doesn't tell them apart
			}
			out = append(out, v)
			return true
		})
		return out
	}
	check("all", values(widgets.All(r)), m.sorted(func(widget) bool { return true }))
	for _, x := range []string{"x", "y", "xy"} {
		check("by owner "+x, values(widgetsByOwner.By(r, x)), m.sorted(func(w widget) bool { return w.Owner == x }))
	}
	for _, x := range []string{"red", "big", "re"} {
		check("by tag "+x, values(widgetsByTag.By(r, x)), m.sorted(func(w widget) bool { return slices.Contains(w.Tags, x) }))
	}
	for _, id := range []string{"a", "aa", "b", "b/c", "c", "ä", "none"} {
		got, rev, ok := widgets.Get(r, id)
		want, there := m[id]
		if ok != there || ok && (got.Size != want.Size || rev > r.Revision()) {
			t.Fatalf("%s, get %q: got %+v at %d, %v; want %+v, %v", what, id, got, rev, ok, want, there)
		}
	}
}

var errGiveUp = errors.New("give up")

// act does random work in a Tx and in a copy of the model.
func act(t *rapid.T, tx *Tx, m model) model {
	m = m.clone()
	for range rapid.IntRange(1, 5).Draw(t, "steps") {
		switch rapid.IntRange(0, 3).Draw(t, "step") {
		case 0, 1:
			w := drawWidget(t)
			widgets.Put(tx, w)
			m[w.ID] = w
		case 2:
			id := drawID(t)
			widgets.Delete(tx, id)
			delete(m, id)
		case 3:
			id := drawID(t)
			w, there := m[id]
			if widgets.Edit(tx, id, func(w *widget) { w.Size += 10 }) != there {
				t.Fatalf("edit %q: there is %v", id, there)
			}
			if there {
				w.Size += 10
				m[id] = w
			}
		}
		agree(t, "in the tx", tx, m)
	}
	return m
}

func TestStoreBehavesAsAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mem := NewMemory()
		ctx := t.Context()
		s, err := OpenMemory(ctx, mem, quiet())
		if err != nil {
			t.Fatal(err)
		}
		m := model{}
		t.Repeat(map[string]func(*rapid.T){
			"update": func(t *rapid.T) {
				var next model
				if err := s.Update(ctx, func(tx *Tx) error { next = act(t, tx, m); return nil }); err != nil {
					t.Fatal(err)
				}
				m = next
			},
			"give up": func(t *rapid.T) {
				err := s.Update(ctx, func(tx *Tx) error { act(t, tx, m); return errGiveUp })
				if !errors.Is(err, errGiveUp) {
					t.Fatal(err)
				}
			},
			"crash": func(t *rapid.T) {
				mem.Crash()
				if s, err = OpenMemory(ctx, mem, quiet()); err != nil {
					t.Fatal(err)
				}
			},
			"lose the watch": func(*rapid.T) { mem.disconnect(errors.New("lost")) },
			"compact":        func(*rapid.T) { mem.compact(mem.rev) },
			"": func(t *rapid.T) {
				agree(t, "in a view", s.View(), m)
				if err := mirrorsBackend(s); err != nil {
					t.Fatal(err)
				}
			},
		})
	})
}

// mirrorsBackend compares the mirror, byte by byte and with revisions, to what
// the backend holds.
func mirrorsBackend(s *Store) error {
	pairs, _, err := s.backend.load(context.Background())
	if err != nil {
		return err
	}
	v := s.View()
	for _, p := range pairs {
		name, key, _ := splitPath(p.key)
		t := tables[name]
		if t == nil {
			continue
		}
		rec := v.find(t, key)
		if rec == nil || rec.rev != p.rev {
			return fmt.Errorf("%s is of revision %d, the mirror has %+v", p.key, p.rev, rec)
		}
		data, err := t.encode(rec.value)
		if err != nil || !bytes.Equal(data, p.value) {
			return fmt.Errorf("%s is %s, the mirror has %s (%v)", p.key, p.value, data, err)
		}
	}
	n := 0
	for _, t := range tables {
		for range v.scan(t, idIndex) {
			n++
		}
	}
	if n != len(pairs) {
		return fmt.Errorf("the mirror has %d records, the backend %d", n, len(pairs))
	}
	return nil
}
