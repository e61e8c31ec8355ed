package reconcile

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

const (
	// pushTimeout bounds one push, so that an edge that hangs is tried again.
	pushTimeout = 5 * time.Second
	// pushPause is the least time between two pushes: edges reload with each,
	// and fail visitors' requests when they reload back to back.
	pushPause = 100 * time.Millisecond
	// pushRetry is the least time before an edge that failed is tried again.
	pushRetry = time.Second
	// pushPeriod bounds how late an edge that was restarted or changed by hand
	// is noticed.
	pushPeriod = 2 * time.Second
)

// edgeLink keeps one edge equal to the table. Each has its own goroutine, so
// that a slow edge stops nobody.
type edgeLink struct {
	t    *term
	edge Edge
	wake chan struct{}

	acknowledged atomic.Pointer[table] // last table that the edge took; nil: none, or it fails
}

func newEdgeLink(t *term, e Edge) *edgeLink {
	return &edgeLink{t: t, edge: e, wake: make(chan struct{}, 1)}
}

func (e *edgeLink) run(ctx context.Context) {
	logger := e.t.logger.With("edge", e.edge.ID())
	failing := false
	for {
		pause := pushPause
		if want := e.t.table.Load(); want != nil {
			err := e.push(ctx, want.RouteTable)
			switch {
			case ctx.Err() != nil:
				return
			case err != nil:
				e.acknowledged.Store(nil)
				pause = pushRetry
				if !failing {
					logger.Warn("cannot push the routes to an edge; trying again", "err", err)
				}
			default:
				e.acknowledged.Store(want)
				if failing {
					logger.Info("an edge takes the routes again", "routes", len(want.Routes))
				}
			}
			failing = err != nil
		}
		if !sleep(ctx, pause, nil) || !sleep(ctx, jitter(pushPeriod)-pause, e.wake) {
			return
		}
	}
}

func (e *edgeLink) push(ctx context.Context, want api.RouteTable) error {
	ctx, cancel := context.WithTimeout(ctx, pushTimeout)
	defer cancel()
	return e.edge.Sync(ctx, want)
}

// confirmed reports whether every edge that works, and at least one, has taken
// a table with the instance. One that fails serves what it has, or nothing: to
// wait for it would let one broken edge stop all leasing.
func (t *term) confirmed(id api.InstanceID) bool {
	some := false
	for _, e := range t.edges {
		got := e.acknowledged.Load()
		if got == nil {
			continue
		}
		if _, ok := got.instances[id]; !ok {
			return false
		}
		some = true
	}
	return some
}
