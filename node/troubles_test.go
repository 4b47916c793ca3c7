package node

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"mallee/blob/mem"
	"mallee/cloud"
	"mallee/link"
	"mallee/snapshot"
)

// TestTroubles: a block that is damaged is an error to who reads it and is told of
// until it can be read again; so is a manifest.
func TestTroubles(t *testing.T) {
	blobs, dir := mem.New(), t.TempDir()
	e := newExports(t, dir, blobs)
	s, err := e.Sink(t.Context(), "snap-00000001", 2*snapshot.BlockSize, nil)
	if err != nil {
		t.Fatal(err)
	}
	e.write(t, s, 0, 'a')
	e.write(t, s, 1, 'b')
	c, err := s.Commit(t.Context(), true)
	if err = errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{"blocks/", "manifests/"} {
		t.Run(folder, func(t *testing.T) {
			e := newExports(t, t.TempDir(), blobs) // whose cache is empty
			told := 0
			e.Watch(func() { told++ })
			key, whole := changed(t, blobs, folder, "something else")
			if err := e.readAll(t, c); !errors.Is(err, cloud.ErrDamaged) {
				t.Fatalf("reading: %v", err)
			}
			if err := e.readAll(t, c); err == nil || told != 1 {
				t.Errorf("reading again: %v; it was told %d times", err, told)
			}
			if got := troubleOf(e.Trouble(c)); !got.Damaged || !strings.Contains(got.Message, key) {
				t.Errorf("the trouble is %+v, want that %s is damaged", got, key)
			}
			changed(t, blobs, folder, whole)
			if err := e.readAll(t, c); err != nil || e.Trouble(c) != nil || told != 2 {
				t.Errorf("put back: %v, %v, told %d times", err, e.Trouble(c), told)
			}
		})
	}
}

// changed replaces the first blob of a folder.
func changed(t *testing.T, blobs *mem.Store, folder, by string) (key, was string) {
	t.Helper()
	for info, err := range blobs.List(t.Context(), folder) {
		if err != nil {
			t.Fatal(err)
		}
		r, err := blobs.Get(t.Context(), info.Key, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		err = errors.Join(err, r.Close(), blobs.Delete(t.Context(), info.Key), blobs.Put(t.Context(), info.Key, bytes.NewReader([]byte(by))))
		if err != nil {
			t.Fatal(err)
		}
		return info.Key, string(data)
	}
	t.Fatalf("there are no %s", folder)
	return "", ""
}

// readAll of a content, block by block, until one fails.
func (e *Exports) readAll(t *testing.T, c cloud.Content) error {
	t.Helper()
	x, release, err := served{e}.Open(t.Context(), e.Source(c).Export)
	if err != nil {
		return err
	}
	defer release()
	p := make([]byte, snapshot.BlockSize)
	for at := int64(0); at < c.Size; at += snapshot.BlockSize {
		err = errors.Join(err, x.ReadAt(t.Context(), p, at))
	}
	return err
}

// TestTroubleIsReported of the volumes that still read there, and of no other.
func TestTroubleIsReported(t *testing.T) {
	r := newRig(t)
	content := cloud.Content{Manifest: "m", Size: 1 << 30}
	w, full := volumeOf(1, "", ""), volumeOf(2, "", "")
	w.Source = &content
	r.tell(link.Assignment{Volumes: []cloud.Volume{w, full}})
	r.step()
	r.bytes.trouble = errors.New("the store is away")
	trouble := func(id cloud.VolumeID) cloud.Trouble {
		v, ok := r.reported(id)
		if !ok {
			t.Fatalf("%s is not in the report", id)
		}
		return v.Trouble
	}
	if got, none := trouble(w.ID), trouble(full.ID); got.Message != "the store is away" || got.Damaged || none != (cloud.Trouble{}) {
		t.Errorf("reported are %+v, and of a volume that stands on nothing %+v", got, none)
	}
}
