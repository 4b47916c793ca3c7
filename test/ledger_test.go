package test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"mallee/test/stamp"
)

// ledger holds what a guest was told of its volumes, and judges what they hold
// later by one rule: a block has the last write that was acknowledged, or one that
// was begun after it; never an older one, and never what belongs elsewhere.
type ledger struct {
	mu      sync.Mutex // guards all
	books   map[string]*book
	begun   int // writers, one a boot
	garbled int // lines that the console spoiled
	wrong   []error
}

// book of one volume.
type book struct {
	floors  floors
	base    map[int]stamp.Stamp // of the snapshot that it was made from
	scanned int                 // how often it was read from its first block to its last
	wrote   int
	failed  int
}

// floors are the lowest sequence numbers that blocks may have; 0: none yet.
type floors [stamp.Blocks]uint64

func newLedger() *ledger { return &ledger{books: map[string]*book{}} }

// of a volume. mu is held.
func (l *ledger) of(serial string) *book {
	if l.books[serial] == nil {
		l.books[serial] = &book{}
	}
	return l.books[serial]
}

// note what a guest has said.
func (l *ledger) note(line stamp.Line) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.of(line.On)
	var err error
	switch line.Kind {
	case stamp.Began:
		l.begun++
	case stamp.Wrote:
		b.wrote++
		b.floors[line.At] = line.Seq
	case stamp.Found:
		if err = b.judge(line.On, line.At, line.Stamp, nil); err == nil && line.Volume == line.On {
			b.floors[line.At] = line.Seq // what was read once must stay too
		}
	case stamp.Blank:
		err = b.judge(line.On, line.At, stamp.Stamp{}, stamp.ErrEmpty)
	case stamp.Damaged:
		err = b.judge(line.On, line.At, stamp.Stamp{}, errors.New("it is damaged"))
	case stamp.Scanned:
		b.scanned++
	case stamp.Failed:
		b.failed++
	}
	if err != nil {
		l.wrong = append(l.wrong, fmt.Errorf("a guest reads: %w", err))
	}
}

// judge what a block of the volume holds.
func (b *book) judge(serial string, block int, s stamp.Stamp, damage error) error {
	floor := b.floors[block]
	base, based := b.base[block]
	switch {
	case errors.Is(damage, stamp.ErrEmpty) && floor == 0 && !based:
		return nil
	case damage == nil && s.Block == block && s.Volume == serial && s.Seq >= floor:
		return nil
	case damage == nil && based && floor == 0 && s == base:
		return nil
	case damage == nil:
		damage = fmt.Errorf("it holds %+v", s)
	}
	return fmt.Errorf("block %d of %s: %w; the last that was acknowledged is %d, and its snapshot had %+v", block, serial, damage, floor, base)
}

// judgeAll of a snapshot of the volume, by floors that held before it was asked
// for. What its blocks hold is returned.
func (l *ledger) judgeAll(serial string, at floors, read func(offset int64) []byte) (map[int]stamp.Stamp, error) {
	l.mu.Lock()
	then := book{floors: at, base: l.of(serial).base}
	l.mu.Unlock()
	held := map[int]stamp.Stamp{}
	var errs []error
	for block := range stamp.Blocks {
		s, err := stamp.Read(read(stamp.Offset(block)))
		if err == nil {
			held[block] = s
		}
		errs = append(errs, then.judge(serial, block, s, err))
	}
	return held, errors.Join(errs...)
}

// from tells of a volume what it was made from.
func (l *ledger) from(serial string, base map[int]stamp.Stamp) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of(serial).base = base
}

// look at a volume's book.
func (l *ledger) look(serial string) book {
	l.mu.Lock()
	defer l.mu.Unlock()
	return *l.of(serial)
}

// total of what was acknowledged.
func (l *ledger) total() (wrote, scanned int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.books {
		wrote, scanned = wrote+b.wrote, scanned+b.scanned
	}
	return wrote, scanned
}

func (l *ledger) verdict() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.wrong...)
}

// listener follows an instance's console where QEMU writes it, which needs no
// mallee. Each start of a stopped instance begins another file; what was said into
// the one before is heard to its end.
type listener struct {
	path   string
	ledger *ledger

	mu   sync.Mutex // guards what follows
	file *os.File
	text *bufio.Reader
	rest string // a line that is not whole yet
}

// listen until stop is closed.
func (c *listener) listen(stop <-chan struct{}) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			c.hear()
		}
	}
}

// hear all that was said so far.
func (c *listener) hear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read()
	now, err := os.Stat(c.path)
	if err != nil {
		return // it has none now
	}
	if c.file != nil {
		if was, err := c.file.Stat(); err == nil && os.SameFile(was, now) {
			return
		}
		c.read()
		c.file.Close()
	}
	if c.file, err = os.Open(c.path); err == nil {
		c.text, c.rest = bufio.NewReader(c.file), ""
		c.read()
	}
}

func (c *listener) read() {
	for c.file != nil {
		text, err := c.text.ReadString('\n')
		c.rest += text
		if errors.Is(err, io.EOF) || err != nil {
			return
		}
		if line, ok := stamp.Parse(c.rest); ok {
			c.ledger.note(line)
		} else if strings.Contains(c.rest, " vol") {
			c.ledger.spoiled()
		}
		c.rest = ""
	}
}

func (l *ledger) spoiled() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.garbled++
}

// TestLedger: what must not be is found, whatever it is.
func TestLedger(t *testing.T) {
	const volume, parent = "vol00000001", "vol00000002"
	wrote := func(at int, seq uint64) stamp.Line {
		return stamp.Line{Kind: stamp.Wrote, On: volume, At: at, Stamp: stamp.Stamp{Volume: volume, Block: at, Seq: seq}}
	}
	found := func(of string, block int, seq uint64) stamp.Line {
		return stamp.Line{Kind: stamp.Found, On: volume, At: 1, Stamp: stamp.Stamp{Volume: of, Block: block, Seq: seq}}
	}
	nothing := stamp.Line{Kind: stamp.Blank, On: volume, At: 1}
	for _, test := range []struct {
		name  string
		based bool
		said  []stamp.Line
		right bool
	}{
		{"the last write", false, []stamp.Line{wrote(1, 5), found(volume, 1, 5)}, true},
		{"one that was begun after it", false, []stamp.Line{wrote(1, 5), found(volume, 1, 6)}, true},
		{"an older one", false, []stamp.Line{wrote(1, 4), wrote(1, 5), found(volume, 1, 4)}, false},
		{"one that was there, and is gone", false, []stamp.Line{found(volume, 1, 6), found(volume, 1, 5)}, false},
		{"nothing, where nothing was", false, []stamp.Line{wrote(2, 5), nothing}, true},
		{"nothing, where something was", false, []stamp.Line{wrote(1, 5), nothing}, false},
		{"another block", false, []stamp.Line{found(volume, 2, 9)}, false},
		{"another volume's", false, []stamp.Line{found(parent, 1, 9)}, false},
		{"damage", false, []stamp.Line{{Kind: stamp.Damaged, On: volume, At: 1}}, false},
		{"its snapshot's", true, []stamp.Line{found(parent, 1, 3)}, true},
		{"not its snapshot's", true, []stamp.Line{found(parent, 1, 4)}, false},
		{"its snapshot's, after a write", true, []stamp.Line{wrote(1, 5), found(parent, 1, 3)}, false},
		{"nothing, where its snapshot had something", true, []stamp.Line{nothing}, false},
	} {
		l := newLedger()
		if test.based {
			l.from(volume, map[int]stamp.Stamp{1: {Volume: parent, Block: 1, Seq: 3}})
		}
		for _, line := range test.said {
			l.note(line)
		}
		if err := l.verdict(); (err == nil) != test.right {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}
