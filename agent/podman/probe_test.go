package podman

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

func TestJudge(t *testing.T) {
	health := api.HealthCheck{Path: "/health", Status: http.StatusFound}
	for _, c := range []struct {
		name, path string
		status     int
		location   string
		ok         bool
	}{
		{"a page", "/", 200, "", true},
		{"a page without content", "/", 204, "", true},
		{"the health check's own status", "/health", 302, "http://elsewhere/", true},
		{"another status of the health check", "/health", 500, "", false},
		{"a missing page", "/", 404, "", false},
		{"a broken page", "/", 500, "", false},
		{"a redirect to itself", "/", 301, "http://d-1.demo.localhost:8088/shop", true},
		{"a redirect to a path", "/", 302, "/shop", true},
		{"a redirect to its golden copy", "/", 302, "http://demo/shop", false},
		{"a redirect that only ends the same", "/", 302, "http://evil.d-1.demo.localhost/", false},
		{"a redirect to nowhere", "/", 302, "http://%zz", false},
		{"not even an answer", "/", 100, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp := &http.Response{StatusCode: c.status, Header: http.Header{"Location": {c.location}}}
			if err := judge(resp, c.path, health, "d-1.demo.localhost"); (err == nil) != c.ok {
				t.Errorf("GET %s answered %d, location %q: got %v, want good %v", c.path, c.status, c.location, err, c.ok)
			}
		})
	}
}

func serve(t *testing.T, h http.HandlerFunc) netip.AddrPort {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(strings.TrimPrefix(s.URL, "http://"))
}

func TestProbes(t *testing.T) {
	var requests atomic.Int32
	var hosts atomic.Value
	at := serve(t, func(w http.ResponseWriter, r *http.Request) {
		hosts.Store(r.Host)
		switch n := requests.Add(1); {
		case r.URL.Path == "/broken":
			w.WriteHeader(http.StatusInternalServerError)
		case n < 3:
			w.WriteHeader(http.StatusServiceUnavailable) // not up yet
		}
	})
	p := newProber()
	template := testRevision().Template
	if err := p.healthy(t.Context(), at, template.Health); err != nil || requests.Load() != 3 || hosts.Load() != hostName {
		t.Errorf("healthy: got %v after %d requests for %v, want three for %s", err, requests.Load(), hosts.Load(), hostName)
	}
	if err := p.good(t.Context(), at, template, "d-1.demo.localhost"); err != nil || hosts.Load() != "d-1.demo.localhost" {
		t.Errorf("good: got %v for %v, want none for the instance's own host", err, hosts.Load())
	}
	template.Warmup = []api.Request{{Path: "/broken"}}
	if err := p.warmUp(t.Context(), at, template); err == nil || !strings.Contains(err.Error(), "/broken answered 500") {
		t.Errorf("warmUp: got %v, want the page that broke", err)
	}
	if got := pageOf(template); got != "/broken" {
		t.Errorf("pageOf: got %s, want the first page of the warm-up", got)
	}
}

func TestUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wrong, began := errors.New("wrong page"), time.Now()
		err := until(t.Context(), time.Second, func(context.Context) error { return wrong })
		if !errors.Is(err, wrong) || !strings.Contains(err.Error(), "not good within 1s") || time.Since(began) != time.Second {
			t.Errorf("got %v after %s, want both reasons after 1s", err, time.Since(began))
		}
		n := 0
		err = until(t.Context(), time.Second, func(context.Context) error {
			if n++; n < 5 {
				return wrong
			}
			return nil
		})
		if err != nil || n != 5 {
			t.Errorf("got %v after %d tries, want none after 5", err, n)
		}
	})
}
