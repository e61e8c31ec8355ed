package httpd

import (
	"context"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

func newReader(s string) io.Reader { return strings.NewReader(s) }

// fakeDemos answers from a group like lease.Service does.
type fakeDemos struct {
	group *group
	id    string
	// before runs before every use case, outside the lock.
	before func(ctx context.Context, op string) error
	// lagging: this replica knows no demo yet.
	lagging atomic.Bool
	// quiet: no signals, as if all were lost.
	quiet atomic.Bool
	stale atomic.Bool

	mu    sync.Mutex
	calls []api.AcquireCall
	ops   map[string]int
}

func (f *fakeDemos) enter(ctx context.Context, op string) error {
	f.mu.Lock()
	if f.ops == nil {
		f.ops = map[string]int{}
	}
	f.ops[op]++
	f.mu.Unlock()
	if f.before != nil {
		return f.before(ctx, op)
	}
	return nil
}

func (f *fakeDemos) count(op string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ops[op]
}

func (f *fakeDemos) lastCall() api.AcquireCall {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.calls) == 0 {
		return api.AcquireCall{}
	}
	return f.calls[len(f.calls)-1]
}

func errNotLeader() error { return api.Errorf(api.CodeNotLeader, "another scheduler leads, or none") }

func (f *fakeDemos) leads() bool {
	f.group.mu.Lock()
	defer f.group.mu.Unlock()
	return f.group.leader == f.id
}

func (f *fakeDemos) Acquire(ctx context.Context, call api.AcquireCall) (api.Demo, bool, error) {
	f.mu.Lock()
	f.calls = append(f.calls, call)
	f.mu.Unlock()
	if err := f.enter(ctx, "acquire"); err != nil {
		return api.Demo{}, false, err
	}
	if !f.leads() {
		return api.Demo{}, false, errNotLeader()
	}
	if call.Template == "nosuch" {
		return api.Demo{}, false, api.Errorf(api.CodeNotFound, "no template is called nosuch")
	}
	until := time.NewTimer(call.Wait)
	defer until.Stop()
	for {
		demo, replayed, ok, change := f.take(call)
		if ok {
			return demo, replayed, nil
		}
		e := api.Errorf(api.CodeExhausted, "no demo is ready")
		e.RetryAfter = 7 * time.Second
		if call.Wait == 0 {
			return api.Demo{}, false, e
		}
		select {
		case <-change:
		case <-until.C:
			return api.Demo{}, false, e
		case <-ctx.Done():
			return api.Demo{}, false, ctx.Err()
		}
	}
}

func (f *fakeDemos) take(call api.AcquireCall) (demo api.Demo, replayed, ok bool, change chan struct{}) {
	g := f.group
	g.mu.Lock()
	defer g.mu.Unlock()
	if id, known := g.keys[call.IdempotencyKey]; known && call.IdempotencyKey != "" {
		return g.demos[id], true, true, nil
	}
	if g.warm == 0 {
		return api.Demo{}, false, false, g.change
	}
	g.warm--
	g.made++
	d := api.Demo{
		ID: api.NewLeaseID(), State: api.DemoActive, Template: call.Template, Credentials: &api.Credentials{Username: "admin", Password: "secret"},
		ExpiresAt: time.Now().Add(30 * time.Minute), Epoch: 1, Revision: 1,
	}
	g.demos[d.ID] = d
	g.keys[call.IdempotencyKey] = d.ID
	return d, false, true, nil
}

func (f *fakeDemos) find(id api.LeaseID) (api.Demo, error) {
	f.group.mu.Lock()
	defer f.group.mu.Unlock()
	leads := f.group.leader == f.id
	if d, ok := f.group.demos[id]; ok && (leads || !f.lagging.Load()) {
		return d, nil
	}
	if !leads {
		return api.Demo{}, errNotLeader()
	}
	return api.Demo{}, api.Errorf(api.CodeNotFound, "no demo has this id")
}

func (f *fakeDemos) Inspect(ctx context.Context, id api.LeaseID) (api.Demo, bool, error) {
	if err := f.enter(ctx, "inspect"); err != nil {
		return api.Demo{}, false, err
	}
	d, err := f.find(id)
	return d, f.stale.Load(), err
}

// write changes a demo, on the leader only.
func (f *fakeDemos) write(ctx context.Context, op string, id api.LeaseID, change func(*api.Demo)) (api.Demo, error) {
	if err := f.enter(ctx, op); err != nil {
		return api.Demo{}, err
	}
	if !f.leads() {
		return api.Demo{}, errNotLeader()
	}
	d, err := f.find(id)
	if err != nil {
		return api.Demo{}, err
	}
	change(&d)
	d.Revision++
	f.group.put(d)
	return d, nil
}

func (f *fakeDemos) Extend(ctx context.Context, id api.LeaseID, r api.ExtendRequest) (api.Demo, error) {
	return f.write(ctx, "extend", id, func(d *api.Demo) { d.ExpiresAt = time.Now().Add(r.TTL.D()) })
}

func (f *fakeDemos) Release(ctx context.Context, id api.LeaseID) (api.Demo, error) {
	return f.write(ctx, "release", id, func(d *api.Demo) { d.State = api.DemoReleased })
}

func (f *fakeDemos) Watch(api.LeaseID) (<-chan struct{}, func()) {
	changed, done, ended := make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			f.group.mu.Lock()
			change := f.group.change
			f.group.mu.Unlock()
			select {
			case <-change:
			case <-done:
				return
			}
			if f.quiet.Load() {
				continue
			}
			select {
			case changed <- struct{}{}:
			default:
			}
		}
	}()
	return changed, func() { close(done); <-ended }
}

func (f *fakeDemos) PoolStats() api.PoolStats { return api.PoolStats{Stale: f.stale.Load()} }

// fakeLimiter counts per client, in a window of an hour that never ends, and
// in one of a day.
type fakeLimiter struct {
	perHour int64
	err     error

	mu   sync.Mutex
	seen map[string]int64
}

func (l *fakeLimiter) Allow(_ context.Context, client string) (api.Quota, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return api.Quota{}, l.err
	}
	allowed := l.seen[client] < l.perHour
	if allowed {
		l.seen[client]++
	}
	return api.Quota{Allowed: allowed, Windows: []api.QuotaWindow{
		{Name: "hour", Limit: l.perHour, Remaining: l.perHour - l.seen[client], Window: time.Hour, Reset: 59*time.Minute + 58*time.Second + time.Millisecond},
		{Name: "day", Limit: 60, Remaining: 60 - l.seen[client], Window: 24 * time.Hour, Reset: 24 * time.Hour},
	}}, nil
}

func (l *fakeLimiter) count(client string) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen[client]
}

// fakeCluster is what one scheduler knows of a group.
type fakeCluster struct {
	group *group
	id    string

	mu      sync.Mutex
	belief  string // who leads, against the truth
	applied []api.Template
}

func (c *fakeCluster) believe(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.belief = id
}

func (c *fakeCluster) LeaderURL() (string, bool) {
	c.mu.Lock()
	leader := c.belief
	c.mu.Unlock()
	if leader == "" {
		c.group.mu.Lock()
		leader = c.group.leader
		c.group.mu.Unlock()
	}
	if leader == "" || leader == c.id {
		return "", false
	}
	return "http://" + leader + ":8080", true
}

func (c *fakeCluster) Status() api.ClusterStatus {
	return api.ClusterStatus{Server: api.ServerID(c.id), Leader: "s1"}
}
func (c *fakeCluster) Nodes() []api.NodeStatus         { return nil }
func (c *fakeCluster) Leases() []api.LeaseStatus       { return nil }
func (c *fakeCluster) Instances() []api.InstanceStatus { return nil }
func (c *fakeCluster) Templates() []api.TemplateStatus { return nil }

func (c *fakeCluster) Template(name api.TemplateName) (api.TemplateStatus, error) {
	if name != "shop" {
		return api.TemplateStatus{}, api.Errorf(api.CodeNotFound, "no template is called %q", name)
	}
	return api.TemplateStatus{Template: api.Template{Name: name}, Revision: 3}, nil
}

func (c *fakeCluster) ApplyTemplate(_ context.Context, t api.Template) (api.TemplateStatus, error) {
	c.group.mu.Lock()
	leads := c.group.leader == c.id
	c.group.mu.Unlock()
	if !leads {
		return api.TemplateStatus{}, errNotLeader()
	}
	t = t.WithDefaults()
	if err := t.Validate(); err != nil {
		return api.TemplateStatus{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.applied = append(c.applied, t)
	return api.TemplateStatus{Template: t, Revision: 4}, nil
}
