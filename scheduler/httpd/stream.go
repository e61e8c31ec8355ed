package httpd

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/boss/demo-multiplexer/api"
)

const (
	// heartbeat keeps a stream open at load balancers that end silent ones.
	heartbeat = 15 * time.Second
	// endCheck is how often a stream asks for the end of a demo whose time is
	// over: the announcement must not depend on one signal.
	endCheck = 100 * time.Millisecond
	// lateEndCheck is how often it asks when the end is overdue, which takes a
	// cluster without a leader: thousands of streams must not add to that.
	lateEndCheck = time.Second
	// overdue is when an end is.
	overdue = 3 * time.Second
	// inspectTimeout bounds one look at a demo.
	inspectTimeout = 5 * time.Second
)

// The events of a status stream.
const (
	eventState     = "state"     // the first, and changes without a name of their own
	eventCountdown = "countdown" // every second
	eventExtended  = "extended"  // it ends at another time
	eventMoved     = "moved"     // it runs elsewhere now, under the same URL
	eventEnded     = "ended"     // the last
)

// status streams what happens to a demo. Its errors all come before the first
// byte.
func (s *Server) status(w http.ResponseWriter, r *http.Request) error {
	id, err := api.ParseLeaseID(chi.URLParam(r, "id"))
	if err != nil {
		return err
	}
	changed, stop := s.demos.Watch(id) // before the first look, so that no change falls between
	defer stop()
	demo, stale, err := s.demos.Inspect(r.Context(), id)
	if err != nil {
		return err
	}
	seen := lastSeen(r.Header.Get("Last-Event-ID"), demo.Revision)
	if seen && demo.State.Ended() {
		w.WriteHeader(http.StatusNoContent) // browsers stop connecting again
		return nil
	}
	setStale(w, stale)
	st := &stream{demos: s.demos, out: newEventWriter(w), demo: demo}
	if err := st.open(w, seen); err == nil {
		st.follow(r.Context(), changed)
	}
	return nil
}

// stream is one open status stream.
type stream struct {
	demos Demos
	out   *eventWriter
	demo  api.Demo // as the watcher knows it
	told  int64    // remaining seconds that the watcher knows
}

// open starts the reply and says how things are, unless the watcher has seen
// that.
func (st *stream) open(w http.ResponseWriter, seen bool) error {
	startEvents(w)
	if err := st.out.retry(); err != nil || seen {
		st.told = remaining(st.demo, time.Now())
		return err
	}
	if st.demo.State.Ended() {
		return st.tell(eventEnded)
	}
	return st.tell(eventState)
}

// follow tells what happens until the demo or the watcher is gone.
func (st *stream) follow(ctx context.Context, changed <-chan struct{}) {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	tick := time.NewTimer(st.untilTick(time.Now()))
	defer tick.Stop()
	for !st.demo.State.Ended() {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-beat.C:
			err = st.out.comment()
		case _, ok := <-changed:
			if !ok {
				changed = nil // nobody signals any more; the timer goes on
			}
			err = st.look(ctx)
		case <-tick.C:
			err = st.tick(ctx, time.Now())
		}
		if err != nil {
			return
		}
		tick.Reset(st.untilTick(time.Now()))
	}
}

// tick counts down, and once the time is over asks for the end.
func (st *stream) tick(ctx context.Context, now time.Time) error {
	left := remaining(st.demo, now)
	switch {
	case left == 0:
		st.told = 0
		return st.look(ctx)
	case left == st.told: // the timer was a little early
		return nil
	default:
		return st.tell(eventCountdown)
	}
}

// untilTick is the time until the remaining seconds change, or until the next
// look for the end.
func (st *stream) untilTick(now time.Time) time.Duration {
	left := remaining(st.demo, now)
	late := now.Sub(st.demo.ExpiresAt)
	switch {
	case left != st.told:
		return 0 // something else happened at the very time of a tick
	case left > 0:
		return st.demo.ExpiresAt.Add(-time.Duration(left-1) * time.Second).Sub(now)
	case late < overdue:
		return endCheck
	default:
		return lateEndCheck
	}
}

// errGone ends a stream whose demo is not remembered any more.
var errGone = errors.New("the demo is not known any more")

// look tells the watcher what has changed. A look that fails is repeated by
// the next signal or tick.
func (st *stream) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, inspectTimeout)
	defer cancel()
	demo, _, err := st.demos.Inspect(ctx, st.demo.ID)
	switch code := api.CodeOf(err); {
	case code == api.CodeNotFound || code == api.CodeNotLeader:
		return errGone
	case err != nil || demo.Revision <= st.demo.Revision:
		return nil // also a reply from a record that is older than what was told
	}
	event := eventOf(st.demo, demo)
	st.demo = demo
	return st.tell(event)
}

// eventOf names the change from one demo to its next revision.
func eventOf(before, after api.Demo) string {
	switch {
	case after.State.Ended():
		return eventEnded
	case after.Epoch > before.Epoch:
		return eventMoved
	case !after.ExpiresAt.Equal(before.ExpiresAt):
		return eventExtended
	default:
		return eventState
	}
}

func (st *stream) tell(event string) error {
	st.told = remaining(st.demo, time.Now())
	return st.out.event(event, st.demo, st.told)
}

// remaining is in whole seconds, rounded up: 0 means that the time is over.
func remaining(d api.Demo, now time.Time) int64 {
	if d.State.Ended() {
		return 0
	}
	return max(0, ceilSeconds(d.ExpiresAt.Sub(now)))
}
