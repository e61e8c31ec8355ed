package edge

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"strconv"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/edge/page"
)

// Names in Caddy's configuration. A route of an instance has the @id
// "demo-<instance>"; the names below are therefore no instances.
const (
	serverName = "demo"
	idPrefix   = "demo-"
	markerID   = "demo-table"
	endedID    = "demo-ended"
	unknownID  = "demo-unknown"

	// markerHost is a host name that nobody can own (RFC 6761), so the marker
	// takes part in no visitor's request.
	markerHost = "demo-table.invalid"
)

// What visitors and instances get from the server. Caddy reads durations as Go
// duration strings.
const (
	readHeaderTimeout = "10s"   // a visitor who dribbles headers holds a connection for nothing
	idleTimeout       = "2m"    // of a visitor's connection between requests
	maxHeaderBytes    = 1 << 16 // cookies of a back office fit; floods do not
	dialTimeout       = "2s"    // nodes are near: a slower one is gone, and the visitor should see the page that says so
	responseTimeout   = "2m"    // until the first byte: back offices install extensions within one request
	upstreamIdle      = "30s"   // connections to instances that are gone must not pile up
)

// object is a JSON object. Its keys are encoded sorted, which is how Caddy
// encodes them too.
type object = map[string]any

// order is when a table was made.
type order struct{ Term, Generation uint64 }

func (o order) before(held order) bool {
	return o.Term < held.Term || o.Term == held.Term && o.Generation < held.Generation
}

// marker is what a pushed server says of itself.
type marker struct {
	order
	Digest string
}

func (m marker) String() string {
	if m == (marker{}) {
		return "no table"
	}
	return fmt.Sprintf("term %d generation %d", m.Term, m.Generation)
}

// plan is a table made ready for an edge.
type plan struct {
	order
	routes  []api.Route
	ended   []string
	skipped []error
	digest  string // of routes, ended and everything constant
}

// renderer turns tables into Caddy's configuration.
type renderer struct{ listen []string }

func (r renderer) plan(t api.RouteTable) plan {
	p := plan{order: order{t.Term, t.Generation}}
	p.routes, p.ended, p.skipped = t.Usable()
	usable := p.routes[:0]
	for _, route := range p.routes {
		switch routeID(route.Instance) {
		case markerID, endedID, unknownID:
			p.skipped = append(p.skipped, fmt.Errorf("route of %s: the name %q is taken by the edge", route.Host, route.Instance))
		default:
			usable = append(usable, route)
		}
	}
	p.routes = usable
	p.digest = r.digest(p)
	return p
}

// digest names the content of p. It covers a sample of everything constant, so
// that a new version of this program replaces what an older one pushed.
func (r renderer) digest(p plan) string {
	h := sha256.New()
	sample := plan{routes: []api.Route{{Host: "host", Instance: "i", Upstream: "127.0.0.1:1"}}, ended: []string{"host"}}
	h.Write(r.server(sample, marker{}))
	for _, route := range p.routes {
		writeStrings(h, route.Host, string(route.Instance), route.Upstream)
	}
	for _, host := range p.ended {
		writeStrings(h, "ended", host)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func writeStrings(h hash.Hash, parts ...string) {
	for _, s := range parts {
		_, _ = io.WriteString(h, s) // a hash never fails
		_, _ = h.Write([]byte{0})   // which no valid part contains
	}
	_, _ = h.Write([]byte{'\n'})
}

// server renders the whole server, in the encoding in which Caddy returns it.
func (r renderer) server(p plan, m marker) []byte {
	routes := make([]any, 0, len(p.routes)+3)
	routes = append(routes, renderMarker(m))
	for _, route := range p.routes {
		routes = append(routes, renderRoute(route))
	}
	if len(p.ended) > 0 { // a matcher without host names would match every host
		routes = append(routes, object{
			"@id": endedID, "terminal": true,
			"match":  []any{object{"host": p.ended}},
			"handle": []any{renderPage(page.Ended())},
		})
	}
	routes = append(routes, object{"@id": unknownID, "handle": []any{renderPage(page.Unknown())}})
	return encode(object{
		"listen":              r.listen,
		"read_header_timeout": readHeaderTimeout,
		"idle_timeout":        idleTimeout,
		"max_header_bytes":    maxHeaderBytes,
		// Plain HTTP: without this Caddy would ask a public authority for a
		// certificate for every host name it sees in the routes.
		"automatic_https": object{"disable": true},
		"routes":          routes,
		"errors":          object{"routes": []any{renderDown()}},
	})
}

func renderMarker(m marker) object {
	return object{
		"@id":   markerID,
		"match": []any{object{"host": []string{markerHost}}},
		// Strings: Caddy reads numbers as floating point and would round.
		"handle": []any{object{
			"handler":         "vars",
			"demo_term":       strconv.FormatUint(m.Term, 10),
			"demo_generation": strconv.FormatUint(m.Generation, 10),
			"demo_digest":     m.Digest,
		}},
	}
}

// renderRoute relies on three defaults of Caddy: the Host header reaches the
// upstream unchanged; X-Forwarded-For, -Proto and -Host are set from the
// connection and what the visitor sent in them is dropped; replies without a
// length and event streams are flushed as they are written.
func renderRoute(r api.Route) object {
	return object{
		"@id":      routeID(r.Instance),
		"match":    []any{object{"host": []string{r.Host}}},
		"terminal": true,
		"handle": []any{object{
			"handler":   "reverse_proxy",
			"upstreams": []any{object{"dial": r.Upstream}},
			"transport": object{
				"protocol":                "http",
				"dial_timeout":            dialTimeout,
				"response_header_timeout": responseTimeout,
				"keep_alive":              object{"idle_timeout": upstreamIdle},
			},
			// Other ways to claim an address, which applications may believe.
			"headers": object{"request": object{"delete": []string{"Forwarded", "X-Real-Ip", "X-Forwarded-Port"}}},
		}},
	}
}

func routeID(id api.InstanceID) string { return idPrefix + string(id) }

// renderDown answers what the proxy itself reports: it could not connect, or
// got no reply in time. Errors that an application sends pass unchanged.
func renderDown() object {
	return object{
		"match":  []any{object{"vars": object{"{http.error.status_code}": []string{"502", "503", "504"}}}},
		"handle": []any{renderPage(page.Down())},
	}
}

func renderPage(p page.Page) object {
	return object{"handler": "static_response", "status_code": p.Status, "headers": p.Header(), "body": p.Body}
}

// encode panics where v cannot be encoded, which no value here can cause.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encode Caddy configuration: %v", err))
	}
	return b
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
