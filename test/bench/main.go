// Command bench measures what Mallee costs, as ratios of one run: an instance
// against the same QEMU command line started by hand, turn by turn, on the same
// host in the same minutes, so that a figure means the same on a slow host and on
// a busy one.
//
//	pairs.go    one instance against one bare QEMU
//	batch.go    many in one call against as many bare QEMUs, and what each takes
//	bundles.go  images from their bundling to their first launch, against the shell
//	cloud.go    the cloud under test: launches and their ends
//	bare.go     QEMU by hand, on the command line of an instance
//	await.go    when a guest is there, seen from outside
//	volumes.go  what many volumes take
//	firstread.go  how soon a guest reads of a new volume, empty or from a snapshot
//	storage.go  a guest's disks against a raw file, and snapshots against hashing
//	suites.go   the benchmarks of Go that need no guest
//	host.go     disk and memory
//	stats.go    medians, their ranges, and how far chance may have moved them
//	figures.go  the table
//
// What is timed begins when the request is sent, or before the fork, and ends
// when QEMU has written its pid file (which it does first of all) or the guest's
// first byte is in the console's log.
//
// It prints a table, and says on standard error what it does. It ends with 1
// where a measurement could not be made; a goal that is missed is no failure.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"mallee/test/cloud"
)

// options size a run. The defaults take some twenty minutes on two processors
// that emulate.
type options struct {
	pairs   int   // of one instance and one bare QEMU, until the first byte
	quick   int   // the same of a guest that only says hello
	batches int   // of many against many
	n       int   // how many these are
	image   int64 // MiB that an image has whose bundling and first launch are timed
	rounds  int   // how often they are
	small   int64 // MiB of cached images whose launches are compared
	large   int64
	volumes int    // that are made at once, for what each takes
	reads   int    // of new volumes, empty and from a snapshot
	turns   int    // of disks against a raw file, and of snapshots against hashing
	changed int64  // MiB of such a snapshot
	suites  bool   // also Go's benchmarks
	module  string // where the main module is
	json    bool
}

func parse() (o options) {
	flag.IntVar(&o.pairs, "pairs", 8, "how often an instance and a bare QEMU are timed to the first byte of a Linux")
	flag.IntVar(&o.quick, "quick", 40, "how often they are timed with a guest that only says hello")
	flag.IntVar(&o.batches, "batches", 1, "how often one call for many instances is timed against as many bare QEMUs")
	flag.IntVar(&o.n, "n", 16, "how many instances one call is for")
	flag.Int64Var(&o.image, "image", 2048, "how many MiB an image has that is bundled, uploaded, registered and launched; 0 is none")
	flag.IntVar(&o.rounds, "rounds", 3, "how often that is done")
	flag.Int64Var(&o.small, "small", 50, "how many MiB the smaller of two cached images has")
	flag.Int64Var(&o.large, "large", 8192, "how many MiB the larger one has")
	flag.IntVar(&o.volumes, "volumes", 100, "how many volumes are made for what each takes")
	flag.IntVar(&o.reads, "reads", 8, "how often an empty volume and one from a snapshot are made and read")
	flag.IntVar(&o.turns, "turns", 7, "how often a guest's disks are compared with a raw file, and snapshots with hashing")
	flag.Int64Var(&o.changed, "changed", 1024, "how many MiB of a volume of 100 GiB have changed since its last snapshot")
	flag.BoolVar(&o.suites, "suites", true, "measure throughput with the fake hypervisor too")
	flag.StringVar(&o.module, "module", "..", "the folder of the main module, for its benchmarks")
	flag.BoolVar(&o.json, "json", false, "print JSON instead of the table")
	flag.Parse()
	return o
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	figures, err := run(ctx, parse())
	if err = errors.Join(err, figures.print(os.Stdout)); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run measures everything, and reports what it could where something fails.
func run(ctx context.Context, o options) (*report, error) {
	r := newReport(o)
	err := withCloud(ctx, func(s *subject) error { return measure(ctx, o, s, r) })
	if ctx.Err() == nil {
		err = errors.Join(err, storage(ctx, o, r))
	}
	if o.suites && ctx.Err() == nil {
		err = errors.Join(err, suites(ctx, o.module, r))
	}
	r.finish()
	return r, err
}

func measure(ctx context.Context, o options, s *subject, r *report) error {
	if err := overhead(ctx, s, o.quick, r); err != nil {
		return err
	}
	if err := firstByte(ctx, s, o.pairs, r); err != nil {
		return err
	}
	if err := batch(ctx, s, o.batches, o.n, r); err != nil {
		return err
	}
	if err := manyVolumes(ctx, s, o.volumes, r); err != nil {
		return err
	}
	if err := firstRead(ctx, s, o.reads, r); err != nil {
		return err
	}
	return images(ctx, s, o, r)
}

// withCloud has a cloud in a folder of its own while f runs, and leaves nothing.
func withCloud(ctx context.Context, f func(*subject) error) (err error) {
	c, err := cloud.New()
	if err != nil {
		return err
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
		defer cancel()
		if err != nil {
			err = fmt.Errorf("%w; the cloud's log ends with:\n%s", err, c.LogTail(10))
		}
		err = errors.Join(err, c.Destroy(end))
	}()
	s, err := newSubject(ctx, c)
	if err != nil {
		return err
	}
	return f(s)
}

// say what is being done.
func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
