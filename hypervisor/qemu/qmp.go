package qemu

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"
)

const (
	// A line of QMP that is longer is not one that we asked for. QEMU's longest
	// answers to what we ask are about its block nodes, some KiB a disk.
	maxLine = 1 << 20

	// How long QEMU may take over one command at most. Its main loop answers
	// within a millisecond, unless the host or its disks are in trouble.
	commandTimeout = 5 * time.Second

	// How long a command may take that waits for the disks' requests to end, or
	// for a server. What such a command began goes on when we give up.
	storageTimeout = 30 * time.Second
)

// monitor is a conversation in QMP, the QEMU Machine Protocol: a JSON object a
// line. QEMU talks to one client at a time, so that commands and events of a
// machine share one monitor. Source: QEMU's docs/interop/qmp-spec.txt.
type monitor struct {
	conn    net.Conn
	onEvent func(event) // called by the reader, must not block

	// The reply that is waited for. Others come too late: their command has
	// given up.
	want    atomic.Uint64
	replies chan message // has room for that one reply

	turn chan struct{} // has room for the command that waits for its reply

	done chan struct{} // closed when the conversation is over
	err  error         // why; written before done is closed
}

// message is a line from QEMU; which fields are there tells what it is.
type message struct {
	Greeting json.RawMessage `json:"QMP"`
	Return   json.RawMessage `json:"return"`
	Error    *commandError   `json:"error"`
	ID       uint64          `json:"id"`
	event
}

type event struct {
	Name string          `json:"event"`
	Data json.RawMessage `json:"data"`
}

// commandError is QEMU's refusal of a command.
type commandError struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

func (e *commandError) Error() string { return "QEMU refuses: " + e.Desc }

func decode(line []byte) (message, error) {
	var m message
	if err := json.Unmarshal(line, &m); err != nil {
		return message{}, fmt.Errorf("QEMU's monitor says %.80q: %w", line, err)
	}
	if m.Greeting == nil && m.Return == nil && m.Error == nil && m.Name == "" {
		return message{}, fmt.Errorf("QEMU's monitor says %.80q: neither greeting, reply nor event", line)
	}
	return m, nil
}

// newMonitor begins the conversation, and returns when QEMU takes part in it.
// It owns conn, also when it fails.
func newMonitor(ctx context.Context, conn net.Conn, onEvent func(event)) (*monitor, error) {
	m := &monitor{
		conn:    conn,
		onEvent: onEvent,
		replies: make(chan message, 1),
		turn:    make(chan struct{}, 1),
		done:    make(chan struct{}),
	}
	lines := bufio.NewScanner(conn)
	lines.Buffer(make([]byte, 512), maxLine)
	if err := m.greet(ctx, lines); err != nil {
		conn.Close()
		return nil, err
	}
	go m.read(lines)
	return m, nil
}

// greet leads QEMU into command mode. It says so first, and needs no second
// turn when QEMU is there. That QEMU answers, beyond its greeting, means that its main
// loop runs, and so does the machine.
func (m *monitor) greet(ctx context.Context, lines *bufio.Scanner) error {
	stop := context.AfterFunc(ctx, func() { m.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	err := m.exchangeGreetings(lines)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("waiting for QEMU's greeting: %w", err)
	}
	return nil
}

func (m *monitor) exchangeGreetings(lines *bufio.Scanner) error {
	if _, err := m.conn.Write([]byte(`{"execute":"qmp_capabilities"}` + "\n")); err != nil {
		return err
	}
	first, err := next(lines)
	if err != nil {
		return err
	}
	if first.Greeting == nil {
		return errors.New("something else came")
	}
	second, err := next(lines)
	switch {
	case err != nil:
		return err
	case second.Error != nil:
		return second.Error
	case second.Return == nil:
		return errors.New("something else came after it")
	}
	return nil
}

var errHungUp = errors.New("QEMU hung up")

func next(lines *bufio.Scanner) (message, error) {
	if lines.Scan() {
		return decode(lines.Bytes())
	}
	if err := lines.Err(); err != nil {
		return message{}, err
	}
	return message{}, errHungUp
}

// read hands on what QEMU says until it hangs up or talks nonsense.
func (m *monitor) read(lines *bufio.Scanner) {
	for {
		line, err := next(lines)
		if err != nil {
			m.err = err
			m.conn.Close()
			close(m.done)
			return
		}
		switch {
		case line.Name != "":
			m.onEvent(line.event)
		case line.ID == m.want.Load():
			select {
			case m.replies <- line:
			default: // said twice; the first counts
			}
		}
	}
}

// command is one in QMP's words.
type command struct {
	Name      string        `json:"execute"`
	ID        uint64        `json:"id"`
	Arguments arguments     `json:"arguments,omitempty"`
	Limit     time.Duration `json:"-"` // how long it may take; commandTimeout if zero
}

// arguments are a JSON object, QEMU's for a command or for what it makes.
type arguments map[string]any

// execute runs a command and decodes its answer into result, unless that is
// nil. Safe for concurrent use; commands take their turn.
func (m *monitor) execute(ctx context.Context, c command, result any) error {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(c.Limit, commandTimeout))
	defer cancel()
	reply, err := m.roundTrip(ctx, c)
	if err == nil && reply.Error != nil {
		err = reply.Error
	}
	if err == nil && result != nil {
		err = json.Unmarshal(reply.Return, result)
	}
	if err != nil {
		return fmt.Errorf("QMP command %s: %w", c.Name, err)
	}
	return nil
}

func (m *monitor) roundTrip(ctx context.Context, c command) (message, error) {
	select {
	case m.turn <- struct{}{}:
		defer func() { <-m.turn }()
	case <-ctx.Done():
		return message{}, context.Cause(ctx)
	}
	c.ID = m.want.Add(1)
	select {
	case <-m.replies: // of a command that gave up
	default:
	}
	line, err := json.Marshal(c)
	if err != nil {
		return message{}, err
	}
	deadline, _ := ctx.Deadline() // execute set one
	m.conn.SetWriteDeadline(deadline)
	if _, err := m.conn.Write(append(line, '\n')); err != nil {
		return message{}, err
	}
	select {
	case reply := <-m.replies:
		return reply, nil
	case <-m.done:
		return message{}, m.err
	case <-ctx.Done():
		return message{}, context.Cause(ctx)
	}
}

// close hangs up and waits until the reader is done.
func (m *monitor) close() {
	m.conn.Close()
	<-m.done
}
