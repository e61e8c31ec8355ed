package httpd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/internal/httpx"
)

const (
	// dialTimeout ends dialling a leader whose host is gone. Hosts of one
	// cluster are near each other.
	dialTimeout = time.Second
	// idleConns is how many connections to one leader are kept: as many as
	// busy callers need at once.
	idleConns = 256
	// idleConnTimeout is shorter than the servers' own, so that this side
	// closes first and never sends into a closing connection.
	idleConnTimeout = 90 * time.Second
	// maxReply bounds what a leader's reply may take up here, in bytes.
	maxReply = 1 << 20
	// leaderCheck is how often a request at the leader asks whether that still
	// leads: a host that is cut off does not say that it lost the role.
	leaderCheck = 250 * time.Millisecond
)

var (
	errLeaderChanged = errors.New("another scheduler leads by now")
	errTooSlow       = errors.New("the leader gave no answer in time")
)

// passedOn are the request headers that the leader gets to see, next to the
// request ID and the hop headers.
var passedOn = []string{"Content-Type", "Accept", "Authorization", "Idempotency-Key", "Prefer", "Last-Event-Id"}

// passedBack are the reply headers that the caller gets to see. What this
// server set itself, such as the RateLimit fields, stays.
var passedBack = []string{"Content-Type", "Retry-After", "Location", "Preference-Applied", "Cache-Control", "X-Accel-Buffering", "Www-Authenticate", staleHeader}

func newForwarder(o Options, m metrics) *forwarder {
	return &forwarder{
		cluster: o.Cluster, server: o.Server, token: o.ClusterToken, logger: o.Logger, metrics: m,
		transport: &http.Transport{ // no proxy of the environment: members reach each other directly
			DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
			MaxIdleConnsPerHost: idleConns, IdleConnTimeout: idleConnTimeout, DisableCompression: true,
		},
	}
}

// send sends a call to the leader and copies the reply. Its errors have code
// not_leader where nothing was done, uncertain where that is not known.
func (f *forwarder) send(w http.ResponseWriter, c *call, leader string) error {
	ctx, cancel := context.WithCancelCause(c.r.Context())
	defer cancel(nil)
	stop := f.guard(c, leader, cancel)
	defer stop()
	var wrote atomic.Bool // the transport's goroutine sets it
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { wrote.Store(true) }})
	req, err := f.outgoing(traced, c, leader)
	if err != nil {
		return err
	}
	// Not through a client: its errors would show the URL, which opens the demo.
	res, err := f.transport.RoundTrip(req)
	if err != nil {
		return failed(ctx, c, err, wrote.Load())
	}
	defer func() { _ = res.Body.Close() }() // everything that matters was read, or the connection is given up
	if media, _, err := mime.ParseMediaType(res.Header.Get("Content-Type")); err == nil && media == "text/event-stream" {
		stop()
		return relay(w, res, cancel)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxReply+1))
	switch {
	case err != nil:
		return failed(ctx, c, err, true)
	case len(body) > maxReply:
		return fmt.Errorf("the leader's reply is larger than %d bytes", maxReply)
	}
	return deliver(w, c, res, body)
}

// outgoing builds the request for the leader.
func (f *forwarder) outgoing(ctx context.Context, c *call, leader string) (*http.Request, error) {
	u, err := url.Parse(leader)
	if err != nil {
		return nil, fmt.Errorf("the leader's URL: %w", err)
	}
	from := c.request()
	u.Path, u.RawPath, u.RawQuery = from.URL.Path, from.URL.RawPath, from.URL.RawQuery
	req, err := http.NewRequestWithContext(ctx, from.Method, u.String(), bytes.NewReader(c.body))
	if err != nil {
		return nil, fmt.Errorf("send the request on: %w", err)
	}
	for _, name := range passedOn {
		if values := from.Header.Values(name); len(values) > 0 {
			req.Header[name] = values
		}
	}
	req.Header.Set(httpx.RequestIDHeader, httpx.RequestID(ctx))
	req.Header.Set(forwardedByHeader, string(f.server))
	req.Header.Set(clusterTokenHeader, f.token)
	return req, nil
}

// guard gives up a call that takes too long, and one that may be repeated as
// soon as its leader is not the leader any more.
func (f *forwarder) guard(c *call, leader string, cancel context.CancelCauseFunc) (stop func()) {
	var stopped atomic.Bool
	var t *time.Timer
	armed := make(chan struct{})
	t = time.AfterFunc(leaderCheck, func() {
		<-armed // t is set
		now, ok := f.cluster.LeaderURL()
		switch {
		case stopped.Load():
		case time.Now().After(c.deadline):
			cancel(errTooSlow)
		case c.repeat && (!ok || now != leader):
			cancel(errLeaderChanged)
		default:
			t.Reset(leaderCheck)
		}
	})
	close(armed)
	return func() {
		stopped.Store(true)
		t.Stop()
	}
}

// failed says what a failure at err means. Before the header of a request was
// written nobody can have acted on it.
func failed(ctx context.Context, c *call, err error, sent bool) error {
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if sent {
		return uncertain(err)
	}
	return &api.Error{Code: api.CodeNotLeader, Message: "the leader cannot be reached; ask again shortly", RetryAfter: retryAfter, Err: err}
}

// deliver copies a reply, unless it says that the leader was another one.
func deliver(w http.ResponseWriter, c *call, res *http.Response, body []byte) error {
	if res.StatusCode >= http.StatusInternalServerError {
		var p api.Problem
		if err := json.Unmarshal(body, &p); err == nil {
			e := &api.Error{Code: p.Code, Message: p.Detail, RetryAfter: retryAfter}
			if p.Code == api.CodeNotLeader || p.Code == api.CodeUncertain && c.repeat {
				return e
			}
		}
	}
	passBack(w, res)
	w.WriteHeader(res.StatusCode)
	// A caller who left is the only way that this fails.
	_, _ = w.Write(body)
	return nil
}

func passBack(w http.ResponseWriter, res *http.Response) {
	for _, name := range passedBack {
		if values := res.Header.Values(name); len(values) > 0 {
			w.Header()[name] = values
		}
	}
}

// relay copies a status stream until one side ends it or goes silent.
func relay(w http.ResponseWriter, res *http.Response, cancel context.CancelCauseFunc) error {
	passBack(w, res)
	w.WriteHeader(res.StatusCode)
	out := newEventWriter(w)
	silent := time.AfterFunc(2*heartbeat, func() { cancel(errTooSlow) })
	defer silent.Stop()
	buf := make([]byte, 4<<10)
	for {
		n, err := res.Body.Read(buf)
		silent.Reset(2 * heartbeat)
		if n > 0 && out.write(buf[:n]) != nil || err != nil {
			return nil // the reply has begun: whoever watches connects again
		}
	}
}
