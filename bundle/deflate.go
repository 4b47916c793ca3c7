package bundle

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"sync"

	"github.com/klauspost/compress/flate"
)

// chunkSize is how much of the tar is compressed at a time. Chunks don't refer to each other, so that they compress in
// parallel and come out the same on any number of cores; at this size that costs a thousandth in space.
const chunkSize = 1 << 20

// maxWorkers bounds memory on machines of many cores, 4 MiB a worker; as many keep one encrypting goroutine busy.
const maxWorkers = 8

// gzipHeader: deflate, no name, no time, fastest, unknown system.
var gzipHeader = []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 0xff}

// gzipEnd is a final, empty deflate block.
var gzipEnd = []byte{0x03, 0x00}

// chunk is a stretch of the tar on its way through a compressor.
type chunk struct {
	in   []byte
	out  bytes.Buffer
	err  error
	done chan struct{} // gets one value when out and err are set
}

// deflater turns a stream into one gzip member with several goroutines: a reader that hashes, workers that
// compress, and the caller, who takes the chunks in order. All chunks there are circulate among them.
type deflater struct {
	in    io.Reader
	sum   hash.Hash // of what was read; the caller's to use once run has returned
	free  chan *chunk
	work  chan *chunk
	order chan *chunk

	crc     uint32 // of what was read, set by the reader
	size    uint32 // modulo 2³², as gzip has it
	readErr error  // set before order is closed

	zeros func() []byte // a compressed chunk of zeros: most of a disk image is empty
}

func newDeflater(in io.Reader, sum hash.Hash, workers int) *deflater {
	chunks := 2*workers + 2
	d := &deflater{
		in: in, sum: sum,
		free: make(chan *chunk, chunks), work: make(chan *chunk, chunks), order: make(chan *chunk, chunks),
		zeros: sync.OnceValue(compressedZeros),
	}
	for range chunks {
		c := &chunk{in: make([]byte, chunkSize), done: make(chan struct{}, 1)}
		c.out.Grow(chunkSize + chunkSize/256) // what can't be compressed grows by less
		d.free <- c
	}
	return d
}

// run compresses all of the input and hands the gzip stream to write, piece by piece, from this goroutine.
func (d *deflater) run(ctx context.Context, workers int, write func([]byte) error) error {
	ctx, cancel := context.WithCancel(ctx)
	var stages sync.WaitGroup
	defer stages.Wait()
	defer cancel()
	stages.Go(func() { d.read(ctx) })
	for range workers {
		stages.Go(d.compress)
	}
	if err := write(gzipHeader); err != nil {
		return err
	}
	for c := range d.order {
		<-c.done
		if c.err != nil {
			return c.err
		}
		if err := write(c.out.Bytes()); err != nil {
			return err
		}
		d.free <- c
	}
	if d.readErr != nil {
		return d.readErr
	}
	end := binary.LittleEndian.AppendUint32(gzipEnd[:2:2], d.crc)
	return write(binary.LittleEndian.AppendUint32(end, d.size))
}

// read cuts the input into chunks until it ends or the context does.
func (d *deflater) read(ctx context.Context) {
	defer close(d.order)
	defer close(d.work)
	for {
		select {
		case c := <-d.free:
			n, err := fill(d.in, c.in[:chunkSize])
			c.in = c.in[:n]
			d.sum.Write(c.in)
			d.crc = crc32.Update(d.crc, crc32.IEEETable, c.in)
			d.size += uint32(n)
			d.work <- c
			d.order <- c
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				d.readErr = fmt.Errorf("read image: %w", err)
				return
			}
		case <-ctx.Done():
			d.readErr = context.Cause(ctx)
			return
		}
	}
}

// compress is one worker.
func (d *deflater) compress() {
	var w *flate.Writer
	for c := range d.work {
		c.out.Reset()
		if isZeros(c.in) && len(c.in) == chunkSize {
			c.out.Write(d.zeros())
		} else {
			w, c.err = deflateChunk(w, &c.out, c.in)
		}
		c.done <- struct{}{}
	}
}

// deflateChunk compresses one chunk so that the next can follow it at a byte's border. It makes w if that is nil.
func deflateChunk(w *flate.Writer, out io.Writer, in []byte) (_ *flate.Writer, err error) {
	if w == nil {
		w, err = flate.NewWriter(out, flate.BestSpeed)
	} else {
		w.Reset(out)
	}
	if err == nil {
		_, err = w.Write(in)
	}
	if err == nil {
		err = w.Flush()
	}
	return w, err
}

func compressedZeros() []byte {
	var out bytes.Buffer
	if _, err := deflateChunk(nil, &out, zeroChunk[:]); err != nil {
		panic(err) // neither the level nor a bytes.Buffer fails
	}
	return out.Bytes()
}

var zeroChunk [chunkSize]byte

func isZeros(p []byte) bool { return bytes.Equal(p, zeroChunk[:len(p)]) }
