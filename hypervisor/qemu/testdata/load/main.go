// Command load reads from or writes to a disk, past the guest's page cache, and
// prints how many operations a second it did: fio's psync engine with direct=1,
// in a program that runs in a guest without libraries.
package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"syscall"
	"time"
)

// pattern of operations, one after the other.
type pattern struct {
	size           int
	random, writes bool
	flags          int
}

var patterns = map[string]pattern{
	"random-read":      {size: 4 << 10, random: true},
	"random-write":     {size: 4 << 10, random: true, writes: true},
	"sequential-read":  {size: 1 << 20},
	"sequential-write": {size: 1 << 20, writes: true},
	"sync-write":       {size: 4 << 10, random: true, writes: true, flags: syscall.O_DSYNC},
}

func main() {
	if len(os.Args) != 4 {
		fail(fmt.Errorf("usage: load DEVICE PATTERN MILLISECONDS|all"))
	}
	p, ok := patterns[os.Args[2]]
	if !ok {
		fail(fmt.Errorf("pattern %q", os.Args[2]))
	}
	rate, err := run(os.Args[1], p, os.Args[3])
	if err != nil {
		fail(err)
	}
	fmt.Printf("%.3f\n", rate)
}

func run(device string, p pattern, length string) (rate float64, err error) {
	f, err := os.OpenFile(device, os.O_RDWR|syscall.O_DIRECT|p.flags, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	end, err := f.Seek(0, 2)
	if err != nil {
		return 0, err
	}
	page, err := syscall.Mmap(-1, 0, p.size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE) // aligned, as O_DIRECT wants
	if err != nil {
		return 0, err
	}
	for i := range page {
		page[i] = byte(i*7 + 1)
	}
	places, limit, most := end/int64(p.size), time.Duration(1<<62), int64(1)<<62
	if length == "all" {
		most = places
	} else if limit, err = time.ParseDuration(length + "ms"); err != nil {
		return 0, fmt.Errorf("%s: %w", strconv.Quote(length), err)
	}
	return p.repeat(f, page, places, limit, most)
}

func (p pattern) repeat(f *os.File, page []byte, places int64, limit time.Duration, most int64) (rate float64, err error) {
	begun, n := time.Now(), int64(0)
	for ; n < most && time.Since(begun) < limit; n++ {
		place := n % places
		if p.random {
			place = rand.Int64N(places)
		}
		if p.writes {
			_, err = f.WriteAt(page, place*int64(p.size))
		} else {
			_, err = f.ReadAt(page, place*int64(p.size))
		}
		if err != nil {
			return 0, err
		}
	}
	return float64(n) / time.Since(begun).Seconds(), nil
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "load:", err)
	os.Exit(1)
}
