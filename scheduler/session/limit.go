package session

import (
	"container/list"
	"fmt"
	"sync"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

// Limits bound what one client may acquire. Zero switches a limit off.
type Limits struct {
	PerHour int64
	PerDay  int64
}

func (l Limits) validate() error {
	if l.PerHour < 0 || l.PerDay < 0 {
		return fmt.Errorf("limits of %d per hour and %d per day: must not be negative", l.PerHour, l.PerDay)
	}
	return nil
}

// windows returns the limits that are on, shortest first.
func (l Limits) windows() []window {
	var ws []window
	if l.PerHour > 0 {
		ws = append(ws, window{name: "hour", limit: l.PerHour, length: time.Hour})
	}
	if l.PerDay > 0 {
		ws = append(ws, window{name: "day", limit: l.PerDay, length: 24 * time.Hour})
	}
	return ws
}

// window is one limit. Windows are fixed and begin with a client's first
// request, the counter pattern of the INCR command's documentation: the reset
// that a client is told is exact, all of its quota is back at that time, and a
// client costs one small counter. In return a client can use two quotas around
// one reset, which is harmless here: the day's limit is small as well.
type window struct {
	name   string
	limit  int64
	length time.Duration
}

// quota returns what is left of w after count requests.
func (w window) quota(count int64, reset time.Duration) api.QuotaWindow {
	return api.QuotaWindow{Name: w.name, Limit: w.limit, Remaining: max(0, w.limit-count), Window: w.length, Reset: reset}
}

// local counts requests in this process. When it holds max clients, the one
// that was idle longest is forgotten: whoever has addresses enough to cause
// that needs no forgotten counter.
type local struct {
	windows []window
	max     int

	mu      sync.Mutex
	clients map[clientKey]*list.Element
	idle    *list.List // of *client, longest idle at the back
}

type client struct {
	key    clientKey
	counts []count // parallel to the windows
}

type count struct {
	n     int64
	start time.Time
}

func newLocal(windows []window, maxClients int) *local {
	return &local{windows: windows, max: maxClients, clients: map[clientKey]*list.Element{}, idle: list.New()}
}

// allow counts one request in every window, or in none if one is used up.
func (l *local) allow(key clientKey, now time.Time) api.Quota {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.touch(key)
	q := api.Quota{Allowed: true, Windows: make([]api.QuotaWindow, len(l.windows))}
	for i, w := range l.windows {
		if now.Sub(c.counts[i].start) >= w.length {
			c.counts[i] = count{start: now}
		}
		q.Allowed = q.Allowed && c.counts[i].n < w.limit
	}
	for i, w := range l.windows {
		at := &c.counts[i]
		if q.Allowed {
			at.n++
		}
		reset := w.length
		if at.n > 0 {
			reset -= now.Sub(at.start)
		}
		q.Windows[i] = w.quota(at.n, reset)
	}
	return q
}

// touch returns the client with key, made new where it is not known, as the
// one that was active last.
func (l *local) touch(key clientKey) *client {
	if e, ok := l.clients[key]; ok {
		l.idle.MoveToFront(e)
		return e.Value.(*client)
	}
	for len(l.clients) >= l.max {
		oldest := l.idle.Remove(l.idle.Back()).(*client)
		delete(l.clients, oldest.key)
	}
	c := &client{key: key, counts: make([]count, len(l.windows))}
	l.clients[key] = l.idle.PushFront(c)
	return c
}
