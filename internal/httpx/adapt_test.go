package httpx

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

func TestErrorsBecomeProblems(t *testing.T) {
	limited := api.Errorf(api.CodeLimited, "too many")
	limited.RetryAfter = 1500 * time.Millisecond
	for _, c := range []struct {
		name   string
		err    error
		status int
		code   api.Code
		detail string
	}{
		{"typed", api.Errorf(api.CodeNotFound, "no such thing"), 404, api.CodeNotFound, "no such thing"},
		{"with a wait", limited, 429, api.CodeLimited, "too many"},
		{"not typed", errors.New("secret path /etc"), 500, api.CodeInternal, "something went wrong here; tell the operator the request id"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, _ := newAdapter()
			w, p := ask(t, router(a, func(http.ResponseWriter, *http.Request) error { return c.err }), "POST", "/thing/1", "", RequestIDHeader, "mine")
			if w.Code != c.status || p.Status != c.status || p.Code != c.code || p.Detail != c.detail || p.RequestID != "mine" || p.Instance != "/thing/1" {
				t.Errorf("got %d %+v, want %d with code %s", w.Code, p, c.status, c.code)
			}
			if errors.Is(c.err, limited) && w.Header().Get("Retry-After") != "2" {
				t.Errorf("got Retry-After %q, want it rounded up to 2", w.Header().Get("Retry-After"))
			}
		})
	}
}

func TestPanics(t *testing.T) {
	a, _ := newAdapter()
	w, p := ask(t, router(a, func(http.ResponseWriter, *http.Request) error { panic("boom") }), "POST", "/thing/1", "")
	if w.Code != 500 || p.Code != api.CodeInternal || strings.Contains(w.Body.String(), "boom") {
		t.Errorf("got %d %s, want 500 without details", w.Code, w.Body)
	}
	w, _ = ask(t, router(a, func(w http.ResponseWriter, _ *http.Request) error {
		_, _ = w.Write([]byte("half"))
		panic("boom")
	}), "POST", "/thing/1", "")
	if w.Body.String() != "half" {
		t.Errorf("got %q, want no problem behind a body that has begun", w.Body)
	}
}

func TestRequestIDs(t *testing.T) {
	a, _ := newAdapter()
	h := router(a, func(w http.ResponseWriter, r *http.Request) error {
		_, err := w.Write([]byte(RequestID(r.Context())))
		return err
	})
	for _, sent := range []string{"", "mine", "a b", strings.Repeat("x", 65), "x\"y"} {
		w, _ := ask(t, h, "POST", "/thing/1", "", RequestIDHeader, sent)
		got := w.Header().Get(RequestIDHeader)
		if got == "" || got != w.Body.String() || (got == sent) != (sent == "mine") {
			t.Errorf("sent %q: got %q in the header, %q in the context, want the same, and only a decent one kept", sent, got, w.Body)
		}
	}
}

func TestWrongMethodNamesTheRightOnes(t *testing.T) {
	a, _ := newAdapter()
	h := router(a, func(http.ResponseWriter, *http.Request) error { return nil })
	for _, c := range []struct{ path, allow string }{{"/thing/1", "POST"}, {"/below/1", "GET, DELETE"}, {"/below/a%2fb", "GET, DELETE"}} {
		for _, method := range []string{"PATCH", "BREW"} {
			w, p := ask(t, h, method, c.path, "")
			if w.Code != 405 || p.Code != api.CodeInvalid || w.Header().Get("Allow") != c.allow {
				t.Errorf("%s %s: got %d, Allow %q, want 405, %q", method, c.path, w.Code, w.Header().Get("Allow"), c.allow)
			}
		}
	}
	if w, p := ask(t, h, "GET", "/nothing", ""); w.Code != 404 || p.Code != api.CodeNotFound {
		t.Errorf("got %d %+v, want 404", w.Code, p)
	}
}

func TestMetricCountsByRoute(t *testing.T) {
	a, registry := newAdapter()
	h := router(a, func(http.ResponseWriter, *http.Request) error { return nil })
	ask(t, h, "POST", "/thing/1", "")
	ask(t, h, "POST", "/thing/2", "")
	ask(t, h, "BREW", "/thing/2", "")
	left, cancel := context.WithCancel(t.Context())
	cancel()
	gone := router(a, func(http.ResponseWriter, *http.Request) error { return context.Canceled })
	w := httptest.NewRecorder()
	gone.ServeHTTP(w, httptest.NewRequestWithContext(left, "POST", "/thing/3", nil))

	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]uint64{}
	for _, m := range families[0].GetMetric() {
		var labels []string
		for _, l := range m.GetLabel() {
			labels = append(labels, l.GetValue())
		}
		got[strings.Join(labels, " ")] = m.GetHistogram().GetSampleCount()
	}
	for labels, want := range map[string]uint64{"POST /thing/{id} 200": 2, "POST /thing/{id} 499": 1} {
		if got[labels] != want {
			t.Errorf("got %v, want %s %d times", got, labels, want)
		}
	}
	for labels := range got {
		if strings.Contains(labels, "BREW") {
			t.Errorf("got the label %q: anybody can invent methods", labels)
		}
	}
}
