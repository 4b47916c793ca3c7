package image

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// publisher serves a catalogue and its signature, which tests change between requests.
type publisher struct {
	mu    sync.Mutex
	files map[string][]byte
}

func (p *publisher) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	data, ok := p.files[r.URL.Path]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Write(data)
}

func (p *publisher) publish(t *testing.T, s signer, x Index) {
	t.Helper()
	data := encode(t, x)
	p.put(data, s.sign(data, "an edition"))
}

func (p *publisher) put(index, signature []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.files = map[string][]byte{"/index.json": index, "/index.json.minisig": signature}
	if signature == nil {
		delete(p.files, "/index.json.minisig")
	}
}

var testDay = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)

func newCatalogs(t *testing.T) (*Catalogs, *publisher, string) {
	p := &publisher{}
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	return &Catalogs{Dir: filepath.Join(t.TempDir(), "catalogs"), HTTP: server.Client(), Now: func() time.Time { return testDay }}, p, server.URL + "/index.json"
}

func TestCatalogsAddUpdateRemove(t *testing.T) {
	c, p, address := newCatalogs(t)
	s := newSigner(t, 1)
	p.publish(t, s, indexOf("acme", 3, entryOf("one")))
	source, err := c.Add(t.Context(), address, s.public)
	if err != nil || source.Index.Serial != 3 || source.Comment != "an edition" {
		t.Fatalf("added %+v, %v", source, err)
	}
	if _, err := c.Add(t.Context(), address, s.public); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("added twice: %v", err)
	}
	if info, err := os.Stat(c.file("acme")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("kept as %v, %v", info, err)
	}
	p.publish(t, s, indexOf("acme", 4, entryOf("one"), entryOf("two")))
	if l, err := c.Find("two"); err == nil {
		t.Errorf("found before the update: %+v", l)
	}
	if _, err := c.Update(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	if l, err := c.Find("two"); err != nil || l.Catalog != "acme" {
		t.Errorf("found %+v, %v", l, err)
	}
	if _, err := c.Update(t.Context(), "acme"); err != nil {
		t.Errorf("updating to the same edition: %v", err)
	}
	all, err := c.List()
	if err != nil || len(all) != len(Shipped().Entries)+2 || all[0].Catalog != "mallee" {
		t.Errorf("listed %d, %v", len(all), err)
	}
	if err := c.Remove(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"acme", "mallee", "../acme", ""} {
		if err := c.Remove(t.Context(), name); err == nil {
			t.Errorf("removed %q", name)
		}
	}
	if _, err := c.Find("one"); err == nil || !strings.Contains(err.Error(), "tiny, tiny-pv") {
		t.Errorf("found what was removed: %v", err)
	}
}

// Whatever is offered instead of the next edition is refused, and the one at hand stays.
func TestCatalogsRefuse(t *testing.T) {
	s, thief := newSigner(t, 1), newSigner(t, 2)
	thief.public.id = s.public.id
	past := indexOf("acme", 9, entryOf("one"))
	past.Expires = testDay.Add(-time.Second)
	endless := indexOf("acme", 9, entryOf("one"))
	endless.Expires = time.Time{}
	good := encode(t, indexOf("acme", 9, entryOf("one")))
	for name, c := range map[string]struct {
		put    func(p *publisher)
		update error // what errors.Is of updating
		add    error // and of adding; nil where both fail somehow
	}{
		"unsigned":           {func(p *publisher) { p.put(good, nil) }, nil, nil},
		"a stranger's":       {func(p *publisher) { p.put(good, newSigner(t, 3).sign(good, "")) }, ErrSignature, ErrSignature},
		"forged":             {func(p *publisher) { p.put(good, thief.sign(good, "")) }, ErrSignature, ErrSignature},
		"changed":            {func(p *publisher) { p.put(append(good, ' '), s.sign(good, "")) }, ErrSignature, ErrSignature},
		"no signature":       {func(p *publisher) { p.put(good, []byte("<html>")) }, nil, nil},
		"an ugly comment":    {func(p *publisher) { p.put(good, s.sign(good, "\x1b[2J")) }, nil, nil},
		"no index":           {func(p *publisher) { p.put([]byte("{}"), s.sign([]byte("{}"), "")) }, nil, nil},
		"expired":            {func(p *publisher) { p.publish(t, s, past) }, ErrExpired, ErrExpired},
		"never expiring":     {func(p *publisher) { p.publish(t, s, endless) }, nil, nil},
		"the program's name": {func(p *publisher) { p.publish(t, s, indexOf("mallee", 9, entryOf("one"))) }, nil, nil},
		"gone":               {func(p *publisher) { p.files = nil }, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			cats, p, address := newCatalogs(t)
			c.put(p)
			if _, err := cats.Add(t.Context(), address, s.public); err == nil || c.add != nil && !errors.Is(err, c.add) {
				t.Errorf("added: %v, want %v", err, c.add)
			}
			if names, err := cats.Names(); err != nil || len(names) > 0 {
				t.Errorf("a refused catalogue left %q, %v", names, err)
			}
			p.publish(t, s, indexOf("acme", 5, entryOf("old")))
			if _, err := cats.Add(t.Context(), address, s.public); err != nil {
				t.Fatal(err)
			}
			c.put(p)
			if _, err := cats.Update(t.Context(), "acme"); err == nil || c.update != nil && !errors.Is(err, c.update) {
				t.Errorf("updated: %v, want %v", err, c.update)
			}
			if _, err := cats.Find("old"); err != nil {
				t.Errorf("a refused update changed the catalogue: %v", err)
			}
		})
	}
}

func TestCatalogsDontGoBack(t *testing.T) {
	c, p, address := newCatalogs(t)
	s := newSigner(t, 1)
	p.publish(t, s, indexOf("acme", 5, entryOf("new")))
	if _, err := c.Add(t.Context(), address, s.public); err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]Index{
		"older":                    indexOf("acme", 4, entryOf("old")),
		"another of the same":      indexOf("acme", 5, entryOf("old")),
		"under another name":       indexOf("emca", 6, entryOf("old")),
		"older under another name": indexOf("emca", 1, entryOf("old")),
	} {
		p.publish(t, s, x)
		_, err := c.Update(t.Context(), "acme")
		if err == nil || x.Name == "acme" && !errors.Is(err, ErrRollback) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := c.Find("new"); err != nil {
		t.Error(err)
	}
}

// What expires while it is kept is listed with its problem, and not installed from.
func TestCatalogsExpire(t *testing.T) {
	c, p, address := newCatalogs(t)
	s := newSigner(t, 1)
	p.publish(t, s, indexOf("acme", 5, entryOf("one")))
	if _, err := c.Add(t.Context(), address, s.public); err != nil {
		t.Fatal(err)
	}
	c.Now = func() time.Time { return testDay.AddDate(1, 0, 0) }
	if _, err := c.Find("one"); !errors.Is(err, ErrExpired) || !strings.Contains(err.Error(), "mallee image catalog update acme") {
		t.Errorf("found in an expired catalogue: %v", err)
	}
	all, err := c.List()
	if err != nil || !errors.Is(all[len(all)-1].Problem, ErrExpired) {
		t.Errorf("listed without its problem: %v", err)
	}
	if l, err := c.Find("tiny"); err != nil || l.Problem != nil {
		t.Errorf("the shipped catalogue: %v, %v", l.Problem, err)
	}
}

// A catalogue's file that was tampered with is a problem of that catalogue alone.
func TestCatalogsVerifyWhatTheyKeep(t *testing.T) {
	c, p, address := newCatalogs(t)
	s := newSigner(t, 1)
	p.publish(t, s, indexOf("acme", 5, entryOf("one")))
	if _, err := c.Add(t.Context(), address, s.public); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(c.file("acme"))
	if err != nil {
		t.Fatal(err)
	}
	other := newSigner(t, 2).public.String()
	for name, bad := range map[string]string{
		"another key": strings.Replace(string(data), s.public.String(), other, 1),
		"half a file": string(data[:len(data)/2]),
	} {
		if err := os.WriteFile(c.file("acme"), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Find("one"); err == nil {
			t.Errorf("%s: found", name)
		}
		if _, err := c.Find("tiny"); err != nil {
			t.Errorf("%s: the shipped catalogue: %v", name, err)
		}
		all, err := c.List()
		if last := all[len(all)-1]; err != nil || last.Catalog != "acme" || last.Problem == nil {
			t.Errorf("%s: listed %+v, %v", name, last, err)
		}
	}
	if err := os.WriteFile(c.file("emca"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.read("emca"); err == nil {
		t.Error("a catalogue was read under another's name")
	}
}

func TestCatalogsShadowing(t *testing.T) {
	c, p, address := newCatalogs(t)
	s := newSigner(t, 1)
	for _, name := range []string{"acme", "emca"} {
		p.publish(t, s, indexOf(name, 1, entryOf("tiny"), entryOf("one")))
		if _, err := c.Add(t.Context(), address, s.public); err != nil {
			t.Fatal(err)
		}
	}
	if l, err := c.Find("tiny"); err != nil || l.Catalog != "mallee" {
		t.Errorf("tiny is %s's, %v: want the shipped one", l.Catalog, err)
	}
	if l, err := c.Find("emca/tiny"); err != nil || l.Catalog != "emca" || l.Name != "tiny" {
		t.Errorf("emca/tiny is %s/%s, %v", l.Catalog, l.Name, err)
	}
	if _, err := c.Find("one"); err == nil || !strings.Contains(err.Error(), "acme/one") {
		t.Errorf("an image of two catalogues: %v, want how to say which", err)
	}
}
