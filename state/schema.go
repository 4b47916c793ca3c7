package state

import (
	"fmt"
	"strings"

	"github.com/hashicorp/go-memdb"
)

// idIndex is what memdb wants the index of keys to be called.
const idIndex = "id"

// schema describes all declared tables to memdb.
func schema() *memdb.DBSchema {
	s := &memdb.DBSchema{Tables: map[string]*memdb.TableSchema{}}
	for name, t := range tables {
		ts := &memdb.TableSchema{Name: name, Indexes: map[string]*memdb.IndexSchema{
			idIndex: {Name: idIndex, Unique: true, Indexer: keyIndexer{}},
		}}
		for _, x := range t.indexes {
			ts.Indexes[x.name] = &memdb.IndexSchema{Name: x.name, AllowMissing: true, Indexer: valueIndexer{x.of}}
		}
		s.Tables[name] = ts
	}
	return s
}

// keyIndexer orders records by their keys.
type keyIndexer struct{}

func (keyIndexer) FromObject(v any) (bool, []byte, error) { return true, []byte(v.(*record).key), nil }
func (keyIndexer) FromArgs(args ...any) ([]byte, error)   { return []byte(args[0].(string)), nil }

// valueIndexer finds records by values of theirs; memdb appends the key.
type valueIndexer struct{ of func(any) []string }

func (x valueIndexer) FromObject(v any) (bool, [][]byte, error) {
	var out [][]byte
	for _, s := range x.of(v.(*record).value) {
		out = append(out, terminated(s))
	}
	return len(out) > 0, out, nil
}

func (x valueIndexer) FromArgs(args ...any) ([]byte, error) {
	s, ok := args[0].(string)
	if !ok || len(args) != 1 {
		return nil, fmt.Errorf("an index takes one string, not %v", args)
	}
	return terminated(s), nil
}

// terminated ends a value so that none is the beginning of another, whatever
// bytes it has.
func terminated(s string) []byte {
	return []byte(strings.ReplaceAll(s, "\x00", "\x00\xff") + "\x00\x01")
}
