package cluster

import (
	"cmp"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

const (
	// goneKept is how long a member that died or left stays listed.
	goneKept = time.Hour
	// maxMembers bounds the table against invented names.
	maxMembers = 10_000
	// warnEvery bounds the warnings about members that make no sense.
	warnEvery = time.Minute
)

// Member is a member as gossip sees it.
type Member struct {
	Name  string
	Meta  api.MemberMeta
	Alive bool      // false: it is thought to be dead, or it left
	Since time.Time // of the last change of Alive
}

// table holds the members. The library's callbacks write it.
type table struct {
	logger *slog.Logger

	mu          sync.Mutex // guards the fields below; never held across a call of the library
	all         map[string]Member
	subscribers map[chan struct{}]struct{}
	warned      time.Time
}

func newTable(l *slog.Logger) *table {
	return &table{logger: l, all: map[string]Member{}, subscribers: map[chan struct{}]struct{}{}}
}

// seen records a member that is alive.
func (t *table) seen(name string, meta []byte) {
	m, err := decodeMeta(meta)
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil || !api.ValidName(name) {
		if now.Sub(t.warned) > warnEvery {
			t.warned = now
			t.logger.Warn("a member of gossip makes no sense and is ignored", "err", err)
		}
		return
	}
	old, known := t.all[name]
	if !known && !t.room(now) {
		return
	}
	next := Member{Name: name, Meta: m, Alive: true, Since: old.Since}
	if !old.Alive {
		next.Since = now
	}
	if next == old {
		return
	}
	t.all[name] = next
	t.notify()
}

// gone records that a member is not there any more.
func (t *table) gone(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m, known := t.all[name]
	if !known || !m.Alive {
		return
	}
	m.Alive, m.Since = false, time.Now()
	t.all[name] = m
	t.notify()
}

// room makes room for one more, if there is any. The caller holds the lock.
func (t *table) room(now time.Time) bool {
	for name, m := range t.all {
		if !m.Alive && now.Sub(m.Since) > goneKept {
			delete(t.all, name)
		}
	}
	return len(t.all) < maxMembers
}

// notify never blocks: a full channel already says "look again". The caller
// holds the lock.
func (t *table) notify() {
	for ch := range t.subscribers {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

func (t *table) subscribe() (<-chan struct{}, func()) {
	ch := make(chan struct{}, 1)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.subscribers[ch] = struct{}{}
	return ch, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.subscribers, ch)
	}
}

func (t *table) members() []Member {
	now := time.Now()
	t.mu.Lock()
	members := make([]Member, 0, len(t.all))
	for _, m := range t.all {
		if m.Alive || now.Sub(m.Since) <= goneKept {
			members = append(members, m)
		}
	}
	t.mu.Unlock()
	slices.SortFunc(members, func(a, b Member) int { return cmp.Compare(a.Name, b.Name) })
	return members
}

// alive counts the members that are there.
func (t *table) alive() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, m := range t.all {
		if m.Alive {
			n++
		}
	}
	return n
}
