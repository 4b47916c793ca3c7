package state

// Watch wakes a loop after commits. Wake-ups coalesce: one that waits in C
// stands for any number, so read the state after receiving, not before.
type Watch struct {
	C      <-chan struct{}
	wake   chan struct{}
	mirror *mirror
	tables map[*tableInfo]bool // empty for all
}

// Watch starts one that wakes for changes of the tables named, or of any.
func (s *Store) Watch(of ...AnyTable) *Watch {
	wake := make(chan struct{}, 1)
	w := &Watch{C: wake, wake: wake, mirror: s.mirror, tables: map[*tableInfo]bool{}}
	for _, t := range of {
		w.tables[t.tableInfo()] = true
	}
	s.mirror.mu.Lock()
	defer s.mirror.mu.Unlock()
	s.mirror.watches[w] = struct{}{}
	return w
}

// Stop ends the Watch; C is not closed.
func (w *Watch) Stop() {
	w.mirror.mu.Lock()
	defer w.mirror.mu.Unlock()
	delete(w.mirror.watches, w)
}

// Changed returns a channel that is closed when the mirror has the next
// commit. Take it before the View, so that nothing comes between them.
func (s *Store) Changed() <-chan struct{} { return s.mirror.next() }

// poke wakes the loop where a table of its changed; it never blocks.
func (w *Watch) poke(touched map[*tableInfo]bool) {
	if !w.concerns(touched) {
		return
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *Watch) concerns(touched map[*tableInfo]bool) bool {
	if touched == nil || len(w.tables) == 0 {
		return true
	}
	for t := range touched {
		if w.tables[t] {
			return true
		}
	}
	return false
}
