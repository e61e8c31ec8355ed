package httpd

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/internal/httpx"
)

const (
	// patience is how long a request looks for a leader: an election takes
	// less than that, and callers should not have to know of elections.
	patience = 2 * time.Second
	// lookEvery is how often it looks.
	lookEvery = 25 * time.Millisecond
	// callTimeout bounds a request at the leader, on top of the time that the
	// caller wants to wait in line. It protects against a leader that hangs.
	callTimeout = 15 * time.Second
)

// repeatable reports whether doing a request twice is as good as doing it once.
type repeatable func(r *http.Request) bool

func always(*http.Request) bool { return true }

// withKey is for acquires: the key makes the second one return the first one's
// demo.
func withKey(r *http.Request) bool { return r.Header.Get("Idempotency-Key") != "" }

// forwarder sends requests on to the leader.
type forwarder struct {
	cluster   Cluster
	server    api.ServerID
	token     string
	transport *http.Transport
	logger    *slog.Logger
	metrics   metrics
}

// leading runs a handler of which parts can be done by the leader only. Where
// the handler says so, the request is sent on.
func (s *Server) leading(repeat repeatable, local httpx.Handler) httpx.Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		body, err := httpx.ReadBody(r, maxTemplate) // handlers have lower limits of their own
		if err != nil {
			return err
		}
		c := newCall(r, body, repeat(r))
		if hopOf(r.Context()).last {
			return lastHop(local(w, c.request()))
		}
		return s.forwarder.serve(w, c, local) //nolint:contextcheck // the call holds the context of its request
	}
}

// lastHop is the answer to the scheduler that sent the request here, which
// knows best where to look next.
func lastHop(err error) error {
	if api.CodeOf(err) != api.CodeNotLeader {
		return err
	}
	return &api.Error{Code: api.CodeNotLeader, Message: "another scheduler leads, or none; ask again shortly", RetryAfter: retryAfter, Err: err}
}

// serve tries the request here and at the leader, whoever that is by then,
// until one of them answers or patience runs out. Only looking around wears
// patience out: a caller may have waited in line for long before its leader
// was lost, and still deserves the next one.
func (f *forwarder) serve(w http.ResponseWriter, c *call, local httpx.Handler) error {
	for left := patience; ; {
		err := local(w, c.request())
		if !c.again(err) {
			return err
		}
		if leader, ok := f.cluster.LeaderURL(); ok && c.r.Context().Err() == nil {
			began := time.Now()
			err = f.send(w, c, leader)
			f.metrics.forwarded(began, err)
			if !c.again(err) {
				return err
			}
			f.logger.Debug("a request did not reach the leader", "request_id", httpx.RequestID(c.r.Context()), "leader", leader, "err", err)
			if api.CodeOf(err) == api.CodeNotLeader {
				left -= time.Since(began) // it was spent dialling
			}
		}
		left -= lookEvery
		if left <= 0 || time.Now().After(c.deadline) {
			return c.giveUp(err)
		}
		if cause := pause(c.r.Context(), lookEvery); cause != nil {
			return c.stopped(cause)
		}
	}
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// call is one request on its way to whoever leads.
type call struct {
	r        *http.Request
	body     []byte
	repeat   bool // doing it twice is as good as doing it once
	unsure   bool // an attempt may have done it
	wait     time.Duration
	began    time.Time
	deadline time.Time
}

func newCall(r *http.Request, body []byte, repeat bool) *call {
	c := &call{r: r, body: body, repeat: repeat, began: time.Now()}
	c.wait, _ = parseWait(r.Header.Values("Prefer"))
	c.deadline = c.began.Add(callTimeout + c.wait)
	return c
}

// request returns the request with its body unread. What it waited already is
// taken off what it wants to wait.
func (c *call) request() *http.Request {
	c.r.Body = io.NopCloser(bytes.NewReader(c.body))
	if c.wait > 0 {
		left := max(0, c.wait-time.Since(c.began))
		c.r.Header.Set("Prefer", fmt.Sprintf("wait=%d", ceilSeconds(left)))
	}
	return c.r
}

// again reports whether another attempt makes sense after err: nothing was
// done, or nothing is lost by doing it twice.
func (c *call) again(err error) bool {
	switch api.CodeOf(err) {
	case api.CodeNotLeader:
		return true
	case api.CodeUncertain:
		c.unsure = true
		return c.repeat
	default:
		return false
	}
}

// stopped says what is known when the caller left or this server stops.
func (c *call) stopped(cause error) error {
	if c.unsure && c.r.Method != http.MethodGet {
		return uncertain(cause)
	}
	return cause
}

// giveUp says what is known after all attempts, of which err ended the last.
func (c *call) giveUp(err error) error {
	if c.unsure && c.r.Method != http.MethodGet {
		return uncertain(err)
	}
	return unavailable("no scheduler leads at the moment; ask again shortly: %w", err)
}

func uncertain(err error) *api.Error {
	return &api.Error{
		Code:       api.CodeUncertain,
		Message:    "the leader was lost while it worked on this, so nobody knows whether it was done; repeat it, an acquire with the same Idempotency-Key (send one with every acquire)",
		RetryAfter: retryAfter, Err: err,
	}
}
