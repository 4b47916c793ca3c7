package user

import (
	"context"
	"io"
	"sync"
)

// flowKind tells apart what is counted apart.
type flowKind int

const (
	tcpFlow flowKind = iota
	udpFlow
	queryFlow
	flowKinds
)

// maxFlows of a port, by kind. Connections above roomyFlows get small buffers:
// together with those of stack.go this bounds what a hostile guest can make this
// process hold, to some 200 MiB where all of it is filled.
var maxFlows = [flowKinds]int{tcpFlow: 512, udpFlow: 512, queryFlow: maxQueries}

const roomyFlows = 64

// flow is one conversation that this process holds open for a port: what it
// consists of is closed when it ends, or when the port does.
type flow struct {
	ctx    context.Context // done when the flow has ended
	cancel context.CancelFunc
	kind   flowKind
	roomy  bool // there were few when it began
	set    *flowSet

	mu    sync.Mutex // guards what follows
	ended bool
	parts []io.Closer
}

// flowSet holds the flows of a port.
type flowSet struct {
	mu     sync.Mutex // guards what follows
	closed bool
	open   map[*flow]struct{}
	count  [flowKinds]int
}

// begin a flow; nil if the port has too many, or is gone.
func (s *flowSet) begin(kind flowKind) *flow {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.count[kind] >= maxFlows[kind] {
		return nil
	}
	f := &flow{kind: kind, roomy: s.count[kind] < roomyFlows, set: s}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	if s.open == nil {
		s.open = map[*flow]struct{}{}
	}
	s.open[f] = struct{}{}
	s.count[kind]++
	return f
}

// close ends all flows and lets none begin.
func (s *flowSet) close() {
	s.mu.Lock()
	s.closed = true
	var open []*flow
	for f := range s.open {
		open = append(open, f)
	}
	s.mu.Unlock()
	for _, f := range open {
		f.end()
	}
}

// hold c until the flow ends, which may be now.
func (f *flow) hold(c io.Closer) {
	f.mu.Lock()
	ended := f.ended
	if !ended {
		f.parts = append(f.parts, c)
	}
	f.mu.Unlock()
	if ended {
		c.Close()
	}
}

// end closes all that the flow holds. Ending it again does nothing.
func (f *flow) end() {
	f.mu.Lock()
	if f.ended {
		f.mu.Unlock()
		return
	}
	f.ended = true
	parts := f.parts
	f.parts = nil
	f.mu.Unlock()

	f.cancel()
	for _, c := range parts {
		c.Close()
	}
	f.set.mu.Lock()
	defer f.set.mu.Unlock()
	delete(f.set.open, f)
	f.set.count[f.kind]--
}
