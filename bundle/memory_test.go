package bundle

import (
	"context"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// stretch is an image of any size: noise for its first half, then zeros, as the one and the other fill memory differently.
type stretch struct{ at, size int64 }

var noise = sync.OnceValue(func() []byte {
	p := make([]byte, chunkSize)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(p)
	return p
})

func (s *stretch) Read(p []byte) (int, error) {
	if s.at == s.size {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), s.size-s.at)]
	clear(p)
	if s.at < s.size/2 {
		copy(p, noise())
	}
	s.at += int64(len(p))
	return len(p), nil
}

// heap watches the most that is in use while something runs.
type heap struct{ base, peak atomic.Uint64 }

func (h *heap) look() {
	var now runtime.MemStats
	runtime.ReadMemStats(&now)
	h.peak.Store(max(h.peak.Load(), now.HeapInuse))
}

func (h *heap) start() {
	runtime.GC()
	var now runtime.MemStats
	runtime.ReadMemStats(&now)
	h.base.Store(now.HeapInuse)
	h.peak.Store(now.HeapInuse)
}

func (h *heap) growth() int64 { return int64(h.peak.Load()) - int64(h.base.Load()) }

// pipeStore hands each part straight from Write to Unpack, so that no part is ever in memory.
type pipeStore struct {
	parts chan *io.PipeReader
	look  func()
}

func (p *pipeStore) sink(_ context.Context, name string) (PartWriter, error) {
	p.look()
	r, w := io.Pipe()
	p.parts <- r
	return w, nil
}

// The bundle of a large image is written without the memory that even one tenth of it would take.
func TestMemoryOfWrite(t *testing.T) {
	const size, ceiling = memorySize, 32 << 20
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2)) // each core takes its 4 MiB
	var h heap
	p := &pipeStore{parts: make(chan *io.PipeReader, 1), look: h.look}
	drained := make(chan int64)
	go func() {
		var total int64
		for part := range p.parts {
			n, _ := io.Copy(io.Discard, part)
			total += n
		}
		drained <- total
	}()
	options := testOptions()
	options.PartSize = 1 << 20
	options.Progress = func(done, _ int64) {
		if done%(8<<20) < 1<<20 {
			h.look()
		}
	}
	h.start()
	m, _, err := Write(t.Context(), &stretch{size: size}, size, options, p.sink)
	close(p.parts)
	if total := <-drained; err != nil || total != m.BundledSize {
		t.Fatalf("%d bytes, %v", total, err)
	}
	if h.growth() > ceiling {
		t.Errorf("%d MiB of heap for an image of %d", h.growth()>>20, size>>20)
	}
	t.Logf("%d KiB of heap", h.growth()>>10)
}

// The same on the way back.
func TestMemoryOfUnpack(t *testing.T) {
	const size, ceiling = memorySize, 24 << 20
	dir := t.TempDir()
	m, _, err := WriteDir(t.Context(), dir, &stretch{size: size}, size, testOptions())
	if err != nil {
		t.Fatal(err)
	}
	var h heap
	h.start()
	err = UnpackDir(t.Context(), m, dir, testKey, testIV, io.Discard, func(done, _ int64) {
		if done%(8<<20) < bufferSize {
			h.look()
		}
	})
	if err != nil || h.growth() > ceiling {
		t.Errorf("%d MiB of heap for an image of %d, %v", h.growth()>>20, size>>20, err)
	}
	t.Logf("%d KiB of heap", h.growth()>>10)
}
