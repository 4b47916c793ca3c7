package euca

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"mallee/durable"
)

// journal of one snapshot's migration: NAME.json says what is made of it, and
// NAME.blocks has, at 32 times its index, the digest of each block that is there,
// and zeroes for one that isn't.
type journal struct {
	Target   string `json:"target"` // the snapshot there
	GiB      int64  `json:"gib"`
	Complete bool   `json:"complete"`

	path    string
	digests *os.File
}

func openJournal(dir, name string) (*journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	j := &journal{path: filepath.Join(dir, name)}
	data, err := os.ReadFile(j.path + ".json")
	if err == nil {
		err = json.Unmarshal(data, j)
	} else if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("what is known of an earlier attempt (%s.json) can't be read: %w; remove it to begin anew", j.path, err)
	}
	j.digests, err = os.OpenFile(j.path+".blocks", os.O_RDWR|os.O_CREATE, 0o600)
	return j, err
}

// write what is made of it, in one piece, which the loss of power doesn't take.
func (j *journal) write() error {
	data, err := json.Marshal(j)
	if err != nil {
		return err
	}
	return durable.WriteFile(j.path+".json", data)
}

func (j *journal) has(index int64) (bool, error) {
	var d [sha256.Size]byte
	_, err := j.digests.ReadAt(d[:], index*sha256.Size)
	if errors.Is(err, io.EOF) {
		return false, nil
	}
	return d != [sha256.Size]byte{}, err
}

// note a block that is there.
func (j *journal) note(index int64, digest [sha256.Size]byte) error {
	_, err := j.digests.WriteAt(digest[:], index*sha256.Size)
	return err
}

// sum counts the blocks, and digests their digests in the order of the blocks.
func (j *journal) sum() (count int, sum string, err error) {
	all := sha256.New()
	buf := make([]byte, sha256.Size*4096)
	for at := int64(0); ; at += int64(len(buf)) {
		n, err := j.digests.ReadAt(buf, at)
		for d := range n / sha256.Size {
			if one := buf[d*sha256.Size : (d+1)*sha256.Size]; !bytes.Equal(one, make([]byte, sha256.Size)) {
				all.Write(one)
				count++
			}
		}
		if errors.Is(err, io.EOF) {
			return count, base64.StdEncoding.EncodeToString(all.Sum(nil)), nil
		}
		if err != nil {
			return 0, "", err
		}
	}
}

// reset to the beginning.
func (j *journal) reset() error {
	j.Target, j.Complete = "", false
	return errors.Join(j.digests.Truncate(0), j.write())
}

func (j *journal) close() { j.digests.Close() }

// remove what is known of a snapshot, which another device may have had too.
func (j *journal) remove() error {
	for _, suffix := range []string{".blocks", ".json"} {
		if err := os.Remove(j.path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
