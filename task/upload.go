package task

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"mallee/cloud"
	"mallee/image"
)

const (
	// uploadTime is how long a client may take to upload a disk (Eucalyptus's figure).
	uploadTime = 168 * time.Hour

	maxImportManifest = 4 << 20 // bytes: of some 10,000 parts
	maxParts          = 10000
)

// importManifest says where the parts of an uploaded disk are (EC2's manifest for
// ImportVolume and ImportInstance, version 2010-11-15).
type importManifest struct {
	XMLName xml.Name `xml:"manifest"`
	Format  string   `xml:"file-format"`
	Size    int64    `xml:"import>size"`
	Parts   struct {
		Count int          `xml:"count,attr"`
		List  []importPart `xml:"part"`
	} `xml:"import>parts"`
}

type importPart struct {
	Index int `xml:"index,attr"`
	Range struct {
		Start int64 `xml:"start,attr"`
		End   int64 `xml:"end,attr"` // included
	} `xml:"byte-range"`
	GetURL string `xml:"get-url"`
}

// parseImportManifest reads a manifest, whose parts must make a whole. Its size is
// the file's, or as some tools have it the disk's, which of a raw file is the same.
func parseImportManifest(data []byte, limit int64) (*importManifest, error) {
	var m importManifest
	if err := xml.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("the import manifest can't be read: %w", err)
	}
	list := m.Parts.List
	switch {
	case m.Size <= 0 || m.Size > limit:
		return nil, fmt.Errorf("the import manifest is of %d bytes; expecting 1 to %d", m.Size, limit)
	case len(list) == 0 || len(list) > maxParts || m.Parts.Count != len(list):
		return nil, fmt.Errorf("the import manifest lists %d parts and says that it lists %d; expecting 1 to %d", len(list), m.Parts.Count, maxParts)
	}
	var next int64
	for n, p := range list {
		if p.Index != n || p.Range.Start != next || p.Range.End < p.Range.Start || p.Range.End >= limit || p.GetURL == "" {
			return nil, fmt.Errorf("part %d of the import manifest does not go on where the one before it ends, or has no get-url", n)
		}
		next = p.Range.End + 1
	}
	if next != m.Size && (m.Format == "RAW" || m.Format == "") {
		return nil, fmt.Errorf("the parts of the import manifest have %d bytes, and it says %d", next, m.Size)
	}
	return &m, nil
}

// uploads says whether a client uploads the task's disks while it runs.
func (r *run) uploads() bool {
	return r.task.Kind == cloud.ImportVolume || r.task.Kind == cloud.ImportInstance
}

// awaitUploads has each source whole in its file. A client uploads the manifest
// before it asks for the import, and the parts before or after.
func (r *run) awaitUploads(ctx context.Context) error {
	ctx, cancel := context.WithDeadlineCause(ctx, r.task.CreatedAt.Add(uploadTime), &SourceError{errors.New("the disk was not uploaded in time")})
	defer cancel()
	for n, f := range r.task.Sources {
		if err := os.MkdirAll(filepath.Dir(r.source(n)), 0o700); err != nil {
			return err
		}
		s := r.stage("waiting for the upload", 0, 1)
		if err := r.assemble(ctx, f, r.source(n), s); err != nil {
			return fmt.Errorf("disk %d: %w", n+1, err)
		}
	}
	return nil
}

// assemble the parts of one disk.
func (r *run) assemble(ctx context.Context, f cloud.DiskFile, file string, s stage) error {
	text := file + ".manifest"
	if _, err := r.download(ctx, f.URL, text, maxImportManifest, func(int64, int64) {}); err != nil {
		return err
	}
	data, err := os.ReadFile(text)
	if err != nil {
		return err
	}
	m, err := parseImportManifest(data, r.limits().VirtualSize)
	if err != nil {
		return &SourceError{err}
	}
	out, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	for n, p := range m.Parts.List {
		if err := r.awaitPart(ctx, p, file+".part", out); err != nil {
			return errors.Join(fmt.Errorf("part %d of %d: %w", n+1, len(m.Parts.List), err), out.Close())
		}
		s.progress(int64(n+1), int64(len(m.Parts.List)))
	}
	return out.Close()
}

// awaitPart tries again, ever more rarely, until the part is there.
func (r *run) awaitPart(ctx context.Context, p importPart, file string, out *os.File) error {
	length := p.Range.End - p.Range.Start + 1
	for pause := time.Second; ; pause = min(pause*2, time.Minute) {
		if err := r.room(); err != nil {
			return err
		}
		size, err := r.download(ctx, p.GetURL, file, length, func(int64, int64) {})
		if err == nil && size != length {
			return &SourceError{fmt.Errorf("it has %d bytes, and the manifest says %d", size, length)}
		}
		if err == nil {
			return appendFile(out, file)
		}
		if !comes(err) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// comes says whether what could not be downloaded may be there later: what isn't
// there yet, or whose server is away. What must not be reached, or isn't what was
// said, stays so.
func comes(err error) bool {
	var source *SourceError
	var bad *image.BadImageError
	return errors.As(err, &source) && (!errors.As(err, &bad) || bad.Absent)
}

func appendFile(out *os.File, file string) error {
	in, err := os.Open(file)
	if err != nil {
		return err
	}
	defer in.Close()
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return os.Remove(file)
}
