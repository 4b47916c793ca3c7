package state

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

// Migration brings a record's JSON from one version of its shape to the next.
type Migration func(json.RawMessage) (json.RawMessage, error)

// errRecord is in the chain of every error about a stored record that this
// program can't read.
var errRecord = errors.New("unreadable record")

// record is a decoded record. It is shared by all readers and never changes.
type record struct {
	key   string
	rev   int64
	value any // *T of its table
	sum   digest
	asIs  digest // of the value encoded again, to see whether somebody changed it; -race only
}

type digest = [sha256.Size]byte

// A stored value is an envelope that says which version of its table's shape
// it has: {"v":1,"d":{…}}. It is written in exactly this form, which lets the
// common case skip a second parse; any JSON of the same meaning is read.
const (
	envelopeHead = `{"v":`
	envelopeBody = `,"d":`
)

func (t *tableInfo) version() int { return 1 + len(t.migrations) }

// encode makes the envelope of a value.
func (t *tableInfo) encode(value any) ([]byte, error) {
	body, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("state: encode %s %q: %w", t.name, t.key(value), err)
	}
	out := make([]byte, 0, len(envelopeHead)+4+len(envelopeBody)+len(body)+1)
	out = append(out, envelopeHead...)
	out = strconv.AppendInt(out, int64(t.version()), 10)
	out = append(out, envelopeBody...)
	out = append(out, body...)
	return append(out, '}'), nil
}

// open reads a stored value into a record.
func (t *tableInfo) open(key string, data []byte, rev int64) (*record, error) {
	version, body, err := openEnvelope(data)
	if err != nil {
		return nil, t.unreadable(key, err)
	}
	if version < 1 || version > t.version() {
		return nil, t.unreadable(key, fmt.Errorf("it has version %d, this mallee knows 1 to %d: run the mallee that wrote it, or a later one", version, t.version()))
	}
	for _, step := range t.migrations[version-1:] {
		if body, err = step(body); err != nil {
			return nil, t.unreadable(key, err)
		}
	}
	value, err := t.decode(body)
	if err != nil {
		return nil, t.unreadable(key, err)
	}
	r := &record{key: key, rev: rev, value: value, sum: sha256.Sum256(data)}
	if checkMutation {
		r.asIs = t.digest(value)
	}
	return r, nil
}

func (t *tableInfo) unreadable(key string, err error) error {
	return fmt.Errorf("state: %w: %s %q: %w", errRecord, t.name, key, err)
}

func openEnvelope(data []byte) (version int, body json.RawMessage, err error) {
	if head, rest, ok := bytes.Cut(data, []byte(envelopeBody)); ok && bytes.HasPrefix(head, []byte(envelopeHead)) {
		version, err = strconv.Atoi(string(head[len(envelopeHead):]))
		if err == nil && bytes.HasSuffix(rest, []byte{'}'}) {
			return version, rest[:len(rest)-1], nil
		}
	}
	var e struct {
		V int             `json:"v"`
		D json.RawMessage `json:"d"`
	}
	if err := json.Unmarshal(data, &e); err != nil {
		return 0, nil, fmt.Errorf("read the envelope: %w", err)
	}
	return e.V, e.D, nil
}

// digest is of a value as it is now; one that can't be encoded has none.
func (t *tableInfo) digest(value any) digest {
	data, err := t.encode(value)
	if err != nil {
		return digest{}
	}
	return sha256.Sum256(data)
}

// shared says whether the mirror has the record; else a Tx wrote it.
func (r *record) shared() bool { return r.asIs != digest{} }

// mutated says whether somebody changed a record of the mirror.
func (t *tableInfo) mutated(r *record) bool { return r.asIs != t.digest(r.value) }
