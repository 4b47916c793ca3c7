// Writer runs in a guest of endure_test.go: on each volume that it has it reads
// what is there (package stamp), and then writes blocks for ever, each by O_DSYNC or
// with an fsync behind it. What was read, and each write that was acknowledged, it
// says on the serial console, which outlives mallee and tells after QEMU's death all
// that the guest had said. Volumes may come and go.
//
// On the root disk it writes to a file.
package main

import (
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"mallee/test/stamp"
)

// pace is how long it rests after each write: guests are emulated, and others
// want the processor too.
const pace = 8 * time.Millisecond

func main() {
	tty, err := os.OpenFile("/dev/ttyS0", os.O_WRONLY|syscall.O_NOCTTY, 0)
	if err != nil {
		os.Exit(1)
	}
	c := &console{tty: tty}
	c.say(stamp.Line{Kind: stamp.Began})
	open := map[string]bool{} // by serial; false: its writer has given up
	ended := make(chan string)
	for {
		now := disks()
		for serial, path := range now {
			if _, known := open[serial]; !known {
				open[serial] = true
				go func() { c.use(serial, path); ended <- serial }()
			}
		}
		for serial, busy := range open {
			if _, there := now[serial]; !there && !busy {
				delete(open, serial) // it may come back
			}
		}
		select {
		case serial := <-ended:
			open[serial] = false
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// disks there are that are volumes, by serial: the device, or a file on the root.
func disks() map[string]string {
	found := map[string]string{}
	names, _ := filepath.Glob("/sys/block/vd*")
	for _, dir := range names {
		serial, err := os.ReadFile(dir + "/serial")
		if err != nil || !strings.HasPrefix(string(serial), "vol") {
			continue
		}
		name := filepath.Base(dir)
		path := "/dev/" + name
		if parts, _ := filepath.Glob(dir + "/" + name + "*"); len(parts) > 0 {
			path = "/root/stamps"
		}
		found[strings.TrimSpace(string(serial))] = path
	}
	return found
}

// console is the serial line, which all writers share.
type console struct {
	mu  sync.Mutex // guards tty, and keeps lines whole
	tty *os.File
}

func (c *console) say(l stamp.Line) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tty.WriteString(l.String() + "\n")
}

// volume that is written to.
type volume struct {
	*console
	serial       string
	synced       *os.File // by O_DSYNC
	plain        *os.File
	offset       func(int) int64
	aligned      []byte // a block, where O_DIRECT may have it
	seq          uint64 // the last one
	noise        *rand.Rand
	disappointed bool
}

// use a volume until that fails.
func (c *console) use(serial, path string) {
	v := &volume{console: c, serial: serial, offset: stamp.Offset, aligned: aligned(), noise: rand.New(rand.NewPCG(rand.Uint64(), 0))}
	flags := os.O_RDWR | syscall.O_DIRECT
	if !strings.HasPrefix(path, "/dev/") {
		flags |= os.O_CREATE
		v.offset = stamp.FileOffset
	}
	var err, errSynced error
	v.plain, err = os.OpenFile(path, flags, 0o600)
	v.synced, errSynced = os.OpenFile(path, flags|syscall.O_DSYNC, 0o600)
	if errors.Join(err, errSynced) == nil {
		v.scan()
		for !v.disappointed {
			v.write(v.noise.IntN(stamp.Blocks))
			time.Sleep(pace)
		}
	}
	v.plain.Close()
	v.synced.Close()
	c.say(stamp.Line{Kind: stamp.Failed, On: serial})
}

// aligned memory for O_DIRECT.
func aligned() []byte {
	p := make([]byte, 2*stamp.Size)
	past := int(uintptr(unsafe.Pointer(&p[0])) % stamp.Size)
	return p[stamp.Size-past:][:stamp.Size]
}

// scan says what each block holds, and finds with which number to go on: above what
// is there, and above what a guest before us may have lost, by the clock.
func (v *volume) scan() {
	v.seq = uint64(time.Now().UnixMicro())
	for block := range stamp.Blocks {
		l := stamp.Line{Kind: stamp.Found, On: v.serial, At: block}
		clear(v.aligned) // a file may be shorter
		if _, err := v.plain.ReadAt(v.aligned, v.offset(block)); err != nil && !errors.Is(err, io.EOF) {
			v.disappointed = true
			return
		}
		var err error
		if l.Stamp, err = stamp.Read(v.aligned); errors.Is(err, stamp.ErrEmpty) {
			l.Kind = stamp.Blank
		} else if err != nil {
			l.Kind = stamp.Damaged
		}
		v.seq = max(v.seq, l.Seq)
		v.say(l)
	}
	v.say(stamp.Line{Kind: stamp.Scanned, On: v.serial})
}

// write a block, and say so when it is acknowledged.
func (v *volume) write(block int) {
	v.seq++
	s := stamp.Stamp{Volume: v.serial, Block: block, Seq: v.seq}
	copy(v.aligned, s.Bytes())
	to := v.synced
	if v.seq%2 == 0 {
		to = v.plain
	}
	_, err := to.WriteAt(v.aligned, v.offset(block))
	if err == nil && to == v.plain {
		err = to.Sync()
	}
	if err != nil {
		v.disappointed = true
		return
	}
	v.say(stamp.Line{Kind: stamp.Wrote, On: v.serial, At: block, Stamp: s})
}
