package consensus

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

// Node is one member of the Raft group. All methods may be called at any time
// and from any goroutine; before [Node.Started] and after Run they report that
// the node is unavailable.
type Node struct {
	o       Options
	logger  *slog.Logger
	metrics *nodeMetrics
	fsm     *fsm
	queue   chan *proposal

	ran     atomic.Bool
	started chan struct{} // closed once raft and relay are set
	stopped chan struct{} // closed once every accepted proposal has its outcome
	fatal   chan error    // room for the first
	raft    *raft.Raft
	relay   *relay

	mu       sync.Mutex
	stopping bool
	calls    sync.WaitGroup // of requests to Raft that were let in before stopping
	scope    *scope         // of the current leadership, or nil
	changed  chan struct{}  // closed and replaced when scope changes
}

// New returns a node that does nothing yet. The error has [api.CodeInvalid]
// for wrong options.
func New(o Options) (*Node, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	n := &Node{
		o:       o,
		logger:  o.Logger,
		metrics: newMetrics(),
		queue:   make(chan *proposal, o.QueueDepth),
		started: make(chan struct{}),
		stopped: make(chan struct{}),
		fatal:   make(chan error, 1),
		changed: make(chan struct{}),
	}
	n.fsm = newFSM(n.metrics, n.fail)
	if o.Registerer != nil {
		if err := n.metrics.register(o.Registerer, n); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// fail makes Run end with err, unless something else did so first. It is
// logged at once, because the library may crash the process before Run ends.
func (n *Node) fail(err error) {
	n.logger.Error("consensus cannot continue", "err", err)
	select {
	case n.fatal <- err:
	default:
	}
}

// Started is closed once Run has opened the data directory and takes part in
// the group, if there is one.
func (n *Node) Started() <-chan struct{} { return n.started }

// running returns the Raft node, or false before the start.
func (n *Node) running() (*raft.Raft, bool) {
	select {
	case <-n.started:
		return n.raft, true
	default:
		return nil, false
	}
}

// enter lets a request to Raft in, unless the node is not running. The caller
// must call leave once Raft has answered.
func (n *Node) enter() (r *raft.Raft, leave func(), err error) {
	r, ok := n.running()
	if !ok {
		return nil, nil, unavailable("this scheduler is starting")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stopping {
		return nil, nil, unavailable("this scheduler is stopping")
	}
	n.calls.Add(1)
	return r, n.calls.Done, nil
}

// await makes a request to Raft and waits for its answer, or until ctx ends.
func (n *Node) await(ctx context.Context, request func(*raft.Raft) raft.Future) error {
	r, leave, err := n.enter()
	if err != nil {
		return err
	}
	answer := make(chan error, 1) // room, so that the goroutine ends without us
	go func() {
		defer leave()
		answer <- request(r).Error()
	}()
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return fmt.Errorf("wait for Raft: %w", context.Cause(ctx))
	}
}

// View returns the latest state of this replica. It may lag behind the leader;
// see [Node.VerifyLeader].
func (n *Node) View() *state.View { return n.fsm.view.Load() }

// Subscribe returns a channel that says "look again" after the view has
// changed, and a function that ends the subscription. Each log entry costs
// every subscription a channel operation: share one among many observers.
func (n *Node) Subscribe() (<-chan struct{}, func()) { return n.fsm.subscribe() }

// Leader reports whether this server leads, and who does as far as it knows.
func (n *Node) Leader() (self bool, id api.ServerID) {
	r, ok := n.running()
	if !ok {
		return false, ""
	}
	_, leader := r.LeaderWithID()
	return r.State() == raft.Leader, api.ServerID(leader)
}

// Term returns the current term, 0 before the start.
func (n *Node) Term() uint64 {
	if r, ok := n.running(); ok {
		return r.CurrentTerm()
	}
	return 0
}

// AppliedIndex returns the index of the last log entry that this replica has
// applied, 0 before the start.
func (n *Node) AppliedIndex() uint64 {
	if r, ok := n.running(); ok {
		return r.AppliedIndex()
	}
	return 0
}

// readyLag is how many entries a follower may be behind and still count as
// caught up: what is on its way at any moment under load.
const readyLag = 4 * maxAppendEntries

// Ready reports whether this replica may answer requests, or what keeps it
// from that: it has caught up, knows a leader and is not stopping.
func (n *Node) Ready() (ok bool, why string) {
	r, running := n.running()
	if !running {
		return false, "consensus is starting"
	}
	n.mu.Lock()
	stopping := n.stopping
	n.mu.Unlock()
	if stopping {
		return false, "consensus is stopping"
	}
	if !n.HasState() {
		return false, "this scheduler belongs to no Raft group yet"
	}
	if r.State() == raft.Leader {
		return true, ""
	}
	if _, leader := r.LeaderWithID(); leader == "" {
		return false, "no leader is known"
	}
	applied, committed := r.AppliedIndex(), n.relay.leaderCommitted.Load()
	switch {
	case committed == 0:
		return false, "the leader has not said yet how far it is"
	case applied+readyLag < committed:
		return false, fmt.Sprintf("the replica is catching up: it has applied entry %d of %d", applied, committed)
	}
	return true, ""
}

// HasState reports whether this server belongs to a Raft group, so that nobody
// may bootstrap another around it. It is false before the start.
func (n *Node) HasState() bool {
	r, ok := n.running()
	if !ok {
		return false
	}
	return r.LastIndex() > 0 || r.CurrentTerm() > 0 || len(r.GetConfiguration().Configuration().Servers) > 0
}

// Barrier waits until this server, as the leader, has applied everything that
// was committed before. Errors: [api.CodeNotLeader], [api.CodeUnavailable].
func (n *Node) Barrier(ctx context.Context) error {
	return harmless(n.await(ctx, func(r *raft.Raft) raft.Future { return r.Barrier(enqueueTimeout) }))
}

// VerifyLeader makes sure that [Node.View] holds everything that anybody was
// told is done: this server leads now, with a majority behind it, and has
// applied all of earlier terms. Errors: [api.CodeNotLeader],
// [api.CodeUnavailable].
func (n *Node) VerifyLeader(ctx context.Context) error {
	s, _ := n.leadership()
	if s == nil {
		return notLeader()
	}
	select {
	case <-s.established:
	case <-s.ctx.Done():
		return notLeader()
	case <-ctx.Done():
		return unavailable("the wait for the new leader's first entry was given up: %w", context.Cause(ctx))
	}
	return harmless(n.await(ctx, func(r *raft.Raft) raft.Future { return r.VerifyLeader() }))
}

// Limits of an orderly stop.
const (
	// drainTimeout bounds the wait for proposals on their way. A leader that
	// reaches nobody gives them up after its lease, far below this.
	drainTimeout = 2 * time.Second
	// shutdownTimeout bounds the end of Raft's own goroutines, which a hanging
	// disk can hold up.
	shutdownTimeout = 5 * time.Second
)
