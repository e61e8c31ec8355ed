package httpd

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/internal/httpx"
)

// problem checks that a reply is a problem with a status and a code.
func problem(t testing.TB, got reply, status int, code api.Code) api.Problem {
	t.Helper()
	var p api.Problem
	if err := json.Unmarshal([]byte(got.body), &p); err != nil || got.status != status || p.Code != code || p.Detail == "" || p.RequestID == "" ||
		got.header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("got %d %s (%v), want status %d and a problem with code %s: %v", got.status, got.body, got.header, status, code, err)
	}
	return p
}

func decode[T any](t testing.TB, got reply) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(got.body), &v); err != nil {
		t.Errorf("reply %d %s is not a %T: %v", got.status, got.body, v, err)
	}
	return v
}

func TestAcquire(t *testing.T) {
	for _, c := range []struct {
		name   string
		body   string
		header map[string]string
		status int
		code   api.Code
		want   api.AcquireCall
	}{
		{name: "empty body", status: 201},
		{name: "template and TTL", body: `{"template":"shop","ttl":"5m"}`, status: 201,
			want: api.AcquireCall{AcquireRequest: api.AcquireRequest{Template: "shop", TTL: api.Duration(5 * time.Minute)}}},
		{name: "key and wait", header: map[string]string{"Idempotency-Key": "k", "Prefer": "respond-async, WAIT=\"7\""}, status: 201,
			want: api.AcquireCall{IdempotencyKey: "k", Wait: 7 * time.Second}},
		{name: "long wait", header: map[string]string{"Prefer": "wait=9999999999999999999999"}, status: 201, want: api.AcquireCall{Wait: time.Minute}},
		{name: "wait that makes no sense", header: map[string]string{"Prefer": "wait=soon"}, status: 201},
		{name: "unknown template", body: `{"template":"nosuch"}`, status: 404, code: api.CodeNotFound, want: api.AcquireCall{AcquireRequest: api.AcquireRequest{Template: "nosuch"}}},
		{name: "malformed JSON", body: `{"template":`, status: 400, code: api.CodeInvalid},
		{name: "unknown field", body: `{"tmeplate":"shop"}`, status: 400, code: api.CodeInvalid},
		{name: "wrong type", body: `{"template":5}`, status: 400, code: api.CodeInvalid},
		{name: "not an object", body: `[]`, status: 400, code: api.CodeInvalid},
		{name: "trailing data", body: `{}{}`, status: 400, code: api.CodeInvalid},
		{name: "other media type", body: `template=shop`, header: map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, status: 415, code: api.CodeInvalid},
		{name: "body over its own limit", body: `{"template":"` + strings.Repeat("x", maxBody) + `"}`, status: 413, code: api.CodeInvalid},
		{name: "over-long key", header: map[string]string{"Idempotency-Key": strings.Repeat("k", maxKey+1)}, status: 400, code: api.CodeInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := start(t, newNetwork(), newGroup("s1"), "s1")
				got := x.do(t, request{method: "POST", path: acquirePath, body: c.body, header: c.header})
				if got.status != c.status {
					t.Errorf("got status %d, want %d: %s", got.status, c.status, got.body)
				}
				if c.code != "" {
					problem(t, got, c.status, c.code)
				} else if want := "/api/v1/demo/" + string(decode[api.Demo](t, got).ID); got.header.Get("Location") != want || got.header.Get("Cache-Control") != "no-store" {
					t.Errorf("got headers %v, want Location %s and no-store", got.header, want)
				}
				if want := `"hour";r=4;t=3599, "day";r=59;t=86400`; got.header.Get("RateLimit") != want {
					t.Errorf("got RateLimit %q, want %q", got.header.Get("RateLimit"), want)
				}
				if diff := cmp.Diff(c.want, x.demos.lastCall()); diff != "" {
					t.Errorf("the call (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestReplayedAcquireIs200(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, newNetwork(), newGroup("s1"), "s1")
		r := request{method: "POST", path: acquirePath, header: map[string]string{"Idempotency-Key": "k"}}
		first, second := x.do(t, r), x.do(t, r)
		if first.status != 201 || second.status != 200 || first.body != second.body {
			t.Errorf("got %d %s, then %d %s, want 201, then 200 with the same demo", first.status, first.body, second.status, second.body)
		}
	})
}

func TestTwoKeysAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, newNetwork(), newGroup("s1"), "s1")
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), "POST", acquirePath, nil)
		r.Header["Idempotency-Key"] = []string{"a", "b"}
		x.server.ServeHTTP(w, r)
		problem(t, reply{status: w.Code, header: w.Header(), body: w.Body.String()}, 400, api.CodeInvalid)
	})
}

func TestRateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := start(t, newNetwork(), newGroup("s1"), "s1")
		ask := request{method: "POST", path: acquirePath, body: `{"template":"nosuch"}`}
		for range 5 {
			problem(t, x.do(t, ask), 404, api.CodeNotFound) // what counts is the asking
		}
		got := x.do(t, ask)
		problem(t, got, 429, api.CodeLimited)
		want := map[string]string{
			"Retry-After": "3599", "RateLimit-Policy": `"hour";q=5;w=3600, "day";q=60;w=86400`, "RateLimit": `"hour";r=0;t=3599, "day";r=55;t=86400`,
		}
		for k, v := range want {
			if got.header.Get(k) != v {
				t.Errorf("429 has %s %q, want %q", k, got.header.Get(k), v)
			}
		}
		if n := x.demos.count("acquire"); n != 5 {
			t.Errorf("the use case was asked %d times, want 5", n)
		}
		ask.from = "192.0.2.2:1"
		problem(t, x.do(t, ask), 404, api.CodeNotFound)
		x.limiter.err = unavailable("the store is down")
		if got := x.do(t, ask); got.header.Get("Retry-After") != "1" {
			t.Errorf("without a store: got headers %v, want Retry-After 1", got.header)
		} else {
			problem(t, got, 503, api.CodeUnavailable)
		}
	})
}

func TestNoLimitsNoHeaders(t *testing.T) {
	h := http.Header{}
	setQuota(h, api.Quota{Allowed: true})
	if len(h) != 0 {
		t.Errorf("got %v, want no headers", h)
	}
}

func TestRetryAfterTheLastExhaustedWindow(t *testing.T) {
	err := limited(api.Quota{Windows: []api.QuotaWindow{{Reset: time.Minute}, {Reset: time.Hour}, {Remaining: 1, Reset: 2 * time.Hour}}})
	if got := err.(*api.Error).RetryAfter; got != time.Hour { //nolint:errorlint // made right here
		t.Errorf("got Retry-After %s, want 1h: only then both windows have room", got)
	}
}

func TestClientCannotChooseItsAddress(t *testing.T) {
	for _, c := range []struct{ name, from, header, want string }{
		{"direct", "192.0.2.1:1", "", "192.0.2.1"},
		{"spoofed by a client", "192.0.2.1:1", "203.0.113.9", "192.0.2.1"},
		{"through a proxy", "10.0.0.5:1", "192.0.2.7", "192.0.2.7"},
		{"spoofed in front of a proxy", "10.0.0.5:1", "203.0.113.9, 192.0.2.7", "192.0.2.7"},
		{"through two proxies", "10.0.0.5:1", "203.0.113.9, 192.0.2.7, 10.0.0.6", "192.0.2.7"},
		{"garbage", "10.0.0.5:1", "<script>", "10.0.0.5"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				trusted, err := httpx.ParseTrustedProxies([]string{"10.0.0.0/8"})
				if err != nil {
					t.Fatal(err)
				}
				x := start(t, newNetwork(), newGroup("s1"), "s1", func(o *Options) { o.TrustedProxies = trusted })
				r := request{method: "POST", path: acquirePath, from: c.from}
				if c.header != "" {
					r.header = map[string]string{"X-Forwarded-For": c.header}
				}
				x.do(t, r)
				if x.limiter.count(c.want) != 1 {
					t.Errorf("counted %v, want 1 for %s", x.limiter.seen, c.want)
				}
			})
		})
	}
}

// TestLongWait waits longer than the server lets anybody send a request.
func TestLongWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup("s1")
		g.warm = 0
		x := start(t, newNetwork(), g, "s1")
		time.AfterFunc(59*time.Second, func() { g.update(func() { g.warm = 1 }) })
		began := time.Now()
		got := x.do(t, request{method: "POST", path: acquirePath, body: `{"template":"shop"}`, header: map[string]string{"Prefer": "wait=99"}})
		if took := time.Since(began); got.status != 201 || took != 59*time.Second || got.header.Get("Preference-Applied") != "wait=60" {
			t.Errorf("got %d after %s with %v, want 201 after 59s and Preference-Applied wait=60", got.status, took, got.header)
		}
		got = x.do(t, request{method: "POST", path: acquirePath, header: map[string]string{"Prefer": "wait=2"}})
		if problem(t, got, 503, api.CodeExhausted); got.header.Get("Retry-After") != "7" {
			t.Errorf("got headers %v, want Retry-After 7", got.header)
		}
	})
}

func TestWaitEndsWhenDraining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup("s1")
		g.warm = 0
		x := start(t, newNetwork(), g, "s1")
		time.AfterFunc(10*time.Second, func() { go x.stop() })
		began := time.Now()
		got := x.do(t, request{method: "POST", path: acquirePath, header: map[string]string{"Prefer": "wait=60"}})
		if problem(t, got, 503, api.CodeUnavailable); time.Since(began) > 11*time.Second {
			t.Errorf("the wait went on for %s, want it to end with the server at 10s", time.Since(began))
		}
	})
}
