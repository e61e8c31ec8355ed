package httpd

import (
	"fmt"
	"net/http"

	"github.com/go-chi/chi/v5"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/internal/httpx"
)

// maxTemplate bounds the body of a template, in bytes.
const maxTemplate = 256 << 10

func (s *Server) clusterStatus(w http.ResponseWriter, _ *http.Request) error {
	status := s.cluster.Status()
	status.Servers = list(status.Servers)
	return encodeAdmin(w, status)
}

func (s *Server) nodes(w http.ResponseWriter, _ *http.Request) error {
	return encodeAdmin(w, list(s.cluster.Nodes()))
}

func (s *Server) leases(w http.ResponseWriter, _ *http.Request) error {
	return encodeAdmin(w, list(s.cluster.Leases()))
}

func (s *Server) instances(w http.ResponseWriter, _ *http.Request) error {
	return encodeAdmin(w, list(s.cluster.Instances()))
}

func (s *Server) templates(w http.ResponseWriter, _ *http.Request) error {
	return encodeAdmin(w, list(s.cluster.Templates()))
}

func (s *Server) template(w http.ResponseWriter, r *http.Request) error {
	status, err := s.cluster.Template(api.TemplateName(chi.URLParam(r, "name")))
	if err != nil {
		return err
	}
	return encodeAdmin(w, status)
}

func (s *Server) putTemplate(w http.ResponseWriter, r *http.Request) error {
	var t api.Template
	if err := httpx.Decode(r, &t, maxTemplate); err != nil {
		return err
	}
	if name := chi.URLParam(r, "name"); string(t.Name) != name {
		return api.InvalidFields("the template is not valid", []api.FieldError{
			{Field: "name", Reason: fmt.Sprintf("must be the name in the path, %q, not %q", name, t.Name)},
		})
	}
	status, err := s.cluster.ApplyTemplate(r.Context(), t)
	if err != nil {
		return err
	}
	return encodeAdmin(w, status)
}

func encodeAdmin(w http.ResponseWriter, v any) error {
	w.Header().Set("Cache-Control", "no-store")
	return httpx.Encode(w, http.StatusOK, v)
}
