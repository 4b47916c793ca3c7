package state

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// gadget went through two changes of shape: name was once title, and colour
// was added with "grey" for all there were.
type gadget struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Colour string `json:"colour"`
}

var gadgets = NewTable("test-gadget", func(g *gadget) string { return g.ID }, renameTitle, addColour)

func migrate(data json.RawMessage, change func(map[string]any)) (json.RawMessage, error) {
	var m map[string]any
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, err
	}
	change(m)
	return json.Marshal(m)
}

func renameTitle(data json.RawMessage) (json.RawMessage, error) {
	return migrate(data, func(m map[string]any) { m["name"] = m["title"]; delete(m, "title") })
}

func addColour(data json.RawMessage) (json.RawMessage, error) {
	return migrate(data, func(m map[string]any) { m["colour"] = "grey" })
}

func TestOpenRecord(t *testing.T) {
	for name, c := range map[string]struct {
		stored string
		want   gadget
		err    string
	}{
		"present":        {`{"v":3,"d":{"id":"a","name":"n","colour":"red"}}`, gadget{"a", "n", "red"}, ""},
		"second":         {`{"v":2,"d":{"id":"a","name":"n"}}`, gadget{"a", "n", "grey"}, ""},
		"first":          {`{"v":1,"d":{"id":"a","title":"n"}}`, gadget{"a", "n", "grey"}, ""},
		"unknown fields": {`{"v":3,"d":{"id":"a","colour":"red","later":{"x":[1]}}}`, gadget{"a", "", "red"}, ""},
		"other form":     {"{ \"d\": {\"id\":\"a\",\n\"colour\":\"red\"}, \"v\": 3 }", gadget{"a", "", "red"}, ""},
		"d in the data":  {`{"v":3,"d":{"id":",\"d\":","colour":"}"}}`, gadget{`,"d":`, "", "}"}, ""},
		"later version":  {`{"v":4,"d":{"id":"a"}}`, gadget{}, "it has version 4, this mallee knows 1 to 3"},
		"no version":     {`{"d":{"id":"a"}}`, gadget{}, "version 0"},
		"negative":       {`{"v":-1,"d":{"id":"a"}}`, gadget{}, "version -1"},
		"no data":        {`{"v":3}`, gadget{}, "unexpected end"},
		"empty":          {``, gadget{}, "read the envelope"},
		"cut short":      {`{"v":3,"d":{"id":"a"`, gadget{}, "read the envelope"},
		"wrong type":     {`{"v":3,"d":{"id":7}}`, gadget{}, "cannot unmarshal number"},
		"broken before":  {`{"v":1,"d":[]}`, gadget{}, "cannot unmarshal array"},
	} {
		t.Run(name, func(t *testing.T) {
			rec, err := gadgets.info.open("key", []byte(c.stored), 7)
			if c.err != "" {
				if !errors.Is(err, errRecord) || !strings.Contains(err.Error(), c.err) || !strings.Contains(err.Error(), `test-gadget "key"`) {
					t.Fatalf("got %v, want an error with %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := *rec.value.(*gadget); got != c.want || rec.key != "key" || rec.rev != 7 {
				t.Fatalf("got %+v in %+v, want %+v", got, rec, c.want)
			}
		})
	}
}

// A record of a former shape is stored in the present one when it is written
// again, even with the same value.
func TestFormerShapeIsWrittenAnew(t *testing.T) {
	m := NewMemory()
	mustCommit(t, m.connect(), txn{writes: []write{{gadgets.info.path("a"), []byte(`{"v":1,"d":{"id":"a","title":"n"}}`)}}})
	s := openMemory(t, m)
	update(t, s, func(tx *Tx) { gadgets.Edit(tx, "a", func(*gadget) {}) })
	if got, want := string(m.records[gadgets.info.path("a")].value), `{"v":3,"d":{"id":"a","name":"n","colour":"grey"}}`; got != want {
		t.Fatalf("stored %s, want %s", got, want)
	}
}

func FuzzOpenRecord(f *testing.F) {
	f.Add([]byte(`{"v":1,"d":{"id":"a","size":1}}`))
	f.Add([]byte(`{"d":{"tags":["x"]},"v":1}`))
	f.Add([]byte(`{"v":1,"d":}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		rec, err := widgets.info.open("key", data, 1)
		if err != nil {
			if !errors.Is(err, errRecord) {
				t.Fatalf("an error of another kind: %v", err)
			}
			return
		}
		once, err := widgets.info.encode(rec.value)
		if err != nil {
			t.Fatalf("read %q and can't write it: %v", data, err)
		}
		again, err := widgets.info.open("key", once, 1)
		if err != nil {
			t.Fatal(err)
		}
		twice, err := widgets.info.encode(again.value)
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%s is then %s (%v)", once, twice, err)
		}
	})
}

func TestTableNames(t *testing.T) {
	for _, name := range []string{"", "a/b", "a\x00", "test-widget"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("took %q", name)
				}
			}()
			NewTable(name, func(w *widget) string { return w.ID })
		}()
	}
}
