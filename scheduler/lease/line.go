package lease

import (
	"container/list"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

// maxLine bounds the waiting line of a template. What stands further behind
// would not be served within the longest wait anyway.
const maxLine = 2048

// waiter is a caller in the line of a template. Once ready is closed, it has
// left the line, and either instance or err is set.
type waiter struct {
	name     api.TemplateName
	place    *list.Element // nil once it has left the line; guarded by stock.mu
	ready    chan struct{}
	instance *state.Instance // claimed for this caller
	err      error
}

// turn is what a caller that wants an instance got: an instance, a place in
// line, or neither.
type turn struct {
	instance *state.Instance // claimed for the caller, who must give it back
	waiter   *waiter         // the caller must leave it
	ahead    int             // callers in line before this one
}

// want says how a caller joins.
type want struct {
	name  api.TemplateName
	first bool // its turn had come before, so nobody in line is ahead of it
	wait  bool // it would stand in line
}

// take claims an instance, or else joins the line.
func (s *stock) take(w want) turn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !w.first {
		s.serve(w.name)
	}
	line := s.lines[w.name]
	if line == nil || w.first {
		if i := s.pick(w.name); i != nil {
			return turn{instance: i}
		}
	}
	ahead := 0
	if line != nil {
		ahead = line.Len()
	}
	if !w.wait || ahead >= maxLine || s.closed {
		return turn{ahead: ahead}
	}
	return turn{waiter: s.join(w), ahead: ahead}
}

// join puts a caller into line. The caller holds the lock.
func (s *stock) join(w want) *waiter {
	line := s.lines[w.name]
	if line == nil {
		line = list.New()
		s.lines[w.name] = line
	}
	n := &waiter{name: w.name, ready: make(chan struct{})}
	if w.first {
		n.place = line.PushFront(n)
	} else {
		n.place = line.PushBack(n)
	}
	s.queued++
	select {
	case s.joined <- struct{}{}:
	default: // the notice of an earlier one is still there
	}
	return n
}

// leave takes a caller out of line and returns what it had been given in the
// very moment, if anything.
func (s *stock) leave(w *waiter) turn {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(w)
	t := turn{instance: w.instance}
	if line := s.lines[w.name]; line != nil {
		t.ahead = line.Len()
	}
	return t
}

// remove takes w out of its line, if it is still there. The caller holds the
// lock.
func (s *stock) remove(w *waiter) {
	if w.place == nil {
		return
	}
	line := s.lines[w.name]
	line.Remove(w.place)
	w.place = nil
	s.queued--
	if line.Len() == 0 {
		delete(s.lines, w.name)
	}
}

// serve gives instances to the line of a template, its head first, while there
// are any. Afterwards a line that is left means that no instance is. The caller
// holds the lock.
func (s *stock) serve(name api.TemplateName) {
	for line := s.lines[name]; line != nil && line.Len() > 0; {
		i := s.pick(name)
		if i == nil {
			return
		}
		head := line.Front().Value.(*waiter)
		s.remove(head)
		head.instance = i
		close(head.ready)
	}
}

func (s *stock) serveAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.lines {
		s.serve(name)
	}
}

// dismiss sends everybody away who waits.
func (s *stock) dismiss(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, line := range s.lines {
		for line.Len() > 0 {
			w := line.Front().Value.(*waiter)
			s.remove(w)
			w.err = err
			close(w.ready)
		}
	}
}

// close sends everybody away and lets nobody wait any more, because nobody
// would serve them.
func (s *stock) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.dismiss(unavailable("this scheduler is stopping; ask again"))
}

// waiting counts the callers in all lines.
func (s *stock) waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queued
}
