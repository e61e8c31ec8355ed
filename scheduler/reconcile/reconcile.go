package reconcile

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

// ErrRefused is wrapped by the errors of agents whose host answered that
// nobody listens, or that the agent is starting. Its containers may well run.
var ErrRefused = errors.New("the host is there, its agent is not")

// Log takes commands and shows what came of them.
type Log interface {
	Propose(ctx context.Context, cmd state.Command) (state.Result, error)
	View() *state.View
	Subscribe() (<-chan struct{}, func())
}

// Agent is the agent of one node.
type Agent interface {
	// Desire tells the node everything it should do.
	Desire(ctx context.Context, d api.Desired) (api.Observed, error)
	// Observe waits, for a while, until the node has something newer to tell
	// than revision after of its process boot.
	Observe(ctx context.Context, boot string, after uint64) (api.Observed, error)
}

// Edge is one edge that visitors reach.
type Edge interface {
	ID() api.EdgeID
	Sync(ctx context.Context, t api.RouteTable) error
	Status() api.EdgeStatus
}

// Member is an agent that gossip knows.
type Member struct {
	ID    api.NodeID
	URL   string // base URL of the agent
	Alive bool   // what gossip thinks: a hint
}

// Members lists the agents.
type Members interface {
	Agents() []Member
	Subscribe() (<-chan struct{}, func())
}

// Recorder is told which leases and pools the loops changed.
type Recorder interface {
	Record(id api.LeaseID)
	Warmed(name api.TemplateName, at time.Time)
}

// Options configure a [Reconciler].
type Options struct {
	Log     Log
	Members Members
	Dial    func(url string) (Agent, error)
	Edges   []Edge
	URL     func(host string) string // public base URL of a host name
	NewHost func() string            // a fresh, unguessable public host name

	NodeGrace   time.Duration // how long a node may be silent before it counts as down
	LeaderGrace time.Duration // what every lease has left at least in a new term; 0: as it was
	EndedKept   time.Duration // how long an ended lease is remembered

	Logger     *slog.Logger
	Registerer prometheus.Registerer // nil: no metrics
}

func (o *Options) validate() error {
	var errs []error
	check := func(ok bool, what string) {
		if !ok {
			errs = append(errs, errors.New(what))
		}
	}
	check(o.Log != nil && o.Members != nil && o.Dial != nil && o.URL != nil && o.NewHost != nil && o.Logger != nil,
		"reconcile needs all of its parts")
	check(o.NodeGrace > 0, "reconcile needs a grace above 0 for nodes")
	check(o.LeaderGrace >= 0, "reconcile needs a grace for leases that is not negative")
	check(o.EndedKept > 0, "reconcile needs to remember ended leases for a time above 0")
	return errors.Join(errs...)
}

// Reconciler does what only a leader does. Its methods may be called from any
// goroutine, Lead by one at a time.
type Reconciler struct {
	o       Options
	metrics *metrics
	current atomic.Pointer[term] // nil while not leading
}

// New returns a reconciler. It starts nothing.
func New(o Options) (*Reconciler, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	m, err := newMetrics(o.Registerer, o.Log)
	if err != nil {
		return nil, err
	}
	return &Reconciler{o: o, metrics: m}, nil
}

// Lead does everything that the leader of a term does, until ctx ends. All of
// its goroutines have ended when it returns; the end of ctx is no error.
func (r *Reconciler) Lead(ctx context.Context, number uint64, rec Recorder) error {
	t := newTerm(r, number, rec)
	r.current.Store(t)
	defer r.current.Store(nil)
	t.logger.Info("leading")
	t.run(ctx)
	t.logger.Info("not leading any more", "err", context.Cause(ctx))
	return nil
}

// Confirmed reports whether every healthy edge, and at least one, has taken a
// table with a route to the instance in this term.
func (r *Reconciler) Confirmed(id api.InstanceID) bool {
	t := r.current.Load()
	return t != nil && t.confirmed(id)
}

// Suspect reports whether a node cannot be reached right now. Nobody suspects
// a node before it has failed to answer.
func (r *Reconciler) Suspect(id api.NodeID) bool {
	t := r.current.Load()
	return t != nil && t.fleet.suspect(id)
}

// Edges returns how the edges last answered, nil while not leading.
func (r *Reconciler) Edges() []api.EdgeStatus {
	if r.current.Load() == nil {
		return nil
	}
	statuses := make([]api.EdgeStatus, len(r.o.Edges))
	for n, e := range r.o.Edges {
		statuses[n] = e.Status()
	}
	return statuses
}
