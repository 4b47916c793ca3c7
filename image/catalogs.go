package image

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"mallee/durable"
)

// shippedIndex is the catalogue that is part of the program, and as trusted as it is.
//
//go:embed catalog.json
var shippedIndex []byte

// Shipped is the catalogue inside the program.
func Shipped() Index {
	x, err := ParseIndex(shippedIndex)
	if err != nil {
		panic(err) // a test reads it too
	}
	return x
}

// ErrExpired reports a catalogue past its day: whoever serves it may be hiding a newer one.
var ErrExpired = errors.New("catalogue has expired")

// ErrRollback reports an edition of a catalogue that is older than the one at hand.
var ErrRollback = errors.New("catalogue went back")

// Catalogs are the shipped catalogue and those that the administrator added. An added one is pinned to the
// address it came from and to the key that signed it, and every edition has to be signed by that key, not be
// past its day, and not be older than the one at hand.
type Catalogs struct {
	Dir  string           // a file for each added catalogue; made where it isn't there
	HTTP *http.Client     // fetches them
	Now  func() time.Time // the clock that expiry is held against
}

// A Source is an added catalogue as it is kept: the signed bytes as they came, which are verified
// whenever they are read.
type Source struct {
	URL       string    `json:"url"`
	Key       string    `json:"key"` // minisign's public key
	Fetched   time.Time `json:"fetched"`
	Edition   []byte    `json:"edition"`
	Signature []byte    `json:"signature"`

	Index   Index  `json:"-"`
	Comment string `json:"-"` // what the signer said of it
}

// Add a catalogue: the index at the address, its signature at the address with .minisig at its end.
func (c Catalogs) Add(ctx context.Context, address string, key PublicKey) (Source, error) {
	return c.locked(ctx, func() (Source, error) {
		s := Source{URL: address, Key: key.String()}
		if err := checkURL(address, "https", "http"); err != nil {
			return s, err
		}
		s, err := c.fetch(ctx, s)
		if err != nil {
			return s, err
		}
		if s.Index.Name == Shipped().Name {
			return s, fmt.Errorf("the catalogue at %s calls itself %s, as the one in this program does", address, s.Index.Name)
		}
		if _, err := os.Stat(c.file(s.Index.Name)); err == nil {
			return s, fmt.Errorf("there is a catalogue %s already: remove it first, or update it", s.Index.Name)
		}
		return s, c.keep(s)
	})
}

// Update fetches the newest edition of an added catalogue.
func (c Catalogs) Update(ctx context.Context, name string) (Source, error) {
	return c.locked(ctx, func() (Source, error) {
		old, err := c.read(name)
		if err != nil {
			return old, err
		}
		s, err := c.fetch(ctx, old)
		switch {
		case err != nil:
			return old, err
		case s.Index.Name != name:
			return old, fmt.Errorf("the catalogue at %s calls itself %s now; it was added as %s", s.URL, s.Index.Name, name)
		case s.Index.Serial < old.Index.Serial:
			return old, fmt.Errorf("%w: %s offers serial %d of %s, serial %d is at hand", ErrRollback, s.URL, s.Index.Serial, name, old.Index.Serial)
		case s.Index.Serial == old.Index.Serial && string(s.Edition) != string(old.Edition):
			return old, fmt.Errorf("%w: %s offers another serial %d of %s than the one at hand", ErrRollback, s.URL, s.Index.Serial, name)
		}
		return s, c.keep(s)
	})
}

// Remove an added catalogue. Images installed from it stay.
func (c Catalogs) Remove(ctx context.Context, name string) error {
	_, err := c.locked(ctx, func() (Source, error) {
		if name == Shipped().Name {
			return Source{}, fmt.Errorf("catalogue %s is part of this program and can't be removed", name)
		}
		if !catalogName.MatchString(name) {
			return Source{}, c.unknown(name)
		}
		err := os.Remove(c.file(name))
		if errors.Is(err, fs.ErrNotExist) {
			return Source{}, c.unknown(name)
		}
		if err != nil {
			return Source{}, fmt.Errorf("removing catalogue %s: %w", name, err)
		}
		return Source{}, durable.SyncDir(c.Dir)
	})
	return err
}

// Names lists the added catalogues.
func (c Catalogs) Names() ([]string, error) {
	files, err := os.ReadDir(c.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing the catalogues: %w", err)
	}
	var names []string
	for _, f := range files {
		if name, ok := strings.CutSuffix(f.Name(), ".json"); ok && catalogName.MatchString(name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// A Listed entry is one of any catalogue.
type Listed struct {
	Catalog string
	Entry
	Problem error // why it can't be installed; ErrExpired, or what is wrong with its catalogue's file
}

// List all entries, the shipped ones first. A catalogue that can't be read is one entry without a name, with its
// Problem.
func (c Catalogs) List() ([]Listed, error) {
	all := listed(Shipped(), nil)
	names, err := c.Names()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		s, err := c.read(name)
		if err != nil {
			all = append(all, Listed{Catalog: name, Problem: err})
			continue
		}
		all = append(all, listed(s.Index, c.fresh(s))...)
	}
	return all, nil
}

func listed(x Index, problem error) []Listed {
	var all []Listed
	for _, e := range x.Entries {
		all = append(all, Listed{Catalog: x.Name, Entry: e, Problem: problem})
	}
	return all
}

// Find the entry of that name: NAME, or CATALOGUE/NAME where several catalogues have one. What the
// program ships is never hidden by what was added.
func (c Catalogs) Find(name string) (Listed, error) {
	all, err := c.List()
	if err != nil {
		return Listed{}, err
	}
	catalog, short, qualified := strings.Cut(name, "/")
	var found []Listed
	for _, l := range all {
		if l.Name != "" && (l.Name == name || qualified && l.Catalog == catalog && l.Name == short) {
			found = append(found, l)
		}
	}
	switch {
	case len(found) == 0:
		return Listed{}, fmt.Errorf("no image %q in the catalogue; it has %s", name, strings.Join(namesOf(all), ", "))
	case len(found) > 1 && found[0].Catalog != Shipped().Name:
		return Listed{}, fmt.Errorf("catalogues %s and %s both have an image %s: say which, as %s/%s", found[0].Catalog, found[1].Catalog, name, found[0].Catalog, name)
	}
	return found[0], found[0].Problem
}

func namesOf(all []Listed) []string {
	var names []string
	for _, l := range all {
		if l.Name != "" && !slices.Contains(names, l.Name) {
			names = append(names, l.Name)
		}
	}
	return names
}

func (c Catalogs) file(name string) string { return filepath.Join(c.Dir, name+".json") }

func (c Catalogs) unknown(name string) error {
	names, err := c.Names()
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return fmt.Errorf("no catalogue %q: none was added", name)
	}
	return fmt.Errorf("no catalogue %q was added; there is %s", name, strings.Join(names, ", "))
}

// fetch the newest edition that is signed, and not past its day.
func (c Catalogs) fetch(ctx context.Context, s Source) (Source, error) {
	var err error
	if s.Edition, err = getSmall(ctx, c.HTTP, s.URL, maxIndexBytes); err != nil {
		return s, fmt.Errorf("fetching the catalogue: %w", err)
	}
	if s.Signature, err = getSmall(ctx, c.HTTP, s.URL+".minisig", maxSignatureBytes); err != nil {
		return s, fmt.Errorf("fetching the catalogue's signature, without which it isn't taken: %w", err)
	}
	s.Fetched = c.Now().UTC()
	if s, err = s.verified(); err != nil {
		return s, fmt.Errorf("catalogue at %s: %w", s.URL, err)
	}
	return s, c.fresh(s)
}

// verified reads the edition, if the key signed it.
func (s Source) verified() (Source, error) {
	key, err := ParsePublicKey(s.Key)
	if err != nil {
		return s, err
	}
	if s.Comment, err = key.Verify(s.Edition, s.Signature); err != nil {
		return s, err
	}
	if err := checkText(s.Comment); err != nil {
		return s, fmt.Errorf("trusted comment: %w", err)
	}
	if s.Index, err = ParseIndex(s.Edition); err != nil {
		return s, err
	}
	if s.Index.Expires.IsZero() {
		return s, errors.New("the index has no day on which it expires, which one that is fetched needs")
	}
	return s, nil
}

func (c Catalogs) fresh(s Source) error {
	if now := c.Now(); now.After(s.Index.Expires) {
		return fmt.Errorf("%w: %s is good until %s, and it is %s; mallee image catalog update %s fetches a newer one if there is one",
			ErrExpired, s.Index.Name, s.Index.Expires.Format(time.RFC3339), now.UTC().Format(time.RFC3339), s.Index.Name)
	}
	return nil
}

// getSmall fetches a file that is small, as its limit in bytes says. What was asked for by https doesn't
// come by less.
func getSmall(ctx context.Context, client *http.Client, address string, limit int64) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if r.URL.Scheme == "https" && resp.Request.URL.Scheme != "https" {
		return nil, fmt.Errorf("%s leads to %s, which isn't https", address, resp.Request.URL)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", address, resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", address, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s has more than the %d bytes that are read", address, limit)
	}
	return data, nil
}

// read an added catalogue as it was kept, and verify it again.
func (c Catalogs) read(name string) (Source, error) {
	var s Source
	if !catalogName.MatchString(name) {
		return s, c.unknown(name)
	}
	data, err := os.ReadFile(c.file(name))
	if errors.Is(err, fs.ErrNotExist) {
		return s, c.unknown(name)
	}
	if err != nil {
		return s, fmt.Errorf("reading catalogue %s: %w", name, err)
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("catalogue %s as kept in %s: %w", name, c.file(name), err)
	}
	if s, err = s.verified(); err != nil {
		return s, fmt.Errorf("catalogue %s as kept in %s: %w", name, c.file(name), err)
	}
	if s.Index.Name != name {
		return s, fmt.Errorf("catalogue %s as kept in %s calls itself %s", name, c.file(name), s.Index.Name)
	}
	return s, nil
}

func (c Catalogs) keep(s Source) error {
	data, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return err
	}
	return durable.WriteFile(c.file(s.Index.Name), append(data, '\n'))
}

// locked runs a change while no other process makes one.
func (c Catalogs) locked(ctx context.Context, change func() (Source, error)) (Source, error) {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return Source{}, fmt.Errorf("making the folder of catalogues: %w", err)
	}
	unlock, err := lock(ctx, filepath.Join(c.Dir, "lock"), func() {})
	if err != nil {
		return Source{}, err
	}
	defer unlock()
	return change()
}
