package devproxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/edge/page"
)

const (
	// dialTimeout bounds connecting to an instance: nodes are near, so a
	// slower one is gone and the visitor should see the page that says so.
	dialTimeout = 2 * time.Second
	// responseTimeout bounds the wait for the first byte. Back offices install
	// extensions within one request, so it is generous.
	responseTimeout = 2 * time.Minute
	// idleTimeout closes unused connections to instances, which come and go.
	idleTimeout = 30 * time.Second
)

// Options configure a [Proxy].
type Options struct {
	ID     api.EdgeID
	Logger *slog.Logger
}

// Proxy is an HTTP handler that sends visitors to instances by host name.
type Proxy struct {
	id        api.EdgeID
	logger    *slog.Logger
	transport *http.Transport

	table atomic.Pointer[table] // read by requests
	mu    sync.Mutex            // one Sync at a time: comparing and replacing belong together
}

// table is never changed once it is published.
type table struct {
	term, generation uint64
	pushed           time.Time
	routes           map[string]netip.AddrPort
	ended            map[string]struct{}
	reason           string
}

// New returns a proxy that knows no route yet.
func New(o Options) (*Proxy, error) {
	if !api.ValidName(string(o.ID)) {
		return nil, fmt.Errorf("edge id %q is not a lower-case DNS label", o.ID)
	}
	if o.Logger == nil {
		return nil, errors.New("edge needs a logger")
	}
	p := &Proxy{
		id:     o.ID,
		logger: o.Logger.With("edge", o.ID),
		transport: &http.Transport{
			DialContext:           (&net.Dialer{Timeout: dialTimeout}).DialContext,
			ResponseHeaderTimeout: responseTimeout,
			IdleConnTimeout:       idleTimeout,
			MaxIdleConnsPerHost:   8,
		},
	}
	p.table.Store(&table{})
	return p, nil
}

// ID returns the name of the edge.
func (p *Proxy) ID() api.EdgeID { return p.id }

// Status returns how the edge does. It is always healthy: it is this process.
func (p *Proxy) Status() api.EdgeStatus {
	t := p.table.Load()
	return api.EdgeStatus{ID: p.id, Healthy: true, Routes: len(t.routes), Reason: t.reason, LastPushed: t.pushed}
}

// Sync replaces the table. A table of a lower term, or of the same term and a
// lower generation, is refused with [api.CodeConflict].
func (p *Proxy) Sync(_ context.Context, rt api.RouteTable) error {
	routes, ended, skipped := rt.Usable()
	next := &table{
		term: rt.Term, generation: rt.Generation, pushed: time.Now(),
		routes: make(map[string]netip.AddrPort, len(routes)), ended: make(map[string]struct{}, len(ended)),
	}
	for _, r := range routes {
		next.routes[r.Host] = netip.MustParseAddrPort(r.Upstream) // Usable has parsed it
	}
	for _, host := range ended {
		next.ended[host] = struct{}{}
	}
	if err := errors.Join(skipped...); err != nil {
		next.reason = err.Error()
	}

	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.table.Load()
	if rt.Term < old.term || rt.Term == old.term && rt.Generation < old.generation {
		return api.Errorf(api.CodeConflict, "edge %s serves term %d generation %d; refusing the older term %d generation %d",
			p.id, old.term, old.generation, rt.Term, rt.Generation)
	}
	if next.reason != "" && next.reason != old.reason {
		p.logger.Warn("left out routes", "reason", next.reason)
	}
	p.table.Store(next)
	return nil
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	host := strings.ToLower(r.Host)
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	t := p.table.Load()
	upstream, ok := t.routes[host]
	if !ok {
		if _, ended := t.ended[host]; ended {
			page.Ended().ServeHTTP(w, r)
			return
		}
		page.Unknown().ServeHTTP(w, r)
		return
	}
	proxy := httputil.ReverseProxy{
		Transport: p.transport,
		Rewrite: func(pr *httputil.ProxyRequest) {
			// Scheme and address only: path, query and host name are the
			// visitor's, and the application needs its public host name.
			pr.Out.URL.Scheme, pr.Out.URL.Host = "http", upstream.String()
			pr.Out.Header.Del("X-Real-Ip")
			pr.SetXForwarded()
		},
		FlushInterval: -1, // event streams must reach the visitor as they are written
		ErrorLog:      slog.NewLogLogger(p.logger.Handler(), slog.LevelDebug),
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			p.logger.Debug("instance did not answer", "host", host, "upstream", upstream, "err", err)
			page.Down().ServeHTTP(w, r)
		},
	}
	proxy.ServeHTTP(w, r)
}

// Close drops idle connections to instances. Call it when the server that
// serves the proxy has stopped.
func (p *Proxy) Close() { p.transport.CloseIdleConnections() }
