package lease

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

// fault is how a fake log treats one proposal.
type fault int

const (
	none            fault = iota
	notLeading            // refuses, nothing is done
	uncertainBefore       // nobody knows; it was not done
	uncertainAfter        // nobody knows; it was done
	overtaken             // another command changes the instance or lease first
)

// fakeLog is a log of one server that applies at once, or after a delay.
type fakeLog struct {
	delay time.Duration

	mu          sync.Mutex
	view        *state.View
	self        bool
	leader      api.ServerID
	faults      []fault // of the next proposals
	refuse      error   // of VerifyLeader
	verified    int     // calls of VerifyLeader
	proposed    []state.Command
	subscribers map[chan struct{}]struct{}
}

func newFakeLog() *fakeLog {
	return &fakeLog{view: state.New(), self: true, leader: "s0", subscribers: map[chan struct{}]struct{}{}}
}

func (l *fakeLog) Propose(ctx context.Context, cmd state.Command) (state.Result, error) {
	if l.delay > 0 {
		select {
		case <-time.After(l.delay):
		case <-ctx.Done():
			return state.Result{}, uncertainError(context.Cause(ctx))
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.proposed = append(l.proposed, cmd)
	f := none
	if len(l.faults) > 0 {
		f, l.faults = l.faults[0], l.faults[1:]
	}
	switch {
	case !l.self || f == notLeading:
		return state.Result{}, notLeader()
	case f == uncertainBefore:
		return state.Result{}, uncertainError(errors.New("cut off"))
	case f == overtaken:
		l.overtake(cmd)
	}
	r := l.apply(cmd)
	if f == uncertainAfter {
		return state.Result{}, uncertainError(errors.New("cut off"))
	}
	return r, nil
}

func uncertainError(err error) error {
	return api.Errorf(api.CodeUncertain, "nobody knows: %w", err)
}

// overtake lets another command win the race against cmd.
func (l *fakeLog) overtake(cmd state.Command) {
	switch c := cmd.(type) {
	case state.ClaimLease:
		l.apply(state.FailInstance{ID: c.Instance, Revision: c.InstanceRevision, Reason: "died"})
	case state.RenewLease:
		one, _ := l.view.Lease(c.Lease)
		l.apply(state.RenewLease{Lease: c.Lease, Revision: c.Revision, ExpiresAt: one.ExpiresAt.Add(time.Second)})
	case state.ReleaseLease:
		one, _ := l.view.Lease(c.Lease)
		l.apply(state.RenewLease{Lease: c.Lease, Revision: c.Revision, ExpiresAt: one.ExpiresAt.Add(time.Second)})
	}
}

func (l *fakeLog) apply(cmd state.Command) state.Result {
	v, r := state.Apply(l.view, time.Now(), cmd)
	l.view = v
	for ch := range l.subscribers {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
	return r
}

func (l *fakeLog) VerifyLeader(context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.verified++
	if !l.self {
		return notLeader()
	}
	return l.refuse
}

func (l *fakeLog) View() *state.View {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.view
}

func (l *fakeLog) Leader() (bool, api.ServerID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.self, l.leader
}

func (l *fakeLog) Subscribe() (<-chan struct{}, func()) {
	ch := make(chan struct{}, 1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.subscribers[ch] = struct{}{}
	return ch, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.subscribers, ch)
	}
}

// lead says who leads from now on.
func (l *fakeLog) lead(self bool, leader api.ServerID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.self, l.leader = self, leader
}

// fail sets the faults of the next proposals.
func (l *fakeLog) fail(faults ...fault) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faults = faults
}

// claims returns the claims that were proposed.
func (l *fakeLog) claims() []state.ClaimLease {
	l.mu.Lock()
	defer l.mu.Unlock()
	var cs []state.ClaimLease
	for _, cmd := range l.proposed {
		if c, ok := cmd.(state.ClaimLease); ok {
			cs = append(cs, c)
		}
	}
	return cs
}

// fakeRecords is a store that may be down.
type fakeRecords struct {
	mu    sync.Mutex
	demos map[api.LeaseID]api.Demo
	down  error
}

func newFakeRecords() *fakeRecords { return &fakeRecords{demos: map[api.LeaseID]api.Demo{}} }

func (r *fakeRecords) Put(_ context.Context, d api.Demo) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.demos[d.ID] = d
}

func (r *fakeRecords) Get(_ context.Context, id api.LeaseID) (api.Demo, bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d, ok := r.demos[id]
	return d, ok && r.down == nil, r.down
}

func (r *fakeRecords) setDown(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = err
}

// fakeFleet knows routes and nodes. By default everything is well.
type fakeFleet struct {
	mu          sync.Mutex
	unconfirmed map[api.InstanceID]bool
	edgesDown   bool
	suspect     map[api.NodeID]bool
}

func newFakeFleet() *fakeFleet {
	return &fakeFleet{unconfirmed: map[api.InstanceID]bool{}, suspect: map[api.NodeID]bool{}}
}

func (f *fakeFleet) Confirmed(id api.InstanceID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.edgesDown && !f.unconfirmed[id]
}

func (f *fakeFleet) Suspect(id api.NodeID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.suspect[id]
}

func (f *fakeFleet) set(change func(*fakeFleet)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}
