package main

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/internal/httpx"
)

// TestFloorHandlerAnswersLikeAScheduler: a floor that sends less than the real
// thing would be too low.
func TestFloorHandlerAnswersLikeAScheduler(t *testing.T) {
	floor := httptest.NewServer((&floorServer{}).routes(httpx.NewAdapter(slog.New(slog.DiscardHandler), prometheus.NewPedanticRegistry(), "floor")))
	defer floor.Close()
	c := newCaller(1, "")
	defer c.close()
	got, err := c.acquire(t.Context(), floor.URL+"/handler")
	if err != nil {
		t.Fatal(err)
	}
	if got.ID == "" || got.URL == "" || got.AdminURL == "" || got.Credentials == nil || got.Template != templateName || got.State != api.DemoActive {
		t.Errorf("got %+v, want every field that a demo has", got)
	}
}

func TestCaller(t *testing.T) {
	var request *http.Request
	var body api.AcquireRequest
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		request = r
		if r.URL.Path == "/broken" {
			http.Error(w, "no pool", http.StatusServiceUnavailable)
			return
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		_, _ = w.Write([]byte(`{"id":"l1"}`))
	}))
	defer s.Close()
	c := newCaller(1, "secret")
	defer c.close()
	if d, err := c.acquire(t.Context(), s.URL); err != nil || d.ID != "l1" || body.Template != templateName {
		t.Errorf("acquire = %+v, %v with the body %+v", d, err, body)
	}
	if request.Header.Get("Authorization") != "Bearer secret" || request.Header.Get("Idempotency-Key") == "" || request.Header.Get("Content-Type") != "application/json" {
		t.Errorf("headers = %v", request.Header)
	}
	if err := c.call(t.Context(), http.MethodGet, s.URL+"/broken", nil, nil); err == nil || !strings.Contains(err.Error(), "no pool") {
		t.Errorf("call = %v, want the server's words", err)
	}
}
