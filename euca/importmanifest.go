package euca

import (
	"context"
	"encoding/binary"
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"mallee/wire/sigv4"
)

// importManifest tells the cloud where the parts of a disk are (EC2's manifest for
// ImportVolume and ImportInstance, version 2010-11-15). Its addresses are
// presigned: the cloud reads and removes the parts by them.
type importManifest struct {
	XMLName  xml.Name `xml:"manifest"`
	Version  string   `xml:"version"`
	Format   string   `xml:"file-format"`
	Importer struct {
		Name    string `xml:"name"`
		Version string `xml:"version"`
		Release string `xml:"release"`
	} `xml:"importer"`
	SelfDestruct string `xml:"self-destruct-url"`
	Import       struct {
		Size       int64          `xml:"size"` // of the file, in bytes
		VolumeSize int64          `xml:"volume-size"`
		Parts      importPartList `xml:"parts"`
	} `xml:"import"`
}

type importPartList struct {
	Count int            `xml:"count,attr"`
	List  []importedPart `xml:"part"`
}

type importedPart struct {
	Index int `xml:"index,attr"`
	Range struct {
		Start int64 `xml:"start,attr"`
		End   int64 `xml:"end,attr"` // included
	} `xml:"byte-range"`
	Key    string `xml:"key"`
	Head   string `xml:"head-url"`
	Get    string `xml:"get-url"`
	Delete string `xml:"delete-url"`
}

const (
	importVersion     = "2010-11-15"
	maxImportManifest = 4 << 20 // bytes that a cloud reads
	maxImportParts    = 10000
)

// write a manifest for the disk, in parts of that size, or of larger ones where
// the manifest would be too long for the cloud.
func (up *importUpload) write(ctx context.Context, d *disk, lifetime time.Duration, partSize int64) error {
	for ; ; partSize *= 2 {
		if d.size/partSize >= maxImportParts {
			continue
		}
		m, err := up.compose(d, lifetime, partSize)
		if err != nil {
			return err
		}
		text, err := xml.MarshalIndent(m, "", "  ")
		if err != nil {
			return err
		}
		if text = append([]byte(xml.Header), text...); len(text) > maxImportManifest {
			continue
		}
		up.manifest = m
		return up.client.PutObject(ctx, up.bucket, up.key, "", text)
	}
}

// compose the manifest; its parts lie beside it.
func (up *importUpload) compose(d *disk, lifetime time.Duration, partSize int64) (m *importManifest, err error) {
	m = &importManifest{Version: importVersion, Format: d.format}
	m.Importer.Name, m.Importer.Version, m.Importer.Release = "mallee", Version, importVersion
	m.Import.Size, m.Import.VolumeSize = d.size, d.gib
	if m.SelfDestruct, err = up.presign("DELETE", up.key, lifetime); err != nil {
		return nil, err
	}
	for start := int64(0); start < d.size; start += partSize {
		p := importedPart{Index: len(m.Import.Parts.List)}
		p.Range.Start, p.Range.End = start, min(start+partSize, d.size)-1
		p.Key = fmt.Sprintf("%s/%s.part.%d", path.Dir(up.key), d.name, p.Index)
		for method, to := range map[string]*string{"HEAD": &p.Head, "GET": &p.Get, "DELETE": &p.Delete} {
			if *to, err = up.presign(method, p.Key, lifetime); err != nil {
				return nil, err
			}
		}
		m.Import.Parts.List = append(m.Import.Parts.List, p)
	}
	m.Import.Parts.Count = len(m.Import.Parts.List)
	return m, nil
}

func (up *importUpload) presign(method, key string, lifetime time.Duration) (string, error) {
	return sigv4.Presign(method, up.client.objectURL(up.bucket, key), up.client.Credentials, up.client.Region, "s3", time.Now(), lifetime)
}

// read the manifest that is there. It has to be of a file of size bytes; 0 is any.
func (up *importUpload) read(ctx context.Context, size int64) error {
	body, _, err := up.client.GetObject(ctx, up.bucket, up.key)
	if err != nil {
		return err
	}
	defer body.Close()
	text, err := io.ReadAll(io.LimitReader(body, maxImportManifest+1))
	if err == nil {
		up.manifest, err = parseImportManifest(text, path.Dir(up.key))
	}
	if err != nil {
		return fmt.Errorf("the import manifest %s/%s: %w", up.bucket, up.key, err)
	}
	if is := up.manifest.Import.Parts.size(); size > 0 && size != is {
		return fmt.Errorf("the import began with a file of %d bytes, and this one has %d", is, size)
	}
	return nil
}

// parseImportManifest reads a manifest whose parts lie in one folder: it is no
// way to have other objects overwritten or deleted.
func parseImportManifest(text []byte, folder string) (*importManifest, error) {
	var m importManifest
	if len(text) > maxImportManifest {
		return nil, fmt.Errorf("it has more than %d bytes", maxImportManifest)
	}
	if err := xml.Unmarshal(text, &m); err != nil {
		return nil, fmt.Errorf("it can't be read: %w", err)
	}
	list := m.Import.Parts.List
	if len(list) == 0 || len(list) > maxImportParts || m.Import.Parts.Count != len(list) {
		return nil, fmt.Errorf("it lists %d parts and says that it lists %d; expecting 1 to %d", len(list), m.Import.Parts.Count, maxImportParts)
	}
	var next int64
	for n, p := range list {
		if p.Index != n || p.Range.Start != next || p.Range.End < next {
			return nil, fmt.Errorf("its part %d does not go on where the one before it ends", n)
		}
		if below, ok := strings.CutPrefix(p.Key, folder+"/"); !ok || below == "" || strings.Contains(below, "/") {
			return nil, fmt.Errorf("its part %d, %.100q, is not beside it in %s", n, p.Key, folder)
		}
		next = p.Range.End + 1
	}
	return &m, nil
}

// size of all parts in bytes.
func (p importPartList) size() int64 { return p.List[len(p.List)-1].Range.End + 1 }

// keys of all parts.
func (m *importManifest) keys() (all []string) {
	for _, p := range m.Import.Parts.List {
		all = append(all, p.Key)
	}
	return all
}

// virtualSize of the disk that a file of size bytes holds, by its own header.
func virtualSize(f *os.File, format string, size int64) (int64, error) {
	var header [512]byte
	at := int64(0)
	if format == "VHD" {
		at = size - int64(len(header)) // its footer
	}
	_, err := f.ReadAt(header[:], max(at, 0))
	switch {
	case format == "RAW":
		return size, nil
	case err != nil:
	case format == "VMDK" && string(header[:4]) == "KDMV":
		if sectors := binary.LittleEndian.Uint64(header[12:]); sectors > 0 && sectors < 1<<41 {
			return int64(sectors) * 512, nil
		}
	case format == "VHD" && string(header[:8]) == "conectix":
		if bytes := binary.BigEndian.Uint64(header[48:]); bytes > 0 && bytes < 1<<50 {
			return int64(bytes), nil
		}
	}
	return 0, fmt.Errorf("how large the disk in %s is can't be seen from it as %s: give it by --image-size", f.Name(), format)
}
