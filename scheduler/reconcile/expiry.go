package reconcile

import (
	"context"
	"time"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

const (
	// expiryBatch is how many leases one command ends: one log entry of some
	// 20 KB at most.
	expiryBatch = 256
	// collectBatch is how many records one command forgets.
	collectBatch  = 1000
	collectPeriod = 30 * time.Second
	// graceRetry is how long a new leader waits before it tries its first
	// command again.
	graceRetry = 200 * time.Millisecond
)

// grace gives every lease some time in a new term, and reports whether that
// was done before ctx ended. To give it twice does no harm.
func (t *term) grace(ctx context.Context) bool {
	v := t.o.Log.View()
	if t.o.LeaderGrace == 0 || v.ActiveLeases() == 0 {
		return ctx.Err() == nil
	}
	var short []api.LeaseID
	end := t.now(v).Add(t.o.LeaderGrace)
	for l := range v.LeasesByExpiry() {
		if !l.ExpiresAt.Before(end) {
			break
		}
		short = append(short, l.ID)
	}
	for failing := false; ; failing = true {
		result, err := t.propose(ctx, state.GrantGrace{Grace: api.Duration(t.o.LeaderGrace)})
		if err == nil {
			err = result.Err()
		}
		if err == nil {
			break
		}
		if !failing && ctx.Err() == nil {
			t.logger.Warn("cannot grant the grace of a new term yet; trying again", "err", err)
		}
		if !sleep(ctx, graceRetry, nil) {
			return false
		}
	}
	for _, id := range short {
		t.rec.Record(id)
	}
	return ctx.Err() == nil
}

// expiry ends leases whose time is over.
func (t *term) expiry() loop {
	return loop{name: "expiry", period: time.Second, pause: 10 * time.Millisecond, bells: []*bell{t.views}, round: t.expire}
}

func (t *term) expire(ctx context.Context) (next time.Time, err error) {
	v := t.o.Log.View()
	now := t.now(v)
	due, next := planExpiry(v, now, expiryBatch)
	if len(due) == 0 {
		if next.IsZero() {
			return next, nil
		}
		// By this server's timer, also where the state time is ahead of its clock.
		return time.Now().Add(next.Sub(now)), nil
	}
	result, err := t.propose(ctx, state.ExpireLeases{Leases: due})
	if err == nil {
		err = result.Err()
	}
	if err != nil {
		return time.Time{}, err
	}
	for _, l := range due {
		t.rec.Record(l.Lease)
	}
	return time.Now(), nil // there may be more
}

// planExpiry names at most limit leases that are over at now, the first to
// expire first, and says when the next one will be.
func planExpiry(v *state.View, now time.Time, limit int) (due []state.LeaseRevision, next time.Time) {
	for l := range v.LeasesByExpiry() {
		if l.ExpiresAt.After(now) || len(due) == limit {
			return due, l.ExpiresAt
		}
		due = append(due, state.LeaseRevision{Lease: l.ID, Revision: l.Revision})
	}
	return due, time.Time{}
}

// collection forgets what ended long ago.
func (t *term) collection() loop {
	return loop{name: "collection", period: collectPeriod, pause: 100 * time.Millisecond, round: t.collect}
}

func (t *term) collect(ctx context.Context) (next time.Time, err error) {
	v := t.o.Log.View()
	now := t.now(v)
	cmd, ok := planCollect(v, now, t.o.EndedKept)
	if !ok {
		return time.Time{}, nil
	}
	if err := t.execute(ctx, []action{{cmd: cmd}}); err != nil {
		return time.Time{}, err
	}
	return time.Now(), nil // there may be more
}

// planCollect returns the command that forgets what need not be remembered at
// now, if there is anything.
func planCollect(v *state.View, now time.Time, kept time.Duration) (state.Collect, bool) {
	cmd := state.Collect{EndedBefore: now.Add(-kept), Limit: collectBatch}
	for l := range v.LeasesByEnd() {
		if l.EndedAt.Before(cmd.EndedBefore) {
			return cmd, true
		}
		break
	}
	for c := range v.ClaimsByExpiry() {
		// A second late, so that the time of the command is surely beyond it.
		if c.ExpiresAt.Add(time.Second).Before(now) {
			return cmd, true
		}
		break
	}
	return state.Collect{}, false
}
