package user

import (
	"encoding/binary"
	"time"
)

const (
	maxFragmented   = 64 // packets of a port that are being sent in fragments
	fragmentTimeout = 30 * time.Second
)

// fragments remembers which fragmented packets of a port may pass: the first
// fragment decides, since it alone has the head. What comes before it, or
// reaches into it, is dropped, so that nothing can be put in the place of what
// was looked at. Only the port's reader uses it.
type fragments map[fragmentKey]fragmented

type fragmentKey struct {
	dst   [4]byte
	proto byte
	id    uint16
}

type fragmented struct {
	end   int // of the first fragment's data
	until time.Duration
}

func keyOf(ip packet) fragmentKey {
	return fragmentKey{[4]byte(ip[16:20]), ip.proto(), binary.BigEndian.Uint16(ip[4:6])}
}

// offset of a fragment's data in bytes; 0 for the first and what is whole.
func (p packet) offset() int { return int(binary.BigEndian.Uint16(p[6:8])&0x1fff) * 8 }

// follows says whether a later fragment passes.
func (s fragments) follows(ip packet, now time.Duration) bool {
	f, ok := s[keyOf(ip)]
	return ok && f.until > now && ip.offset() >= f.end
}

// decide what follows a first fragment.
func (s fragments) decide(ip packet, pass bool, now time.Duration) {
	key := keyOf(ip)
	delete(s, key)
	if !pass {
		return
	}
	if len(s) >= maxFragmented {
		s.forget(now)
	}
	s[key] = fragmented{len(ip.payload()), now + fragmentTimeout}
}

// forget what is over, and one in any case.
func (s fragments) forget(now time.Duration) {
	for key, f := range s {
		if f.until <= now {
			delete(s, key)
		}
	}
	for key := range s {
		if len(s) < maxFragmented {
			return
		}
		delete(s, key)
	}
}
