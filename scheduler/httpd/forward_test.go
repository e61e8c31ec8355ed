package httpd

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/internal/httpx"
)

// pair is a leader s1, a follower s2 and a spare s3, all of one group.
type pair struct {
	network  *network
	group    *group
	s1, s2   *node
	s3       *node
	acquire  request
	withKey  request
	template request
}

// cluster runs test on a pair in virtual time.
func cluster(t *testing.T, test func(t *testing.T, p *pair)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := &pair{network: newNetwork(), group: newGroup("s1")}
		p.s1, p.s2, p.s3 = start(t, p.network, p.group, "s1"), start(t, p.network, p.group, "s2"), start(t, p.network, p.group, "s3")
		p.acquire = request{method: "POST", path: acquirePath, body: `{"template":"shop"}`}
		p.withKey = p.acquire
		p.withKey.header = map[string]string{"Idempotency-Key": "k"}
		p.template = request{method: "PUT", path: "/api/v1/templates/shop", body: `{"name":"shop","image":"img","port":80}`,
			header: map[string]string{"Authorization": "Bearer " + adminToken}}
		test(t, p)
	})
}

func TestFollowerForwards(t *testing.T) {
	cluster(t, func(t *testing.T, p *pair) {
		p.acquire.header = map[string]string{"X-Request-Id": "mine", "Prefer": "wait=9", "Idempotency-Key": "k"}
		got := p.s2.do(t, p.acquire)
		demo := decode[api.Demo](t, got)
		for k, v := range map[string]string{
			"Location": "/api/v1/demo/" + string(demo.ID), "X-Request-Id": "mine", "Preference-Applied": "wait=9", "Content-Type": "application/json",
			"RateLimit": `"hour";r=4;t=3599, "day";r=59;t=86400`, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
		} {
			if all := got.header.Values(k); len(all) != 1 || all[0] != v {
				t.Errorf("got %s %q, want %q once", k, all, v)
			}
		}
		call := p.s1.demos.lastCall()
		if got.status != 201 || demo.Credentials == nil || call.IdempotencyKey != "k" || call.Wait != 9*time.Second || call.Template != "shop" {
			t.Errorf("got %d %s from the call %+v, want 201 and the whole call", got.status, got.body, call)
		}
		if len(p.s1.limiter.seen) != 0 || p.s2.limiter.count("192.0.2.1") != 1 {
			t.Errorf("counted %v at the leader, %v at the follower, want only the latter", p.s1.limiter.seen, p.s2.limiter.seen)
		}
		if again := p.s2.do(t, p.acquire); again.status != 200 {
			t.Errorf("the same key again: got %d, want 200", again.status)
		}
		p.acquire.body, p.acquire.header = `{"template":"nosuch"}`, map[string]string{"X-Request-Id": "other"}
		if problem := problem(t, p.s2.do(t, p.acquire), 404, api.CodeNotFound); problem.RequestID != "other" || problem.Instance != acquirePath {
			t.Errorf("got problem %+v, want request id other and the path", problem)
		}
		p.group.warm = 0
		p.acquire.body = ""
		if got := p.s2.do(t, p.acquire); got.header.Get("Retry-After") != "7" {
			t.Errorf("exhausted: got headers %v, want Retry-After 7", got.header)
		}
	})
}

func TestFollowerForwardsEverythingElse(t *testing.T) {
	cluster(t, func(t *testing.T, p *pair) {
		demo := p.group.lease(time.Hour)
		path := "/api/v1/demo/" + string(demo.ID)
		p.s2.demos.lagging.Store(true)
		if got := decode[api.Demo](t, p.s2.do(t, request{method: "GET", path: path})); got.ID != demo.ID {
			t.Errorf("a demo that the follower does not know yet: got %+v, want %s", got, demo.ID)
		}
		got := p.s2.do(t, request{method: "POST", path: path + "/extend", body: `{"ttl":"2h"}`})
		if end := decode[api.Demo](t, got).ExpiresAt; end.Sub(demo.ExpiresAt) < 59*time.Minute {
			t.Errorf("extend: got the end %s, want an hour after %s", end, demo.ExpiresAt)
		}
		if got := p.s2.do(t, p.template); got.status != 200 || len(p.s1.cluster.applied) != 1 {
			t.Errorf("template: got %d %s, want 200 from the leader", got.status, got.body)
		}
		if got := decode[api.Demo](t, p.s2.do(t, request{method: "DELETE", path: path})); got.State != api.DemoReleased {
			t.Errorf("release: got %+v, want released", got)
		}
		problem(t, p.s2.do(t, request{method: "GET", path: "/api/v1/demo/" + string(api.NewLeaseID())}), 404, api.CodeNotFound)
		p.template.body = `{"name":"shop"}`
		if got := problem(t, p.s2.do(t, p.template), 400, api.CodeInvalid); len(got.Fields) == 0 {
			t.Errorf("wrong template: got %+v, want the fields", got)
		}
		if p.s1.demos.count("inspect") != 2 {
			t.Errorf("the leader was asked %d times, want 2", p.s1.demos.count("inspect"))
		}
	})
}

func TestNoLeader(t *testing.T) {
	cluster(t, func(t *testing.T, p *pair) {
		p.group.elect("")
		began := time.Now()
		got := p.s2.do(t, p.acquire)
		if problem(t, got, 503, api.CodeUnavailable); got.header.Get("Retry-After") != "1" || time.Since(began) < patience-2*lookEvery || time.Since(began) > patience+2*lookEvery {
			t.Errorf("got headers %v after %s, want Retry-After 1 after 2s", got.header, time.Since(began))
		}
		for _, leader := range []string{"s1", "s2"} { // another one, and the one that was asked
			p.group.elect("")
			time.AfterFunc(time.Second, func() { p.group.elect(leader) })
			began := time.Now()
			if got := p.s2.do(t, p.acquire); got.status != 201 || time.Since(began) > time.Second+2*lookEvery {
				t.Errorf("%s leads after 1s: got %d after %s, want 201 at once", leader, got.status, time.Since(began))
			}
		}
	})
}

func TestLeaderRefusesConnections(t *testing.T) {
	cluster(t, func(t *testing.T, p *pair) {
		p.network.kill(p.s1.address)
		time.AfterFunc(time.Second, func() { p.group.elect("s3") })
		if got := p.s2.do(t, p.acquire); got.status != 201 || p.group.made != 1 {
			t.Errorf("got %d %s and %d demos, want 201 and one: nothing was sent to the dead leader", got.status, got.body, p.group.made)
		}
	})
}

// TestLeaderDiesMidRequest breaks the connection after the leader has begun.
func TestLeaderDiesMidRequest(t *testing.T) {
	for _, c := range []struct {
		name   string
		key    bool
		op     string
		after  bool // the leader had done it
		status int
		code   api.Code
	}{
		{name: "acquire with key", key: true, op: "acquire", status: 201},
		{name: "acquire with key, done", key: true, op: "acquire", after: true, status: 200},
		{name: "acquire without key", op: "acquire", status: 504, code: api.CodeUncertain},
		{name: "extend", op: "extend", status: 200},
		{name: "release", op: "release", status: 200},
		{name: "inspect", op: "inspect", status: 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			cluster(t, func(t *testing.T, p *pair) {
				demo := p.group.lease(time.Hour)
				p.s2.demos.lagging.Store(true)
				p.s1.demos.before = func(ctx context.Context, op string) error {
					if op != c.op {
						return nil
					}
					if c.after {
						p.s1.demos.take(api.AcquireCall{IdempotencyKey: "k"})
					}
					p.network.kill(p.s1.address)
					time.AfterFunc(time.Second, func() { p.group.elect("s3") })
					<-ctx.Done()
					return ctx.Err()
				}
				path := "/api/v1/demo/" + string(demo.ID)
				r := map[string]request{
					"acquire": p.acquire, "extend": {method: "POST", path: path + "/extend", body: `{"ttl":"2h"}`},
					"release": {method: "DELETE", path: path}, "inspect": {method: "GET", path: path},
				}[c.op]
				if c.key {
					r = p.withKey
				}
				got := p.s2.do(t, r)
				if c.code != "" {
					if problem := problem(t, got, c.status, c.code); !strings.Contains(problem.Detail, "Idempotency-Key") {
						t.Errorf("got %q, want a word about Idempotency-Key", problem.Detail)
					}
				}
				if got.status != c.status || p.group.made > 1 {
					t.Errorf("got %d %s and %d demos, want %d and at most one", got.status, got.body, p.group.made, c.status)
				}
			})
		})
	}
}

// TestLeaderGoesSilent has a leader that accepts and never answers, as a host
// that is cut off does.
func TestLeaderGoesSilent(t *testing.T) {
	cluster(t, func(t *testing.T, p *pair) {
		p.network.cut(p.s1.address)
		time.AfterFunc(time.Second, func() { p.group.elect("s3") })
		began := time.Now()
		if got := p.s2.do(t, p.withKey); got.status != 201 || time.Since(began) > 2*time.Second {
			t.Errorf("with a key: got %d after %s, want 201 soon after the election", got.status, time.Since(began))
		}
		p.group.elect("s1")
		time.AfterFunc(time.Second, func() { p.group.elect("s3") })
		began = time.Now()
		if problem(t, p.s2.do(t, p.acquire), 504, api.CodeUncertain); time.Since(began) > callTimeout+time.Second {
			t.Errorf("without a key: answered after %s, want %s", time.Since(began), callTimeout)
		}
		p.group.elect("s1") // and stays: nobody else leads
		if problem(t, p.s2.do(t, request{method: "GET", path: "/api/v1/demo/" + string(api.NewLeaseID())}), 503, api.CodeUnavailable); time.Since(began) > 3*callTimeout {
			t.Errorf("a read went on for %s", time.Since(began))
		}
	})
}

// TestLeaderLostAfterLongWait keeps a caller in line whose leader is lost.
func TestLeaderLostAfterLongWait(t *testing.T) {
	cluster(t, func(t *testing.T, p *pair) {
		p.group.warm = 0
		p.withKey.header["Prefer"] = "wait=50"
		time.AfterFunc(40*time.Second, func() {
			p.network.kill(p.s1.address)
			p.group.elect("s3")
		})
		began := time.Now()
		got := p.s2.do(t, p.withKey)
		if problem(t, got, 503, api.CodeExhausted); time.Since(began) > 51*time.Second || p.s3.demos.lastCall().Wait > 10*time.Second {
			t.Errorf("answered after %s, want 50s: the new leader was asked for %+v", time.Since(began), p.s3.demos.lastCall())
		}
	})
}

func TestUncertainLeaderIsAskedAgain(t *testing.T) {
	cluster(t, func(t *testing.T, p *pair) {
		var asked atomic.Int64
		p.s1.demos.before = func(context.Context, string) error {
			if asked.Add(1) == 1 {
				return api.Errorf(api.CodeUncertain, "leadership lost")
			}
			return nil
		}
		if got := p.s2.do(t, p.withKey); got.status != 201 {
			t.Errorf("with a key: got %d %s, want 201", got.status, got.body)
		}
		asked.Store(0)
		problem(t, p.s2.do(t, p.acquire), 504, api.CodeUncertain)
		if asked.Load() != 1 {
			t.Errorf("without a key the leader was asked %d times, want once", asked.Load())
		}
	})
}

// TestHopLoop has two followers that take each other for the leader.
func TestHopLoop(t *testing.T) {
	cluster(t, func(t *testing.T, p *pair) {
		p.group.elect("")
		p.s1.cluster.believe("s2")
		p.s2.cluster.believe("s1")
		problem(t, p.s2.do(t, p.acquire), 503, api.CodeUnavailable)
		if n := p.s2.demos.count("acquire") - p.s1.demos.count("acquire"); n < 0 || n > 1 {
			t.Errorf("asked s1 %d and s2 %d times, want as often: a request came back", p.s1.demos.count("acquire"), p.s2.demos.count("acquire"))
		}
		if n := p.s2.demos.count("acquire"); n > int(patience/lookEvery)+1 {
			t.Errorf("asked %d times, want at most once per look", n)
		}
	})
}

// TestLoopWithWrongTokens is TestHopLoop with schedulers that do not believe
// each other.
func TestLoopWithWrongTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, g := newNetwork(), newGroup("")
		s1 := start(t, n, g, "s1", func(o *Options) { o.ClusterToken = "another-token" })
		s2 := start(t, n, g, "s2")
		s1.cluster.believe("s2")
		s2.cluster.believe("s1")
		s1.limiter.perHour, s2.limiter.perHour = 1e6, 1e6
		problem(t, s2.do(t, request{method: "POST", path: acquirePath}), 503, api.CodeUnavailable)
		if n := s1.demos.count("acquire"); n > int(patience/lookEvery)+1 {
			t.Errorf("s1 was asked %d times, want at most once per look", n)
		}
		if s1.limiter.count("s2") == 0 {
			t.Errorf("s1 counted %v, want the stranger s2 counted", s1.limiter.seen)
		}
	})
}

func TestOutsidersCannotPretendToForward(t *testing.T) {
	for _, c := range []struct {
		name    string
		header  map[string]string
		counted int64
		at      string
		status  int
	}{
		{"no token, at the follower", map[string]string{forwardedByHeader: "s1"}, 1, "s2", 201},
		{"no token, at the leader", map[string]string{forwardedByHeader: "s2"}, 1, "s1", 201},
		{"wrong token, at the leader", map[string]string{forwardedByHeader: "s2", clusterTokenHeader: "guess"}, 1, "s1", 201},
		{"wrong token, at the follower", map[string]string{forwardedByHeader: "s1", clusterTokenHeader: "guess"}, 1, "s2", 503},
		{"right token", map[string]string{forwardedByHeader: "s2", clusterTokenHeader: clusterToken}, 0, "s1", 201},
		{"right token, at the follower", map[string]string{forwardedByHeader: "s1", clusterTokenHeader: clusterToken}, 0, "s2", 503},
		{"right token without a name", map[string]string{clusterTokenHeader: clusterToken}, 1, "s1", 201},
	} {
		t.Run(c.name, func(t *testing.T) {
			cluster(t, func(t *testing.T, p *pair) {
				at := map[string]*node{"s1": p.s1, "s2": p.s2}[c.at]
				p.acquire.header = c.header
				got := at.do(t, p.acquire)
				if c.status == 503 {
					if problem(t, got, 503, api.CodeNotLeader); got.header.Get("Retry-After") != "1" {
						t.Errorf("got headers %v, want Retry-After 1", got.header)
					}
				}
				if got.status != c.status || at.limiter.count("192.0.2.1") != c.counted {
					t.Errorf("got %d and %d counted, want %d and %d", got.status, at.limiter.count("192.0.2.1"), c.status, c.counted)
				}
			})
		})
	}
}

// TestAdminTokenIsCheckedWhereTheRequestArrives also shows that the cluster's
// token opens nothing by itself.
func TestAdminTokenIsCheckedWhereTheRequestArrives(t *testing.T) {
	cluster(t, func(t *testing.T, p *pair) {
		p.template.header = map[string]string{forwardedByHeader: "s2", clusterTokenHeader: clusterToken}
		problem(t, p.s1.do(t, p.template), 401, api.CodeUnauthenticated)
		p.template.header = nil
		problem(t, p.s2.do(t, p.template), 401, api.CodeUnauthenticated)
	})
}

func TestOnlyWhatTheLeaderNeedsIsPassedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, g := newNetwork(), newGroup("s1")
		s2 := start(t, n, g, "s2")
		seen := make(chan http.Header, 1)
		uri := make(chan string, 1)
		stop := serve(t, n, "s1:8080", func(w http.ResponseWriter, r *http.Request) {
			seen <- r.Header
			uri <- r.RequestURI
			w.Header().Set("Set-Cookie", "no=1")
			w.Header().Set("Ratelimit", "no")
			w.WriteHeader(http.StatusNoContent)
		})
		defer stop()
		got := s2.do(t, request{method: "POST", path: acquirePath + "?a=%2f", body: `{}`, header: map[string]string{
			"Cookie": "secret=1", "X-Forwarded-For": "1.2.3.4", "X-Request-Id": "not valid!", clusterTokenHeader: "",
		}})
		h := <-seen
		for _, name := range []string{"Cookie", "X-Forwarded-For"} {
			if h.Get(name) != "" {
				t.Errorf("the leader saw %s %q, want nothing", name, h.Get(name))
			}
		}
		if h.Get(forwardedByHeader) != "s2" || h.Get(clusterTokenHeader) != clusterToken || h.Get("X-Request-Id") != got.header.Get("X-Request-Id") {
			t.Errorf("the leader saw %v, want the hop headers and the request id %s", h, got.header.Get("X-Request-Id"))
		}
		if u := <-uri; u != acquirePath+"?a=%2f" {
			t.Errorf("the leader saw %q, want the path as it was sent", u)
		}
		if got.header.Get("Set-Cookie") != "" || !strings.HasPrefix(got.header.Get("RateLimit"), `"hour";r=4`) {
			t.Errorf("the caller saw %v, want no cookie and the limits of the first server", got.header)
		}
	})
}

func TestHugeReplyIsNotTakenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, g := newNetwork(), newGroup("s1")
		s2 := start(t, n, g, "s2")
		stop := serve(t, n, "s1:8080", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = fmt.Fprint(w, strings.Repeat("x", maxReply+1))
		})
		defer stop()
		problem(t, s2.do(t, request{method: "POST", path: acquirePath}), 500, api.CodeInternal)
	})
}

// serve serves a handler that is no scheduler.
func serve(t *testing.T, n *network, address string, h http.HandlerFunc) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	s := httpx.NewServer(n.listen(address), h, slog.New(slog.DiscardHandler))
	go func() { ended <- s.Run(ctx) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
	}
}
