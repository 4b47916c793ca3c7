package user

import (
	"sync"
	"sync/atomic"
	"time"
)

// What a port's guard remembers, and for how long: EC2's times.
const (
	maxTracks     = 8192
	evictionTries = 16 // how many are looked at to make room for one

	tcpEstablished = 5 * 24 * time.Hour
	tcpClosing     = time.Minute
	udpStream      = 3 * time.Minute
	unanswered     = 30 * time.Second
	idleEnough     = 350 * time.Second // to make room for another
	sweeping       = time.Minute

	// adoption is how long after a start of this program connections between
	// guests that began before it are taken for what they look like.
	adoption = 5 * time.Minute
)

// law is what all guards obey.
type law struct {
	rules atomic.Pointer[ruleSet]
	epoch atomic.Uint64 // counts changes; after them
	start time.Time
}

func newLaw() *law {
	l := &law{start: time.Now()}
	l.rules.Store(&ruleSet{})
	return l
}

// enact other rules.
func (l *law) enact(set *ruleSet) {
	l.rules.Store(set)
	l.epoch.Add(1)
}

// now is monotonic.
func (l *law) now() time.Duration { return time.Since(l.start) }

// guard lets pass what a port may send and receive: what its groups' rules
// allow to begin, and what belongs to that.
type guard struct {
	law     *law
	network string
	groups  atomic.Pointer[[]string] // nil: nobody governs the port
	adopt   time.Duration            // until then, by law.now

	mu     sync.Mutex // guards what follows, and what is in it
	tracks map[tuple]*track
	swept  time.Duration // when what had aged was removed
}

// track is a flow that was allowed.
type track struct {
	asked    question // by which it began
	open     bool     // EC2 would not track it
	epoch    uint64   // of the rules that allowed it
	answered bool
	fins     byte // directions that have said all: 1 in, 2 out
	seen     time.Duration
	until    time.Duration
}

func newGuard(l *law, network string) *guard {
	return &guard{law: l, network: network, tracks: map[tuple]*track{}}
}

// obey other groups.
func (g *guard) obey(groups []string) {
	if groups == nil {
		g.groups.Store(nil)
	} else {
		g.groups.Store(&groups)
	}
	g.law.epoch.Add(1)
}

func (g *guard) governed() bool { return g.groups.Load() != nil }

// judge by the rules of now.
func (g *guard) judge(q question) verdict {
	groups := g.groups.Load()
	if groups == nil {
		return allowed
	}
	return g.law.rules.Load().judge(*groups, g.network, q)
}

// pass says whether a packet passes, whose head is read, and remembers what it
// begins.
func (g *guard) pass(ip packet, h head, ingress bool, now time.Duration) bool {
	if !g.governed() {
		return true
	}
	epoch := g.law.epoch.Load() // before the rules are looked at
	g.mu.Lock()
	defer g.mu.Unlock()
	key, tracked := h.tuple(ingress)
	if !tracked {
		return g.related(ip, h, ingress, now) || g.judge(h.question(ingress)) > refused
	}
	t := g.tracks[key]
	if t != nil && t.until > now && !h.begins() && g.still(key, t, epoch) {
		t.see(h, ingress, now)
		return true
	}
	asked := h.question(ingress)
	v := g.judge(asked)
	if v == refused && now < g.adopt && h.midstream() {
		asked = h.reverse(ingress)
		v = g.judge(asked)
	}
	if v == refused || h.answer() {
		return v > refused
	}
	return g.track(key, &track{asked: asked, open: v == allowedOpen, epoch: epoch}, h, ingress, now)
}

// still says whether a flow goes on: one that EC2 doesn't track only as long as
// it could begin. The caller holds mu.
func (g *guard) still(key tuple, t *track, epoch uint64) bool {
	if !t.open || t.epoch == epoch {
		return true
	}
	v := g.judge(t.asked)
	if v == refused {
		delete(g.tracks, key)
		return false
	}
	t.open, t.epoch = v == allowedOpen, epoch
	return true
}

// related says whether an ICMP error is about a flow of the port's, and comes
// from (goes to) the flow's peer. The caller holds mu.
func (g *guard) related(ip packet, h head, ingress bool, now time.Duration) bool {
	quote, ok := readQuote(ip)
	if !ok || ip.fragment() || quote.src != h.dst || quote.dst != h.src {
		return false
	}
	key, ok := quote.tuple(!ingress)
	t := g.tracks[key]
	return ok && t != nil && t.until > now && g.still(key, t, g.law.epoch.Load())
}

// track a flow if there is room for it: else it may not begin. The caller
// holds mu.
func (g *guard) track(key tuple, t *track, h head, ingress bool, now time.Duration) bool {
	if now-g.swept > sweeping {
		g.sweep(now)
	}
	if g.tracks[key] == nil && len(g.tracks) >= maxTracks && !g.evict(now) {
		return false
	}
	t.see(h, ingress, now)
	g.tracks[key] = t
	return true
}

// evict a flow that matters less than a new one: among some, one that is over,
// was never answered or is closing, or the one that was idle for the longest. The
// caller holds mu.
func (g *guard) evict(now time.Duration) bool {
	var oldest tuple
	seen, tries := now-idleEnough, 0
	for key, t := range g.tracks { // as good as random
		if t.until <= now || !t.answered || t.fins != 0 {
			delete(g.tracks, key)
			return true
		}
		if t.seen < seen {
			oldest, seen = key, t.seen
		}
		if tries++; tries == evictionTries {
			break
		}
	}
	_, found := g.tracks[oldest]
	delete(g.tracks, oldest)
	return found
}

// sweep out what has aged. The caller holds mu.
func (g *guard) sweep(now time.Duration) {
	g.swept = now
	for key, t := range g.tracks {
		if t.until <= now {
			delete(g.tracks, key)
		}
	}
}

// see a packet of the flow, and say how long it is remembered now.
func (t *track) see(h head, ingress bool, now time.Duration) {
	if ingress != t.asked.ingress || h.unheard {
		t.answered = true
	}
	if h.flags&tcpFIN != 0 {
		t.fins |= fin(ingress)
	}
	if h.flags&tcpRST != 0 {
		t.fins = 3
	}
	t.seen, t.until = now, now+t.lasts()
}

func fin(ingress bool) byte {
	if ingress {
		return 1
	}
	return 2
}

// lasts says how long a flow is remembered without a packet.
func (t *track) lasts() time.Duration {
	switch {
	case t.fins == 3:
		return tcpClosing
	case !t.answered:
		return unanswered
	case t.asked.proto == protoTCP:
		return tcpEstablished
	case t.asked.proto == protoUDP:
		return udpStream
	}
	return unanswered
}
