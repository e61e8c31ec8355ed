package reconcile

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

// proposeTimeout bounds one proposal, so that a slow log delays a round and
// does not stop a loop for ever.
const proposeTimeout = 5 * time.Second

// term is one leadership.
type term struct {
	o       Options
	number  uint64
	rec     Recorder
	metrics *metrics
	logger  *slog.Logger

	views *bell // rung when the view has changed
	fleet *fleet
	aside *aside
	table atomic.Pointer[table] // what the edges should serve; nil until rendered
	edges []*edgeLink

	demand  atomic.Pointer[map[api.TemplateName]int] // instances that broken leases wait for
	demands *bell                                    // rung when demand has changed
}

func newTerm(r *Reconciler, number uint64, rec Recorder) *term {
	t := &term{
		o: r.o, number: number, rec: rec, metrics: r.metrics, logger: r.o.Logger.With("term", number),
		views: &bell{}, demands: &bell{}, aside: newAside(),
	}
	t.fleet = newFleet(t)
	for _, e := range r.o.Edges {
		t.edges = append(t.edges, newEdgeLink(t, e))
	}
	return t
}

// run is the leadership. Grace comes first: no agent may hear of an end of a
// lease, and no expiry be planned, that the grace is about to move.
func (t *term) run(ctx context.Context) {
	if !t.grace(ctx) {
		return
	}
	var parts sync.WaitGroup
	defer parts.Wait()
	parts.Go(func() { t.watch(ctx) })
	parts.Go(func() { t.fleet.run(ctx) })
	for _, e := range t.edges {
		parts.Go(func() { e.run(ctx) })
	}
	for _, l := range t.loops() {
		parts.Go(func() { t.repeat(ctx, l) })
	}
}

// loops are those parts of a leadership that work in rounds.
func (t *term) loops() []loop {
	return []loop{t.expiry(), t.collection(), t.sweeping(), t.rebinding(), t.pooling(), t.routing()}
}

// watch shares one subscription of the log among all loops.
func (t *term) watch(ctx context.Context) {
	changed, stop := t.o.Log.Subscribe()
	defer stop()
	for {
		t.views.ring()
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// now is the time to decide by. The state time may be ahead of this server's
// clock, and a command is judged by the later of the two.
func (t *term) now(v *state.View) time.Time {
	if now := time.Now(); now.After(v.Time()) {
		return now
	}
	return v.Time()
}

// action is a command of a plan with what else has to be told.
type action struct {
	cmd     state.Command
	lease   api.LeaseID   // whose record changes with it; empty: none
	failure failureReason // with FailInstance
}

// execute proposes the actions one after the other and returns the first error
// that keeps the rest from being proposed. A refusal means that the view has
// moved on: the next plan sees why.
func (t *term) execute(ctx context.Context, actions []action) error {
	for _, a := range actions {
		result, err := t.propose(ctx, a.cmd)
		if api.CodeOf(err) == api.CodeInvalid {
			// It cannot be written at all: the others must not wait for it.
			t.logger.Error("a command is not valid", "command", a.cmd.Kind().String(), "err", err)
			continue
		}
		if err != nil {
			return err
		}
		if result.Refusal != nil {
			t.refused(a.cmd, result.Refusal)
			continue
		}
		t.tell(a, result)
	}
	return nil
}

func (t *term) propose(ctx context.Context, cmd state.Command) (state.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, proposeTimeout)
	defer cancel()
	return t.o.Log.Propose(ctx, cmd)
}

func (t *term) refused(cmd state.Command, refusal *api.Error) {
	switch refusal.Code {
	case api.CodeConflict, api.CodeNotFound:
		t.logger.Debug("a command came too late", "command", cmd.Kind().String(), "err", refusal)
	default:
		t.logger.Error("a command was refused", "command", cmd.Kind().String(), "err", refusal)
	}
}

// tell passes on what an applied action means for others.
func (t *term) tell(a action, result state.Result) {
	switch cmd := a.cmd.(type) {
	case state.WarmInstance:
		i := result.Instance
		t.aside.succeeded(startKey{i.Node, i.Template})
		t.rec.Warmed(i.Template.Name, i.ChangedAt)
		t.logger.Debug("an instance is warm", "node", i.Node, "template", i.Template.Name, "instance", i.ID)
	case state.FailInstance:
		i := result.Instance
		t.metrics.failures.WithLabelValues(string(a.failure)).Inc()
		t.aside.failed(startKey{i.Node, i.Template}, time.Now())
		t.logger.Warn("an instance failed", "node", i.Node, "template", i.Template.Name, "instance", i.ID, "reason", cmd.Reason)
	case state.RebindLease:
		t.logger.Info("a lease moved to another instance", "node", result.Instance.Node, "instance", cmd.Instance, "epoch", result.Lease.Epoch)
	case state.LoseLease:
		t.logger.Warn("a lease is lost: its instance is gone and no other became warm in time", "template", result.Lease.Template.Name)
	case state.StartBuild:
		t.logger.Info("building a checkpoint", "template", cmd.Key.Template.Name, "revision", cmd.Key.Template.Revision, "node", cmd.Builder, "attempt", cmd.Attempt)
	case state.FinishBuild:
		if cmd.Digest == "" {
			t.logger.Warn("a checkpoint could not be built; instances start cold", "template", cmd.Key.Template.Name, "attempt", cmd.Attempt, "reason", cmd.Reason)
		} else {
			t.logger.Info("a checkpoint is ready", "template", cmd.Key.Template.Name, "revision", cmd.Key.Template.Revision, "digest", cmd.Digest)
		}
	case state.PutNode:
		t.logger.Info("a node is up", "node", cmd.Node.ID, "host_class", cmd.Node.HostClass, "restores", cmd.Node.Restores)
	case state.SetNodeStatus:
		t.logger.Warn("a node is down", "node", cmd.Node, "reason", cmd.Reason)
	}
	if a.lease != "" {
		t.rec.Record(a.lease)
	}
}
