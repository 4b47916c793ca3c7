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
	pingFlow
	flowKinds
)

// maxFlows of a port, by kind. Connections above roomyFlows get small buffers:
// together with those of stack.go this bounds what a hostile guest can make this
// process hold, to some 200 MiB where all of it is filled.
var maxFlows = [flowKinds]int{tcpFlow: 512, udpFlow: 512, queryFlow: maxQueries, pingFlow: 32}

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
	asked question     // by which the rules let it begin
	open  bool         // EC2 doesn't track it
	via   *publication // nil for one that the guest began
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
	s.mu.Unlock()
	s.endWhere(func(*flow) bool { return true })
}

// ask the rules whether the flow may begin. If they change later, recheck asks
// again.
func (f *flow) ask(g *guard, q question, via *publication) verdict {
	f.mu.Lock()
	f.asked, f.via, f.open = q, via, true
	f.mu.Unlock()
	return f.askAgain(g)
}

func (f *flow) askAgain(g *guard) verdict {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.open {
		return allowed
	}
	v := g.judge(f.asked)
	f.open = v == allowedOpen
	return v
}

// through says whether the flow came in by a publication.
func (f *flow) through(pub *publication) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.via == pub
}

// endWhere ends the flows that which accepts.
func (s *flowSet) endWhere(which func(*flow) bool) {
	s.mu.Lock()
	var open []*flow
	for f := range s.open {
		open = append(open, f)
	}
	s.mu.Unlock()
	for _, f := range open {
		if which(f) {
			f.end()
		}
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
