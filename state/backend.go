package state

import (
	"context"
	"io"
)

// backend is the little of etcd that the state is built on. It has two
// makes, etcd and Memory, and backend_test.go holds both to this contract.
type backend interface {
	// load returns all records, in the order of their keys, and the revision
	// they are of.
	load(ctx context.Context) ([]pair, int64, error)

	// commit writes all of t at one revision, or nothing where a compare
	// fails. An error that is not ErrUncertain means nothing was written.
	commit(ctx context.Context, t txn) (result, error)

	// follow delivers every change of a record from a revision on: in order,
	// each once, never a part of a commit. Where it can't go on it calls lost,
	// once, and is over. deliver must not call the backend; lost may, until
	// its context ends.
	follow(from int64, deliver func(batch), lost func(context.Context, error))

	// campaign waits for the seat of that name; who is for people to read.
	campaign(ctx context.Context, name, who string) (seat, error)

	// backup writes what Restore reads.
	backup(ctx context.Context, w io.Writer) error

	// onEnd has f called when the backend dies by itself.
	onEnd(f func(error))

	// reclaim compacts all history up to now, and makes a full store writable.
	reclaim(ctx context.Context) error

	// close ends all that runs for this backend, and returns when it has
	// ended. It is called once.
	close() error
}

// pair is a record as it is stored.
type pair struct {
	key   string // with its prefix
	value []byte
	rev   int64 // of its last change
}

// txn is a transaction: write all, if every compare holds. What it writes it
// also compares, so that it can't take effect twice.
type txn struct {
	base     int64 // the revision that it was made from
	compares []compare
	fence    *fence
	writes   []write
}

// compare holds where the record's revision is rev; 0 stands for no record.
type compare struct {
	key string
	rev int64
}

// write puts value under key, or deletes what is there where value is nil.
type write struct {
	key   string
	value []byte
}

// fence holds while the seat that was taken at rev is held.
type fence struct {
	key string
	rev int64
}

type result struct {
	outcome outcome
	rev     int64 // of the commit, where there was one
}

type outcome int

const (
	committed  outcome = iota
	overtaken          // a compare did not hold
	fencedOff          // the fence did not hold
	overloaded         // not tried; worth another attempt
)

// batch is what one or several commits changed, up to rev.
type batch struct {
	rev     int64
	changes []change
}

// change is a record's new value, or its deletion where value is nil.
type change = pair

// seat is a leadership that was won.
type seat interface {
	fence() *fence         // always the same
	lost() <-chan struct{} // closed when the lease ended
	resign(ctx context.Context) error
}

// prefix is where records are in etcd; all else under / is not mirrored.
const prefix = "/c/"
