package reconcile

import (
	"errors"
	"fmt"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

const (
	// refusedGrace is how long a host may live without its agent before its
	// node counts as down: an agent that is restarted or upgraded costs no demo.
	refusedGrace = 60 * time.Second
	// suspectAfter is for how long a node may say nothing, in spite of the
	// probes, before nothing is leased from it.
	suspectAfter = probePeriod + 2*time.Second
)

// contact is how the exchanges with one node went, by this process's monotonic
// clock.
type contact struct {
	heard   time.Time // last success, or the start of the link
	lived   time.Time // last refusal by a living host
	failing bool      // the last exchange failed
	err     error     // of the last failure
}

func (c *contact) succeeded(now time.Time) { c.heard, c.failing, c.err = now, false, nil }

func (c *contact) failed(err error, now time.Time) {
	c.failing, c.err = true, err
	if hostLives(err) {
		c.lived = now
	}
}

// excuse forgives a gap during which this process itself did not run: its own
// silence proves nothing about others.
func (c *contact) excuse(gap time.Duration) {
	c.heard = c.heard.Add(gap)
	if !c.lived.IsZero() {
		c.lived = c.lived.Add(gap)
	}
}

// suspect reports whether a node should get nothing new for now.
func (c *contact) suspect(now time.Time) bool {
	return c.failing || now.Sub(c.heard) >= suspectAfter
}

// lost returns why a node counts as down, or nothing.
func (c *contact) lost(now time.Time, grace time.Duration) string {
	last := c.heard
	if c.lived.After(last) {
		last = c.lived
	}
	switch {
	case now.Sub(last) >= grace:
		return fmt.Sprintf("it has not answered for %s", now.Sub(last).Round(time.Second/10))
	case now.Sub(c.heard) >= max(grace, refusedGrace):
		return fmt.Sprintf("its agent has refused to work for %s: %v", now.Sub(c.heard).Round(time.Second), c.err)
	}
	return ""
}

// hostLives reports whether an error proves that somebody answered.
func hostLives(err error) bool {
	if errors.Is(err, ErrRefused) {
		return true
	}
	var reply *api.Error
	if !errors.As(err, &reply) {
		return false
	}
	// A client says unavailable also where nobody could be reached; there the
	// reason is wrapped, and a reply has none.
	return reply.Code != api.CodeUnavailable || reply.Err == nil
}
