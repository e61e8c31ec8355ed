package httpx

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/boss/demo-multiplexer/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newAdapter() (*Adapter, *prometheus.Registry) {
	registry := prometheus.NewRegistry()
	return NewAdapter(slog.New(slog.DiscardHandler), registry, "test"), registry
}

// ask sends one request to a router with one route.
func ask(t testing.TB, h http.Handler, method, path, body string, header ...string) (*httptest.ResponseRecorder, api.Problem) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	var p api.Problem
	if w.Header().Get("Content-Type") == "application/problem+json" {
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
			t.Errorf("the problem %q: %v", w.Body, err)
		}
	}
	return w, p
}

func router(a *Adapter, h Handler) http.Handler {
	r := chi.NewRouter()
	r.Use(a.Middleware)
	r.NotFound(a.NotFound())
	r.MethodNotAllowed(a.MethodNotAllowed())
	r.Post("/thing/{id}", a.Handle(h))
	r.Route("/below", func(r chi.Router) {
		r.Get("/{id}", a.Handle(h))
		r.Delete("/{id}", a.Handle(h))
	})
	return r
}
