package snapshot

import (
	"encoding/binary"
	"math/rand/v2"
	"sync/atomic"
)

// filter is a set of digests in fixed memory (a Bloom filter): what was added is
// in it, and some of what was not may be too. Which ones differs from filter to
// filter. Its methods may be called at once.
type filter struct {
	bits  []uint64
	shift int
	odd   uint64 // spreads digests, which are spread evenly already, otherwise in each filter
}

// newFilter has 2^order bits.
func newFilter(order int) *filter {
	return &filter{bits: make([]uint64, 1<<order/64), shift: 64 - order, odd: rand.Uint64() | 1}
}

// places of a digest, one from each quarter of it.
func (f *filter) places(d Digest) [4]uint64 {
	var out [4]uint64
	for i := range out {
		out[i] = binary.BigEndian.Uint64(d[8*i:]) * f.odd >> f.shift
	}
	return out
}

func (f *filter) add(d Digest) {
	for _, p := range f.places(d) {
		atomic.OrUint64(&f.bits[p/64], 1<<(p%64))
	}
}

func (f *filter) has(d Digest) bool {
	for _, p := range f.places(d) {
		if atomic.LoadUint64(&f.bits[p/64])&(1<<(p%64)) == 0 {
			return false
		}
	}
	return true
}
