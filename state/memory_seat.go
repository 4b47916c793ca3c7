package state

import "context"

// memorySeat is a leadership on a Memory. Its lease ends when its Store does,
// or by Depose.
type memorySeat struct {
	link *memoryLink
	key  fence
	gone chan struct{}
}

func (l *memoryLink) campaign(ctx context.Context, name, _ string) (seat, error) {
	for {
		s, vacated, err := l.sit(name)
		if s != nil || err != nil {
			return s, err
		}
		select {
		case <-vacated:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// sit takes the seat, or says what to wait for.
func (l *memoryLink) sit(name string) (seat, <-chan struct{}, error) {
	m := l.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if l.dead {
		return nil, nil, ErrClosed
	}
	if m.seats[name] != nil {
		return nil, m.vacated, nil
	}
	m.rev++
	s := &memorySeat{link: l, key: fence{name, m.rev}, gone: make(chan struct{})}
	m.seats[name] = s
	return s, nil, nil
}

func (s *memorySeat) fence() *fence         { return &s.key }
func (s *memorySeat) lost() <-chan struct{} { return s.gone }

func (s *memorySeat) resign(context.Context) error {
	s.link.m.mu.Lock()
	defer s.link.m.mu.Unlock()
	s.vacate()
	return nil
}

// vacate frees the seat if it is still held; the Memory's mu is held.
func (s *memorySeat) vacate() {
	m := s.link.m
	if m.seats[s.key.key] != s {
		return
	}
	delete(m.seats, s.key.key)
	close(s.gone)
	close(m.vacated)
	m.vacated = make(chan struct{})
}
