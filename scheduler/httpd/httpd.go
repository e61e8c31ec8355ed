package httpd

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/internal/httpx"
)

// Demos are the use cases of visitors. Where only the leader can do one, its
// error has code not_leader.
type Demos interface {
	Acquire(ctx context.Context, call api.AcquireCall) (demo api.Demo, replayed bool, err error)
	Inspect(ctx context.Context, id api.LeaseID) (demo api.Demo, stale bool, err error)
	Extend(ctx context.Context, id api.LeaseID, r api.ExtendRequest) (api.Demo, error)
	Release(ctx context.Context, id api.LeaseID) (api.Demo, error)
	Watch(id api.LeaseID) (changed <-chan struct{}, stop func())
	PoolStats() api.PoolStats
}

// Limiter counts acquires per client.
type Limiter interface {
	Allow(ctx context.Context, client string) (api.Quota, error)
}

// Cluster is what operators see, and where the leader is.
type Cluster interface {
	Status() api.ClusterStatus
	Nodes() []api.NodeStatus
	Leases() []api.LeaseStatus
	Instances() []api.InstanceStatus
	Templates() []api.TemplateStatus
	Template(name api.TemplateName) (api.TemplateStatus, error)
	ApplyTemplate(ctx context.Context, t api.Template) (api.TemplateStatus, error)
	// LeaderURL returns the base URL of another scheduler that leads. It is
	// false where none is known or this one leads.
	LeaderURL() (url string, ok bool)
}

// Options are the parts that the API needs. Only Registerer, TrustedProxies
// and CORSOrigins may be left out.
type Options struct {
	Adapter        *httpx.Adapter
	Demos          Demos
	Limiter        Limiter
	Cluster        Cluster
	Health         func() api.Health
	Metrics        http.Handler
	ClusterToken   string // shown by schedulers that send requests on
	AdminToken     string // shown by operators
	Server         api.ServerID
	TrustedProxies httpx.TrustedProxies
	CORSOrigins    []string
	MaxStreams     int // status streams at most
	Logger         *slog.Logger
	Registerer     prometheus.Registerer
}

func (o *Options) validate() error {
	switch {
	case o.Adapter == nil || o.Demos == nil || o.Limiter == nil || o.Cluster == nil || o.Health == nil || o.Metrics == nil || o.Logger == nil:
		return errors.New("build the API: a part is missing")
	case o.ClusterToken == "" || o.AdminToken == "":
		return errors.New("build the API: a token is empty, which would let everybody in")
	case o.Server == "":
		return errors.New("build the API: the server has no ID")
	case o.MaxStreams <= 0:
		return errors.New("build the API: the number of status streams must be above 0")
	}
	return nil
}

// Server serves the API.
type Server struct {
	demos     Demos
	limiter   Limiter
	cluster   Cluster
	proxies   httpx.TrustedProxies
	origins   map[string]bool
	token     string // of the cluster
	forwarder *forwarder
	streams   chan struct{} // one place per open stream
	logger    *slog.Logger
	metrics   metrics
	handler   http.Handler
}

// New returns the API of a scheduler.
func New(o Options) (*Server, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	s := &Server{
		demos: o.Demos, limiter: o.Limiter, cluster: o.Cluster, proxies: o.TrustedProxies, origins: map[string]bool{},
		token: o.ClusterToken, streams: make(chan struct{}, o.MaxStreams), logger: o.Logger, metrics: newMetrics(o.Registerer),
	}
	for _, origin := range o.CORSOrigins {
		s.origins[origin] = true
	}
	s.forwarder = newForwarder(o, s.metrics)
	s.handler = s.routes(o)
	return s, nil
}

// routes is the table of contents of the API.
func (s *Server) routes(o Options) chi.Router {
	do := o.Adapter.Handle
	health, live, ready := o.Adapter.MountHealth(o.Health)
	r := chi.NewRouter()
	r.Use(o.Adapter.Middleware, secure, s.hops)
	r.NotFound(o.Adapter.NotFound())
	r.MethodNotAllowed(o.Adapter.MethodNotAllowed())

	r.Get("/", do(index))
	r.Get("/health", health)
	r.Get("/health/live", live)
	r.Get("/health/ready", ready)
	r.Method(http.MethodGet, "/metrics", o.Metrics)

	r.Route("/api/v1/demo", func(r chi.Router) {
		r.Use(s.cors)
		r.Post("/acquire", do(s.counted(waiting(s.leading(withKey, s.acquire)))))
		r.Get("/{id}", do(s.leading(always, s.inspect)))
		r.Post("/{id}/extend", do(s.leading(always, s.extend)))
		r.Delete("/{id}", do(s.leading(always, s.release)))
		r.Get("/{id}/status", do(s.streaming(s.leading(always, s.status))))
	})
	r.Route("/api/v1/pool", func(r chi.Router) {
		r.Use(s.cors)
		r.Get("/stats", do(s.poolStats))
	})
	r.Group(func(r chi.Router) {
		r.Use(o.Adapter.RequireToken(o.AdminToken))
		r.Get("/api/v1/cluster", do(s.clusterStatus))
		r.Get("/api/v1/nodes", do(s.nodes))
		r.Get("/api/v1/leases", do(s.leases))
		r.Get("/api/v1/instances", do(s.instances))
		r.Get("/api/v1/templates", do(s.templates))
		r.Get("/api/v1/templates/{name}", do(s.template))
		r.Put("/api/v1/templates/{name}", do(s.leading(always, s.putTemplate)))
	})
	return r
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Close drops the idle connections to other schedulers.
func (s *Server) Close() { s.forwarder.transport.CloseIdleConnections() }

// secure sets what every reply has.
func secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}
