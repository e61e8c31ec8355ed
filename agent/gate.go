package agent

import (
	"context"
	"os"
	"sync/atomic"
	"time"

	"github.com/boss/demo-multiplexer/agent/checkpoint"
	"github.com/boss/demo-multiplexer/agent/pool"
	"github.com/boss/demo-multiplexer/api"
)

// startRetry is when a caller should ask an agent again that is starting.
const startRetry = time.Second

// gate is what the API asks: it answers unavailable until the pool has seen
// this node's containers, and hands on from then.
type gate struct {
	open   atomic.Pointer[behind]
	opened chan struct{}          // closed with the first open
	why    atomic.Pointer[string] // what it is waiting for
}

// behind is what lies behind an open gate.
type behind struct {
	node  api.NodeInfo
	pool  *pool.Pool
	store *checkpoint.Store
}

func newGate() *gate {
	g := &gate{opened: make(chan struct{})}
	g.waitFor("the preflight")
	return g
}

// waitFor says in plain words what the agent is waiting for.
func (g *gate) waitFor(what string) { g.why.Store(&what) }

// pass opens the gate, once.
func (g *gate) pass(b behind) {
	g.open.Store(&b)
	close(g.opened)
}

// enter returns what lies behind the gate, or why it is closed.
func (g *gate) enter() (b *behind, why string) {
	if b := g.open.Load(); b != nil {
		return b, ""
	}
	return nil, "the agent is starting and waits for " + *g.why.Load()
}

func closed(why string) error {
	return &api.Error{Code: api.CodeUnavailable, Message: why, RetryAfter: startRetry}
}

// Accept implements httpd.Pool.
func (g *gate) Accept(ctx context.Context, d api.Desired) (api.Observed, error) {
	b, why := g.enter()
	if b == nil {
		return api.Observed{}, closed(why)
	}
	return b.pool.Accept(ctx, d)
}

// Observe implements httpd.Pool.
func (g *gate) Observe(ctx context.Context, boot string, after uint64) (api.Observed, error) {
	b, why := g.enter()
	if b == nil {
		return api.Observed{}, closed(why)
	}
	return b.pool.Observe(ctx, boot, after)
}

// RawManifest implements httpd.Store.
func (g *gate) RawManifest(digest api.Digest) ([]byte, error) {
	b, why := g.enter()
	if b == nil {
		return nil, closed(why)
	}
	return b.store.RawManifest(digest)
}

// OpenBlob implements httpd.Store.
func (g *gate) OpenBlob(digest api.Digest) (*os.File, error) {
	b, why := g.enter()
	if b == nil {
		return nil, closed(why)
	}
	return b.store.OpenBlob(digest)
}
