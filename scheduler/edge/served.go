package edge

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/boss/demo-multiplexer/api"
)

// served is the server as Caddy has it.
type served struct {
	raw  []byte // nil: there is none
	etag string
}

// servedRoute is what is of interest in a route.
type servedRoute struct {
	ID    string `json:"@id"`
	Match []struct {
		Host []string `json:"host"`
	} `json:"match"`
	Handle []struct {
		Term       string `json:"demo_term"`
		Generation string `json:"demo_generation"`
		Digest     string `json:"demo_digest"`
		Upstreams  []struct {
			Dial string `json:"dial"`
		} `json:"upstreams"`
	} `json:"handle"`
}

func (r servedRoute) marker() marker {
	if r.ID != markerID || len(r.Handle) != 1 {
		return marker{}
	}
	h := r.Handle[0]
	term, errTerm := strconv.ParseUint(h.Term, 10, 64)
	generation, errGeneration := strconv.ParseUint(h.Generation, 10, 64)
	if errTerm != nil || errGeneration != nil {
		return marker{}
	}
	return marker{order: order{term, generation}, Digest: h.Digest}
}

func (s served) absent() bool { return s.raw == nil }

// equal reports whether s is the server with the given digest. Another version
// of Caddy may encode the same values differently, so a mismatch is checked
// again after decoding.
func (s served) equal(sum string) bool {
	if s.absent() {
		return false
	}
	if digest(s.raw) == sum {
		return true
	}
	var v any
	if err := json.Unmarshal(s.raw, &v); err != nil {
		return false
	}
	return digest(encode(v)) == sum
}

// decode returns the routes that look like ours. Others were made by somebody
// else and must not keep the server from being repaired.
func (s served) decode() []servedRoute {
	var server struct {
		Routes []json.RawMessage `json:"routes"`
	}
	if s.absent() || json.Unmarshal(s.raw, &server) != nil {
		return nil
	}
	routes := make([]servedRoute, 0, len(server.Routes))
	for _, raw := range server.Routes {
		var r servedRoute
		if json.Unmarshal(raw, &r) == nil {
			routes = append(routes, r)
		}
	}
	return routes
}

func (s served) marker() marker {
	for _, r := range s.decode() {
		if m := r.marker(); m != (marker{}) {
			return m
		}
	}
	return marker{}
}

// routes returns the routes of instances.
func (s served) routes() []api.Route {
	var routes []api.Route
	for _, r := range s.decode() {
		id, ok := strings.CutPrefix(r.ID, idPrefix)
		if !ok || len(r.Match) != 1 || len(r.Match[0].Host) != 1 || len(r.Handle) != 1 || len(r.Handle[0].Upstreams) != 1 {
			continue
		}
		routes = append(routes, api.Route{Host: r.Match[0].Host[0], Instance: api.InstanceID(id), Upstream: r.Handle[0].Upstreams[0].Dial})
	}
	return routes
}
