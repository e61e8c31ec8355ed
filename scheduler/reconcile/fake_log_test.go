package reconcile_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/reconcile"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

// fakeLog applies every command at once.
type fakeLog struct {
	mu   sync.Mutex // guards the fields below
	view *state.View
	subs map[chan struct{}]struct{}
	fail error
	seen map[state.Kind]int // applied commands
}

func newFakeLog() *fakeLog {
	return &fakeLog{view: state.New(), subs: map[chan struct{}]struct{}{}, seen: map[state.Kind]int{}}
}

func (l *fakeLog) Propose(ctx context.Context, cmd state.Command) (state.Result, error) {
	if ctx.Err() != nil {
		return state.Result{}, api.Errorf(api.CodeUnavailable, "given up: %w", ctx.Err())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		return state.Result{}, l.fail
	}
	var r state.Result
	l.view, r = state.Apply(l.view, time.Now(), cmd)
	if r.Refusal == nil {
		l.seen[cmd.Kind()]++
	}
	for ch := range l.subs {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
	return r, nil
}

func (l *fakeLog) View() *state.View {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.view
}

func (l *fakeLog) Subscribe() (<-chan struct{}, func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ch := make(chan struct{}, 1)
	l.subs[ch] = struct{}{}
	return ch, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.subs, ch)
	}
}

func (l *fakeLog) failWith(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail = err
}

func (l *fakeLog) applied(k state.Kind) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen[k]
}

// must proposes what has to be accepted.
func (l *fakeLog) must(t testing.TB, cmd state.Command) state.Result {
	t.Helper()
	r, err := l.Propose(t.Context(), cmd)
	if err == nil {
		err = r.Err()
	}
	if err != nil {
		t.Fatalf("%s %+v: %v", cmd.Kind(), cmd, err)
	}
	return r
}

// fakeMembers is gossip.
type fakeMembers struct {
	mu      sync.Mutex // guards the fields below
	members []reconcile.Member
	changed chan struct{}
}

func (m *fakeMembers) Agents() []reconcile.Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]reconcile.Member(nil), m.members...)
}

func (m *fakeMembers) Subscribe() (<-chan struct{}, func()) { return m.changed, func() {} }

func (m *fakeMembers) set(change func([]reconcile.Member) []reconcile.Member) {
	m.mu.Lock()
	m.members = change(m.members)
	m.mu.Unlock()
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// fakeEdge is an edge that takes tables in order.
type fakeEdge struct {
	id api.EdgeID

	mu      sync.Mutex // guards the fields below
	table   api.RouteTable
	err     error
	took    time.Duration
	syncs   []time.Time
	changes int
	healthy bool
}

func (e *fakeEdge) ID() api.EdgeID { return e.id }

func (e *fakeEdge) Sync(ctx context.Context, t api.RouteTable) error {
	e.mu.Lock()
	took := e.took
	e.mu.Unlock()
	select {
	case <-time.After(took):
	case <-ctx.Done():
		return ctx.Err()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.syncs = append(e.syncs, time.Now())
	e.healthy = e.err == nil
	if e.err != nil {
		return e.err
	}
	if t.Term < e.table.Term || t.Term == e.table.Term && t.Generation < e.table.Generation {
		e.healthy = false
		return api.Errorf(api.CodeConflict, "an older table")
	}
	if t.Generation != e.table.Generation {
		e.changes++
	}
	e.table = t
	return nil
}

func (e *fakeEdge) Status() api.EdgeStatus {
	e.mu.Lock()
	defer e.mu.Unlock()
	return api.EdgeStatus{ID: e.id, Healthy: e.healthy, Routes: len(e.table.Routes)}
}

func (e *fakeEdge) set(change func(*fakeEdge)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	change(e)
}

// seen returns what the edge serves, how often that changed, and when it was
// asked.
func (e *fakeEdge) seen() (t api.RouteTable, changes int, syncs []time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.table, e.changes, slices.Clone(e.syncs)
}

func (e *fakeEdge) upstream(host string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range e.table.Routes {
		if r.Host == host {
			return r.Upstream
		}
	}
	return ""
}

// fakeRecorder notes what it is told.
type fakeRecorder struct {
	mu      sync.Mutex // guards the fields below
	records map[api.LeaseID]int
	warmed  int
}

func (r *fakeRecorder) Record(id api.LeaseID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.records[id]++
}

func (r *fakeRecorder) Warmed(api.TemplateName, time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.warmed++
}

func (r *fakeRecorder) recorded(id api.LeaseID) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.records[id]
}

func (r *fakeRecorder) heardOf() (warmed int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.warmed
}
