package lease

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

// Log is the agreed log and the view that it gives.
type Log interface {
	Propose(ctx context.Context, cmd state.Command) (state.Result, error)
	VerifyLeader(ctx context.Context) error
	View() *state.View
	Leader() (self bool, id api.ServerID)
	Subscribe() (<-chan struct{}, func())
}

// Records keeps what any scheduler may answer from. Put never waits.
type Records interface {
	Put(ctx context.Context, d api.Demo)
	Get(ctx context.Context, id api.LeaseID) (api.Demo, bool, error)
}

// Routes knows which instances the healthy edges serve already. It is asked
// under a lock, so it must answer from memory and call nothing here.
type Routes interface {
	Confirmed(id api.InstanceID) bool
}

// Nodes knows which nodes cannot be reached right now. It is asked as [Routes]
// is.
type Nodes interface {
	Suspect(id api.NodeID) bool
}

// Options configure a [Service]. All but Registerer are required.
type Options struct {
	Log        Log
	Records    Records
	Routes     Routes
	Nodes      Nodes
	URL        func(host string) string // public base URL of a host name
	Logger     *slog.Logger
	Registerer prometheus.Registerer // nil: no metrics
}

func (o Options) validate() error {
	var errs []error
	require := func(ok bool, what string) {
		if !ok {
			errs = append(errs, errors.New("lease: no "+what))
		}
	}
	require(o.Log != nil, "log")
	require(o.Records != nil, "session records")
	require(o.Routes != nil, "routes")
	require(o.Nodes != nil, "nodes")
	require(o.URL != nil, "public URL")
	require(o.Logger != nil, "logger")
	return errors.Join(errs...)
}

// Service runs the use cases. All methods may be called at any time and from
// any goroutine.
type Service struct {
	log     Log
	records Records
	url     func(host string) string
	logger  *slog.Logger
	metrics *metrics
	stock   *stock
	keys    *keys
	refill  *refill
	watches *watches
}

// New returns a service that does nothing yet.
func New(o Options) (*Service, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	s := &Service{
		log: o.Log, records: o.Records, url: o.URL, logger: o.Logger,
		metrics: newMetrics(),
		stock:   newStock(o.Log, o.Routes, o.Nodes),
		keys:    newKeys(),
		refill:  newRefill(),
		watches: newWatches(o.Log),
	}
	if o.Registerer != nil {
		if err := s.metrics.register(o.Registerer, s.stock, s.watches); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// passEvery is the least time between two passes over lines and watchers. A
// busy view changes hundreds of times a second, and a pass looks up every
// watched lease.
const passEvery = 50 * time.Millisecond

// Run serves the waiting lines and the watchers until ctx ends. Callers that
// still wait are then told so.
func (s *Service) Run(ctx context.Context) error {
	defer s.stock.close()
	changed, stop := s.log.Subscribe()
	defer stop()
	timer := time.NewTimer(passEvery)
	defer timer.Stop()
	for {
		s.pass()
		timer.Reset(passEvery)
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		if s.stock.waiting() > 0 {
			continue // edges, nodes and leadership change without a sign in the view
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-s.stock.joined:
		}
	}
}

func (s *Service) pass() {
	s.watches.pass()
	if s.stock.waiting() == 0 {
		return
	}
	if !s.leads() {
		s.logger.Info("waiting callers are sent to another leader", "callers", s.stock.waiting())
		s.stock.dismiss(notLeader())
		return
	}
	s.stock.serveAll()
}

func (s *Service) leads() bool {
	self, _ := s.log.Leader()
	return self
}

// stateTime is the time that a command would get which was proposed now on the
// leader.
func stateTime(v *state.View) time.Time {
	if now := time.Now(); now.After(v.Time()) {
		return now
	}
	return v.Time()
}
