package httpd

import (
	"net/http"

	"github.com/go-chi/chi/v5"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/internal/httpx"
)

// staleHeader marks a reply of a scheduler that knew no leader.
const staleHeader = "Demo-Stale"

func (s *Server) inspect(w http.ResponseWriter, r *http.Request) error {
	id, err := api.ParseLeaseID(chi.URLParam(r, "id"))
	if err != nil {
		return err
	}
	demo, stale, err := s.demos.Inspect(r.Context(), id)
	if err != nil {
		return err
	}
	return encodeDemo(w, http.StatusOK, demo, stale)
}

func (s *Server) extend(w http.ResponseWriter, r *http.Request) error {
	id, err := api.ParseLeaseID(chi.URLParam(r, "id"))
	if err != nil {
		return err
	}
	var req api.ExtendRequest
	if err := httpx.Decode(r, &req, maxBody); err != nil {
		return err
	}
	demo, err := s.demos.Extend(r.Context(), id, req)
	if err != nil {
		return err
	}
	return encodeDemo(w, http.StatusOK, demo, false)
}

func (s *Server) release(w http.ResponseWriter, r *http.Request) error {
	id, err := api.ParseLeaseID(chi.URLParam(r, "id"))
	if err != nil {
		return err
	}
	demo, err := s.demos.Release(r.Context(), id)
	if err != nil {
		return err
	}
	return encodeDemo(w, http.StatusOK, demo, false)
}

func (s *Server) poolStats(w http.ResponseWriter, _ *http.Request) error {
	stats := s.demos.PoolStats()
	stats.Templates = list(stats.Templates)
	setStale(w, stats.Stale)
	w.Header().Set("Cache-Control", "no-store")
	return httpx.Encode(w, http.StatusOK, stats)
}

// encodeDemo writes a demo. It holds credentials, so nobody may keep it.
func encodeDemo(w http.ResponseWriter, status int, demo api.Demo, stale bool) error {
	setStale(w, stale)
	w.Header().Set("Cache-Control", "no-store")
	return httpx.Encode(w, status, demo)
}

func setStale(w http.ResponseWriter, stale bool) {
	if stale {
		w.Header().Set(staleHeader, "true")
	}
}

// list returns an empty list for none: readers of JSON expect [] rather than
// null.
func list[T any](items []T) []T {
	if items == nil {
		return []T{}
	}
	return items
}
