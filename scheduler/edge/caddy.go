package edge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/boss/demo-multiplexer/api"
)

// defaultVerify is how often the real routes are read, besides the marker: an
// edit by hand is repaired within this time and one call of Sync.
const defaultVerify = 5 * time.Second

// Options configure a [Caddy].
type Options struct {
	ID     api.EdgeID
	Admin  string   // Caddy's admin API: http://address:port or unix:///path
	Listen []string // where visitors arrive, for example ":80"
	// VerifyEvery is how often the real routes are compared, besides the
	// marker. Zero: every 5 s.
	VerifyEvery time.Duration
	Client      *http.Client // nil: one made for Admin
	Logger      *slog.Logger
	Registerer  prometheus.Registerer // nil: no metrics
}

// Caddy keeps one Caddy equal to a route table. Its methods may be called
// concurrently.
type Caddy struct {
	id       api.EdgeID
	admin    *admin
	renderer renderer
	verify   time.Duration
	logger   *slog.Logger
	metrics  metrics

	// turn has room for one: who puts a token in may use the fields of known
	// and talk to Caddy. It is a channel because waiting for it must end with
	// the caller's context, and because no lock may be held across requests.
	turn  chan struct{}
	known known

	mu     sync.Mutex
	status api.EdgeStatus
}

// known is what this driver left on the edge.
type known struct {
	routes   []api.Route
	ended    []string
	current  string    // digest of the table; empty: nothing is known
	latest   order     // of the last table that was accepted
	base     marker    // on the edge; older than current by single-route changes
	sum      string    // of the whole server
	verified time.Time // when sum was last compared
}

// NewCaddy returns a driver. It talks to nobody yet.
func NewCaddy(o Options) (*Caddy, error) {
	if !api.ValidName(string(o.ID)) {
		return nil, fmt.Errorf("edge id %q is not a lower-case DNS label", o.ID)
	}
	if len(o.Listen) == 0 {
		return nil, fmt.Errorf("edge %s: no address for visitors; give at least one such as :80", o.ID)
	}
	if o.Logger == nil {
		return nil, fmt.Errorf("edge %s: no logger", o.ID)
	}
	adm, err := newAdmin(o.Admin, o.Client)
	if err != nil {
		return nil, fmt.Errorf("edge %s: %w", o.ID, err)
	}
	if o.VerifyEvery <= 0 {
		o.VerifyEvery = defaultVerify
	}
	return &Caddy{
		id: o.ID, admin: adm, renderer: renderer{listen: o.Listen}, verify: o.VerifyEvery,
		logger: o.Logger.With("edge", o.ID), metrics: newMetrics(o.ID, o.Registerer),
		turn:   make(chan struct{}, 1),
		status: api.EdgeStatus{ID: o.ID, Reason: "no table pushed yet"},
	}, nil
}

// ID returns the name of the edge.
func (c *Caddy) ID() api.EdgeID { return c.id }

// Status returns how the edge last answered.
func (c *Caddy) Status() api.EdgeStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

// Sync makes the edge equal to t. It costs one small request while the edge
// holds t already. Routes that no edge can serve are left out and named in the
// status.
//
// Errors with [api.CodeConflict] mean that t is older than what the edge
// serves, or that somebody else keeps changing the edge. All others mean that
// the edge could not be reached or refused the table; nothing is known about it
// then, and the next Sync reads it anew.
func (c *Caddy) Sync(ctx context.Context, t api.RouteTable) error {
	if err := c.lock(ctx); err != nil {
		return err
	}
	defer c.unlock()
	want := c.renderer.plan(t)
	pushed, err := c.sync(ctx, want)
	if errors.Is(err, errChanged) {
		pushed, err = c.sync(ctx, want)
	}
	if errors.Is(err, errChanged) {
		err = api.Errorf(api.CodeConflict, "edge %s was changed by somebody else twice during one push; nothing was written: %w", c.id, err)
	}
	c.report(want, pushed, err)
	return err
}

// sync is one attempt of Sync. It returns errChanged where the edge changed
// between reading and writing.
func (c *Caddy) sync(ctx context.Context, want plan) (pushed bool, err error) {
	if err := c.fence(c.known.latest, want); err != nil {
		return false, err
	}
	m, err := c.admin.marker(ctx)
	if err != nil {
		return false, fmt.Errorf("edge %s: read marker: %w", c.id, err)
	}
	if err := c.fence(m.order, want); err != nil {
		return false, err
	}
	k := &c.known
	holds := k.current == want.digest && k.base.Term == want.Term && m == k.base
	if holds && time.Since(k.verified) < c.verify {
		k.latest = want.order
		return false, nil
	}
	return c.converge(ctx, want)
}

// fence refuses tables that are older than the one that holds already.
func (c *Caddy) fence(held order, want plan) error {
	if !want.before(held) {
		return nil
	}
	c.metrics.refused.Inc()
	return api.Errorf(api.CodeConflict, "edge %s holds the routes of term %d generation %d; refusing the older term %d generation %d (if the cluster was founded anew, delete the server %q from that Caddy)",
		c.id, held.Term, held.Generation, want.Term, want.Generation, serverName)
}

// Routes returns the routes that the edge serves now, in its order.
func (c *Caddy) Routes(ctx context.Context) ([]api.Route, error) {
	server, err := c.admin.server(ctx)
	if err != nil {
		return nil, fmt.Errorf("edge %s: read routes: %w", c.id, err)
	}
	return server.routes(), nil
}

// Remove removes the route of one instance at once, without waiting for the
// next table. The next Sync puts it back if its table still has it. Removing
// what is not there is no error.
func (c *Caddy) Remove(ctx context.Context, id api.InstanceID) error {
	if !api.ValidName(string(id)) {
		return api.Errorf(api.CodeInvalid, "%q cannot name an instance", id)
	}
	if err := c.lock(ctx); err != nil {
		return err
	}
	defer c.unlock()
	err := c.remove(ctx, id)
	if errors.Is(err, errChanged) {
		err = c.remove(ctx, id)
	}
	if err != nil {
		return fmt.Errorf("edge %s: remove route of %s: %w", c.id, id, err)
	}
	return nil
}

func (c *Caddy) remove(ctx context.Context, id api.InstanceID) error {
	server, err := c.admin.server(ctx)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(server.routes(), func(r api.Route) bool { return r.Instance == id }) {
		return nil
	}
	c.known.current = "" // whatever becomes of it: the next Sync compares
	return c.admin.write(ctx, http.MethodDelete, idPath+routeID(id), nil, server.etag)
}

func (c *Caddy) lock(ctx context.Context) error {
	select {
	case c.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("edge %s: wait for the push before: %w", c.id, context.Cause(ctx))
	}
}

func (c *Caddy) unlock() { <-c.turn }
