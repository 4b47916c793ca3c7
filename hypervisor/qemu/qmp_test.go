package qemu

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const greeting = `{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": ["oob"]}}`

// peer is QEMU's end of a conversation, played by a test.
type peer struct {
	net.Conn
	lines *bufio.Scanner
}

func (p *peer) say(format string, args ...any) {
	fmt.Fprintf(p.Conn, format+"\r\n", args...)
}

// hear reads a command, and returns its id.
func (p *peer) hear(t *testing.T, command string) (id int) {
	t.Helper()
	if !p.lines.Scan() {
		t.Errorf("no %s: %v", command, p.lines.Err())
		return 0
	}
	want := fmt.Sprintf(`{"execute":%q,"id":%%d}`, command)
	if _, err := fmt.Sscanf(p.lines.Text(), want, &id); err != nil {
		t.Errorf("%s, want %s: %v", p.lines.Text(), want, err)
	}
	return id
}

// converse lets play be QEMU to what use does with a monitor that has begun.
func converse(t *testing.T, play func(*testing.T, *peer), use func(*testing.T, *monitor, <-chan event)) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		go func() {
			p := &peer{theirs, bufio.NewScanner(theirs)}
			p.lines.Scan() // capabilities
			p.say(greeting)
			p.say(`{"return": {}}`)
			play(t, p)
		}()
		events := make(chan event, 10)
		m, err := newMonitor(t.Context(), ours, func(e event) { events <- e })
		if err != nil {
			t.Fatal(err)
		}
		use(t, m, events)
		m.close()
		theirs.Close()
	})
}

func TestMonitor(t *testing.T) {
	converse(t, func(t *testing.T, p *peer) {
		id := p.hear(t, "query-status")
		p.say(`{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "STOP"}`)
		p.say(`{"return": {"status": "old"}, "id": %d}`, id-1)
		p.say(`{"return": {"status": "shutdown", "running": false}, "id": %d}`, id)
		p.say(`{"return": {"status": "twice"}, "id": %d}`, id)
		p.say(`{"error": {"class": "GenericError", "desc": "Resetting the Virtual Machine is required"}, "id": %d}`, p.hear(t, "cont"))
	}, func(t *testing.T, m *monitor, events <-chan event) {
		var status struct{ Status string }
		if err := m.execute(t.Context(), command{Name: "query-status"}, &status); err != nil || status.Status != "shutdown" {
			t.Errorf("query-status: %q, %v", status.Status, err)
		}
		if e := <-events; e.Name != "STOP" {
			t.Errorf("event %+v, want STOP", e)
		}
		err := m.execute(t.Context(), command{Name: "cont"}, nil)
		var refused *commandError
		if !errors.As(err, &refused) || refused.Class != "GenericError" || !strings.Contains(err.Error(), "Resetting") {
			t.Errorf("cont: %v, want QEMU's refusal", err)
		}
	})
}

func TestMonitorDeadline(t *testing.T) {
	converse(t, func(t *testing.T, p *peer) {
		late := p.hear(t, "query-status")
		id := p.hear(t, "query-name")
		p.say(`{"return": {"name": "late"}, "id": %d}`, late)
		p.say(`{"return": {"name": "right"}, "id": %d}`, id)
		p.hear(t, "stop")
	}, func(t *testing.T, m *monitor, _ <-chan event) {
		begin := time.Now()
		if err := m.execute(t.Context(), command{Name: "query-status"}, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("unanswered: %v, want the deadline", err)
		}
		if took := time.Since(begin); took != commandTimeout {
			t.Errorf("unanswered for %v, want %v", took, commandTimeout)
		}
		var name struct{ Name string }
		if err := m.execute(t.Context(), command{Name: "query-name"}, &name); err != nil || name.Name != "right" {
			t.Errorf("after it: %q, %v, want the right answer", name.Name, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if err := m.execute(ctx, command{Name: "stop"}, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	})
}

func TestMonitorHangsUp(t *testing.T) {
	for name, last := range map[string]string{
		"garbage":         "}{",
		"not an object":   "17",
		"nothing in it":   "{}",
		"a foreign id":    `{"return": {}, "id": "x"}`,
		"a line too long": strings.Repeat("x", maxLine+1),
		"silence":         "",
	} {
		t.Run(name, func(t *testing.T) {
			converse(t, func(t *testing.T, p *peer) {
				p.hear(t, "query-status")
				if last != "" {
					p.say("%s", last)
				}
				p.Close()
			}, func(t *testing.T, m *monitor, _ <-chan event) {
				begin := time.Now()
				if err := m.execute(t.Context(), command{Name: "query-status"}, nil); err == nil {
					t.Errorf("query-status succeeds")
				}
				<-m.done
				if err := m.execute(t.Context(), command{Name: "stop"}, nil); err == nil {
					t.Errorf("a command after it succeeds")
				}
				if took := time.Since(begin); took != 0 {
					t.Errorf("it took %v to notice", took)
				}
			})
		})
	}
}

func TestMonitorGreeting(t *testing.T) {
	for name, first := range map[string]string{
		"another protocol":    "SSH-2.0-OpenSSH_9.2",
		"a reply":             `{"return": {}}`,
		"an event":            `{"event": "STOP"}`,
		"silence":             "",
		"no capabilities":     greeting + "\r\n" + `{"error": {"class": "GenericError", "desc": "no"}}`,
		"an early event":      greeting + "\r\n" + `{"event": "STOP"}`,
		"a greeting alone":    greeting,
		"an endless greeting": strings.Repeat("x", maxLine+1),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				defer theirs.Close()
				go io.Copy(io.Discard, theirs)
				if first != "" {
					go fmt.Fprintf(theirs, "%s\r\n", first)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if m, err := newMonitor(ctx, ours, func(event) {}); err == nil {
					m.close()
					t.Errorf("newMonitor succeeds")
				}
			})
		})
	}
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		greeting,
		`{"return": {"status": "running", "singlestep": false, "running": true}, "id": 7}`,
		`{"error": {"class": "CommandNotFound", "desc": "The command x has not been found"}, "id": 8}`,
		`{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}`,
		`{"QMP": null}`, `[]`, ``,
	} {
		f.Add([]byte(seed))
	}
	m := &machine{log: discard, poke: func() {}, resets: make(chan struct{}, 1)}
	f.Fuzz(func(t *testing.T, line []byte) {
		got, err := decode(line)
		if err != nil {
			return
		}
		if got.Greeting == nil && got.Return == nil && got.Error == nil && got.Name == "" {
			t.Errorf("%q decodes to nothing", line)
		}
		m.event(got.event)
	})
}
