package reconcile

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

const (
	// desireTimeout is for an agent that writes what is new to its disk.
	desireTimeout = 5 * time.Second
	// probeTimeout is for the same again, which costs the agent nothing.
	probeTimeout = 2 * time.Second
	// doubtTimeout is for a probe of a node that gossip thinks is dead.
	doubtTimeout = time.Second
	// observeTimeout is the agent's long poll and some time for its reply.
	observeTimeout = 12 * time.Second

	// probePeriod bounds how late silence is noticed.
	probePeriod = 2 * time.Second
	// retryPeriod is for agents that did not answer.
	retryPeriod = time.Second
	// linkTick is how often a link looks at the clock.
	linkTick = 250 * time.Millisecond
)

// link is the conversation with one agent. Its goroutine owns what is not
// marked otherwise.
type link struct {
	t       *term
	id      api.NodeID
	url     string
	address string // IP address in url, at which the instances are reached
	agent   Agent
	logger  *slog.Logger

	wake chan struct{}
	stop context.CancelFunc // of its owner, the fleet
	done chan struct{}

	alive   atomic.Bool // what gossip thinks; written by the fleet
	suspect atomic.Bool // read by everybody
	holds   atomic.Pointer[map[api.Digest]bool]

	stale      bool // the view may have changed since content was rendered
	rendered   time.Time
	counts     state.Counts // on the node, as rendered
	content    content
	generation uint64 // of content; 0: none yet
	accepted   uint64 // last generation that the agent took
	greeted    string // boot of the agent's process that took it
	unnamed    map[api.InstanceID]uint64

	contact  contact
	believed bool // gossip thought it alive when last looked
	looked   time.Time
	observed api.Observed // boot empty: nothing yet
	fresh    bool         // there may be something to conclude

	calls     sync.WaitGroup
	answers   chan answer // room for one of each kind, so that a call never waits
	desiring  bool
	desiredAt time.Time
	polling   context.CancelFunc // nil: no poll is under way
}

// answer is how a call ended.
type answer struct {
	poll       bool
	generation uint64 // that a Desire carried
	observed   api.Observed
	err        error
	cut        bool // the link itself cut it short
}

func newLink(t *term, m Member) (*link, error) {
	u, err := url.Parse(m.URL)
	if err != nil {
		return nil, fmt.Errorf("parse the URL of the agent: %w", err)
	}
	if _, err := netip.ParseAddr(u.Hostname()); err != nil {
		return nil, fmt.Errorf("the URL of the agent must have an IP address: %w", err)
	}
	agent, err := t.o.Dial(m.URL)
	if err != nil {
		return nil, err
	}
	l := &link{
		t: t, id: m.ID, url: m.URL, address: u.Hostname(), agent: agent, logger: t.logger.With("node", m.ID),
		wake: make(chan struct{}, 1), done: make(chan struct{}), answers: make(chan answer, 2),
		unnamed: map[api.InstanceID]uint64{}, believed: true,
	}
	l.holds.Store(&map[api.Digest]bool{})
	return l, nil
}

// run talks to the agent until ctx ends.
func (l *link) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer l.calls.Wait()
	defer cancel()
	tick := time.NewTicker(linkTick)
	defer tick.Stop()
	now := time.Now()
	l.contact.heard, l.looked, l.stale = now, now, true
	for {
		l.look(ctx, time.Now())
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
			l.stale = true
		case a := <-l.answers:
			l.take(a, time.Now())
		case <-tick.C:
		}
	}
}

// look starts the calls that are due, and acts on what is known.
func (l *link) look(ctx context.Context, now time.Time) {
	if gap := now.Sub(l.looked) - 2*linkTick; gap > 0 {
		l.contact.excuse(gap)
	}
	l.looked = now
	if l.stale && l.renderDue(now) {
		l.render(now)
	}
	doubted := l.believed && !l.alive.Load()
	l.believed = l.alive.Load()
	if doubted && l.polling != nil {
		l.polling()
	}
	if !l.desiring && (doubted || l.due(now)) {
		l.desire(ctx, now)
	}
	if l.polling == nil && l.accepted > 0 && !l.contact.failing && l.alive.Load() {
		l.poll(ctx)
	}
	if suspect := l.contact.suspect(now); suspect != l.suspect.Load() {
		l.suspect.Store(suspect)
		l.t.fleet.changed.ring()
		if suspect {
			l.logger.Info("a node does not answer", "err", l.contact.err)
		}
	}
	l.act(ctx, now)
}

// due reports whether the agent should be told again, or anew.
func (l *link) due(now time.Time) bool {
	if l.contact.failing {
		return now.Sub(l.desiredAt) >= retryPeriod
	}
	return l.accepted != l.generation || now.Sub(l.desiredAt) >= probePeriod
}

// desire tells the agent the complete content. It runs beside a poll.
func (l *link) desire(ctx context.Context, now time.Time) {
	l.desiring, l.desiredAt = true, now
	d := l.content.at(l.t.number, l.generation, l.t.now(l.t.o.Log.View()))
	timeout := desireTimeout
	switch {
	case !l.alive.Load():
		timeout = doubtTimeout
	case l.accepted == l.generation:
		timeout = probeTimeout
	}
	l.calls.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		start := time.Now()
		observed, err := l.agent.Desire(ctx, d)
		l.t.metrics.exchanged(time.Since(start), err)
		l.answers <- answer{generation: d.Generation, observed: observed, err: err}
	})
}

// poll waits for news. Its answer comes late by design, so that only desire
// tells in time whether the node is there.
func (l *link) poll(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, observeTimeout)
	cut, boot, after := &atomic.Bool{}, l.observed.Boot, l.observed.Revision
	l.polling = func() { cut.Store(true); cancel() }
	l.calls.Go(func() {
		defer cancel()
		observed, err := l.agent.Observe(ctx, boot, after)
		l.answers <- answer{poll: true, observed: observed, err: err, cut: cut.Load()}
	})
}

// take learns from an answer.
func (l *link) take(a answer, now time.Time) {
	if a.poll {
		l.polling = nil
	} else {
		l.desiring = false
	}
	if a.cut && a.err != nil {
		return
	}
	if a.err == nil && a.observed.Node.ID != l.id {
		a.err = fmt.Errorf("the agent at %s says that it is node %q", l.url, a.observed.Node.ID)
	}
	if a.err != nil {
		l.complain(a.err)
		l.contact.failed(a.err, now)
		return
	}
	if !a.poll {
		l.accepted, l.greeted = a.generation, a.observed.Boot
	}
	if a.poll && l.contact.failing {
		l.contact.lived = now // and yet it takes no orders, so it must get nothing new
	} else {
		l.contact.succeeded(now)
	}
	l.learn(a.observed)
}

// complain logs an error once, however often it is repeated.
func (l *link) complain(err error) {
	if old := l.contact.err; old != nil && old.Error() == err.Error() {
		return
	}
	switch api.CodeOf(err) {
	case api.CodeConflict, api.CodeInvalid, api.CodeUnauthenticated:
		l.logger.Warn("an agent refuses what it is told", "err", err)
	default:
		l.logger.Debug("an exchange with an agent failed", "err", err)
	}
}

// learn keeps o unless something newer is known.
func (l *link) learn(o api.Observed) {
	if o.Boot == l.observed.Boot && o.Revision < l.observed.Revision {
		return
	}
	if o.Boot != l.greeted {
		l.accepted = 0 // a new process: it is told before anything is concluded
	}
	before, now := *l.holds.Load(), ready(o)
	l.observed, l.fresh = o, true
	if !maps.Equal(before, now) {
		l.holds.Store(&now)
		l.t.fleet.hold(l, before, now)
	}
}

// act proposes what follows from what was observed, or from silence.
func (l *link) act(ctx context.Context, now time.Time) {
	v := l.t.o.Log.View()
	n, known := v.Node(l.id)
	if why := l.contact.lost(now, l.t.o.NodeGrace); why != "" {
		if known && n.Status == api.NodeUp {
			l.propose(ctx, []action{{cmd: state.SetNodeStatus{Node: l.id, Status: api.NodeDown, Reason: why}}})
		}
		return
	}
	// What a suspect node said last is no ground for anything.
	if !l.fresh || l.observed.Boot == "" || l.accepted == 0 || l.contact.suspect(now) {
		return
	}
	l.fresh = false
	l.propose(ctx, planObserved(v, l.saw(), l.t.now(v)))
}

func (l *link) propose(ctx context.Context, actions []action) {
	if err := l.t.execute(ctx, actions); err != nil && ctx.Err() == nil {
		l.fresh = true // the next tick tries again
		l.logger.Debug("cannot record what a node reported; trying again", "err", err)
	}
}
