package state

import (
	"encoding/json"
	"fmt"
	"iter"
	"strings"
)

// Table says how one kind of record is keyed. Tables are declared as package
// variables with NewTable, before the first Open.
type Table[K ~string, T any] struct{ info *tableInfo }

// Index finds a table's records by a value of theirs.
type Index[A ~string, T any] struct {
	table *tableInfo
	name  string
}

// AnyTable is a Table of any type.
type AnyTable interface{ tableInfo() *tableInfo }

// Reader is a View or a Tx.
type Reader interface {
	Revision() int64
	find(t *tableInfo, key string) *record
	scan(t *tableInfo, index string, args ...any) iter.Seq[*record]
}

// NewTable declares a table. The name is part of every record's key in etcd
// and never changes. Where records of a former shape may be stored, one
// migration for each step, oldest first, brings the JSON of a record forward;
// fields that a shape doesn't know are ignored.
func NewTable[K ~string, T any](name string, key func(*T) K, migrations ...Migration) Table[K, T] {
	info := &tableInfo{
		name:       name,
		migrations: migrations,
		key:        func(v any) string { return string(key(v.(*T))) },
		decode: func(data []byte) (any, error) {
			v := new(T)
			return v, json.Unmarshal(data, v)
		},
	}
	register(info)
	return Table[K, T]{info}
}

// NewIndex adds an index to a table. Records of which of returns "" are not
// in it. The name is for the mirror only.
func NewIndex[K, A ~string, T any](t Table[K, T], name string, of func(*T) A) Index[A, T] {
	return NewListIndex(t, name, func(v *T) []A { return []A{of(v)} })
}

// NewListIndex adds an index in which a record stands under several values.
func NewListIndex[K, A ~string, T any](t Table[K, T], name string, of func(*T) []A) Index[A, T] {
	t.info.indexes = append(t.info.indexes, indexInfo{name, func(v any) []string {
		var out []string
		for _, a := range of(v.(*T)) {
			if a != "" {
				out = append(out, string(a))
			}
		}
		return out
	}})
	return Index[A, T]{t.info, name}
}

// Get looks a record up. The revision is that of its last change; in a Tx that
// wrote the record itself, of the change before. The value must not be changed.
func (t Table[K, T]) Get(r Reader, key K) (value *T, revision int64, ok bool) {
	rec := r.find(t.info, string(key))
	if rec == nil {
		return nil, 0, false
	}
	return rec.value.(*T), rec.rev, true
}

// All goes through the table's records and their revisions in the order of
// their keys. The values must not be changed.
func (t Table[K, T]) All(r Reader) iter.Seq2[*T, int64] {
	return values[T](r.scan(t.info, idIndex))
}

// By goes through the records that stand under arg, in the order of their keys.
func (x Index[A, T]) By(r Reader, arg A) iter.Seq2[*T, int64] {
	return values[T](r.scan(x.table, x.name, string(arg)))
}

// Put writes a record, new or not. What v points to must not be changed after.
// A value that can't be stored fails the Update.
func (t Table[K, T]) Put(tx *Tx, v T) { tx.put(t.info, t.info.key(&v), &v) }

// Delete removes a record; it need not be there.
func (t Table[K, T]) Delete(tx *Tx, key K) { tx.remove(t.info, string(key)) }

// Edit changes a record by changing a deep copy of it; false says that there
// is none.
func (t Table[K, T]) Edit(tx *Tx, key K, change func(*T)) bool {
	rec := tx.find(t.info, string(key))
	if rec == nil {
		return false
	}
	data, err := json.Marshal(rec.value)
	if err != nil {
		tx.fail(err)
		return true
	}
	v, err := t.info.decode(data)
	if err != nil {
		tx.fail(err)
		return true
	}
	change(v.(*T))
	t.Put(tx, *v.(*T))
	return true
}

func (t Table[K, T]) tableInfo() *tableInfo { return t.info }

func values[T any](records iter.Seq[*record]) iter.Seq2[*T, int64] {
	return func(yield func(*T, int64) bool) {
		for rec := range records {
			if !yield(rec.value.(*T), rec.rev) {
				return
			}
		}
	}
}

// tableInfo is a Table without its types.
type tableInfo struct {
	name       string
	key        func(any) string
	decode     func([]byte) (any, error)
	indexes    []indexInfo
	migrations []Migration
}

type indexInfo struct {
	name string
	of   func(any) []string
}

// path is where a record is in etcd.
func (t *tableInfo) path(key string) string { return prefix + t.name + "/" + key }

// splitPath undoes path.
func splitPath(path string) (table, key string, ok bool) {
	rest, ok := strings.CutPrefix(path, prefix)
	if !ok {
		return "", "", false
	}
	return strings.Cut(rest, "/")
}

// tables are all that were declared. Only variable initialisers write it.
var tables = map[string]*tableInfo{}

func register(t *tableInfo) {
	if t.name == "" || strings.ContainsAny(t.name, "/\x00") || tables[t.name] != nil {
		panic(fmt.Sprintf("state: table name %q is taken or not usable", t.name))
	}
	tables[t.name] = t
}
