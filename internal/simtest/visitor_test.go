package simtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

// history is what visitors were told.
type history struct {
	mu       sync.Mutex // guards the fields below
	granted  map[api.LeaseID]api.Demo
	byURL    map[string]api.LeaseID
	byKey    map[string]api.LeaseID
	released map[api.LeaseID]bool
	unsure   map[api.LeaseID]bool // a release whose outcome is not known
	refused  int                  // visitors who got nothing
	broken   []string             // promises that were not kept
}

func newHistory() *history {
	return &history{
		granted: map[api.LeaseID]api.Demo{}, byURL: map[string]api.LeaseID{}, byKey: map[string]api.LeaseID{},
		released: map[api.LeaseID]bool{}, unsure: map[api.LeaseID]bool{},
	}
}

// grant notes an acknowledged lease and what it breaks.
func (h *history) grant(key string, d api.Demo) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if other, ok := h.byURL[d.URL]; ok && other != d.ID {
		h.broken = append(h.broken, fmt.Sprintf("one shop was given to two leases: %s", d.URL))
	}
	if other, ok := h.byKey[key]; ok && other != d.ID {
		h.broken = append(h.broken, fmt.Sprintf("the key %s was given two leases", key))
	}
	h.byURL[d.URL], h.byKey[key] = d.ID, d.ID
	if old, ok := h.granted[d.ID]; !ok || old.Revision < d.Revision {
		h.granted[d.ID] = d
	}
}

// any calls use with the request path of a server that runs, the leader's
// first now and then, until it has a definite answer or time runs out.
func (w *world) any(ctx context.Context, rng *rand.Rand, use func(context.Context, *server) error) error {
	deadline := time.Now().Add(30 * time.Second)
	for {
		s := w.servers[rng.IntN(len(w.servers))].Load()
		call, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := use(call, s)
		cancel()
		switch api.CodeOf(err) {
		case api.CodeNotLeader, api.CodeUnavailable, api.CodeUncertain, api.CodeExhausted:
			if time.Now().After(deadline) {
				return err
			}
		default:
			return err
		}
		if err := pause(ctx, time.Duration(20+rng.IntN(80))*time.Millisecond); err != nil {
			return err
		}
	}
}

// visitor comes, stays, and goes, again and again until ctx ends.
func (w *world) visitor(ctx context.Context, rng *rand.Rand, h *history) {
	for ctx.Err() == nil {
		w.visit(ctx, rng, h)
		_ = pause(ctx, time.Duration(rng.IntN(3000))*time.Millisecond) // the end is seen above
	}
}

func (w *world) visit(ctx context.Context, rng *rand.Rand, h *history) {
	key := api.NewRequestID()
	var demo api.Demo
	err := w.any(ctx, rng, func(ctx context.Context, s *server) (err error) {
		demo, _, err = s.leases.Acquire(ctx, api.AcquireCall{IdempotencyKey: key, Wait: time.Duration(rng.IntN(3)) * time.Second})
		return err
	})
	if err != nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.refused++
		return
	}
	h.grant(key, demo)
	if rng.IntN(4) == 0 { // the answer was lost: ask again
		_ = w.any(ctx, rng, func(ctx context.Context, s *server) error {
			again, _, err := s.leases.Acquire(ctx, api.AcquireCall{IdempotencyKey: key})
			if err == nil {
				h.grant(key, again)
			}
			return err
		})
	}
	_ = pause(ctx, time.Duration(rng.IntN(20_000))*time.Millisecond)
	if rng.IntN(3) == 0 {
		w.extend(ctx, rng, h, demo)
	}
	if rng.IntN(4) > 0 {
		w.release(ctx, rng, h, demo.ID)
	}
}

func (w *world) extend(ctx context.Context, rng *rand.Rand, h *history, demo api.Demo) {
	err := w.any(ctx, rng, func(ctx context.Context, s *server) error {
		longer, err := s.leases.Extend(ctx, demo.ID, api.ExtendRequest{})
		if err == nil {
			h.grant("", longer)
			h.mu.Lock()
			delete(h.byKey, "")
			h.mu.Unlock()
		}
		return err
	})
	if err != nil && api.CodeOf(err) == api.CodeNotFound {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.broken = append(h.broken, fmt.Sprintf("an acknowledged lease is not found: %v", err))
	}
}

func (w *world) release(ctx context.Context, rng *rand.Rand, h *history, id api.LeaseID) {
	h.mu.Lock()
	h.unsure[id] = true
	h.mu.Unlock()
	err := w.any(ctx, rng, func(ctx context.Context, s *server) error {
		_, err := s.leases.Release(ctx, id)
		return err
	})
	if err == nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.released[id] = true
	}
}

// verdict compares what visitors were told with the state after healing.
func (w *world) verdict(h *history) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	broken := slices.Clone(h.broken)
	v := w.view()
	for id, told := range h.granted {
		l, ok := v.Lease(id)
		switch {
		case !ok:
			broken = append(broken, fmt.Sprintf("the acknowledged lease of %s is gone without a trace", told.URL))
		case l.Host != told.URL[len("http://"):]:
			broken = append(broken, fmt.Sprintf("the lease of %s has the host %s", told.URL, l.Host))
		case h.released[id] && l.State == api.DemoActive:
			broken = append(broken, fmt.Sprintf("the lease of %s was released and is active", told.URL))
		case l.State == api.DemoReleased && !h.unsure[id]:
			broken = append(broken, fmt.Sprintf("the lease of %s was released by nobody", told.URL))
		case l.State == api.DemoExpired && l.EndedAt.Before(told.ExpiresAt):
			broken = append(broken, fmt.Sprintf("the lease of %s expired at %s, before the promised %s", told.URL, l.EndedAt, told.ExpiresAt))
		case l.State == api.DemoLost:
			broken = append(broken, fmt.Sprintf("the lease of %s was lost", told.URL))
		}
	}
	if len(broken) > 0 {
		return errors.New(fmt.Sprint(len(broken), " promises were not kept, among them: ", broken[:min(5, len(broken))]))
	}
	return nil
}
