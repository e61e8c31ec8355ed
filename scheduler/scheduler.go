package scheduler

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/cluster"
	"github.com/boss/demo-multiplexer/internal/httpx"
	"github.com/boss/demo-multiplexer/internal/lifecycle"
	"github.com/boss/demo-multiplexer/internal/logging"
	"github.com/boss/demo-multiplexer/internal/version"
	"github.com/boss/demo-multiplexer/scheduler/consensus"
	"github.com/boss/demo-multiplexer/scheduler/httpd"
	"github.com/boss/demo-multiplexer/scheduler/lease"
	"github.com/boss/demo-multiplexer/scheduler/reconcile"
	"github.com/boss/demo-multiplexer/scheduler/session"
)

// Run runs one scheduler until ctx ends, and returns nil after an orderly
// stop. o must have been validated; the log goes to w.
func Run(ctx context.Context, o Options, w io.Writer) error {
	logger, err := logging.New(w, o.Log)
	if err != nil {
		return err
	}
	s, err := build(o, logger.With("server", o.ID))
	if err != nil {
		return err
	}
	return s.run(ctx)
}

// store keeps rate limits and session records.
type store interface {
	lease.Records
	httpd.Limiter
	Status() api.StoreStatus
	Run(ctx context.Context) error
}

// process is one scheduler with all of its parts.
type process struct {
	o        Options
	logger   *slog.Logger
	registry *prometheus.Registry
	adapter  *httpx.Adapter
	secrets  secrets

	gossip     *cluster.Gossip
	consensus  *consensus.Node
	store      store
	edges      *edges
	reconciler *reconcile.Reconciler
	leases     *lease.Service
	agents     *dialer
	api        *httpd.Server
	server     *httpx.Server

	stopping atomic.Bool // readiness is the first thing to go
}

// secrets are what the files named in the options hold.
type secrets struct {
	cluster, admin string
	gossip         []byte
}

// build makes the parts. The API's port is opened here, so that a port in use
// is the first thing that an operator reads.
func build(o Options, logger *slog.Logger) (_ *process, err error) {
	p := &process{o: o, logger: logger, registry: newRegistry()}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	p.adapter = httpx.NewAdapter(logger, p.registry, "demo_scheduler")
	if p.secrets, err = readSecrets(o); err != nil {
		return nil, err
	}
	for _, step := range []func() error{p.makeGossip, p.makeConsensus, p.makeStore, p.makeEdges, p.makeReconciler, p.makeLeases, p.makeAPI} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// close gives back what build opened, where the process is never run.
func (p *process) close() {
	if p.edges != nil {
		p.edges.close()
	}
	if p.server != nil {
		p.server.Close()
	}
}

func newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "demo_scheduler_build_info", Help: "1, with the version as its label.",
			ConstLabels: prometheus.Labels{"version": version.String()},
		}, func() float64 { return 1 }),
	)
	return r
}

func readSecrets(o Options) (s secrets, err error) {
	if s.cluster, err = httpx.ReadSecret(o.Tokens.ClusterFile); err != nil {
		return s, fmt.Errorf("tokens.cluster_file: %w", err)
	}
	if s.admin, err = httpx.ReadSecret(o.Tokens.AdminFile); err != nil {
		return s, fmt.Errorf("tokens.admin_file: %w", err)
	}
	if o.Gossip.KeyFile == "" {
		return s, nil
	}
	text, err := os.ReadFile(o.Gossip.KeyFile)
	if err != nil {
		return s, fmt.Errorf("gossip.key_file: %w", err)
	}
	s.gossip, err = base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(s.gossip) != 32 {
		return s, fmt.Errorf("gossip.key_file: %s must hold 32 bytes in base64; make one with: head -c 32 /dev/urandom | base64", o.Gossip.KeyFile)
	}
	return s, nil
}

func (p *process) makeGossip() (err error) {
	p.gossip, err = cluster.New(cluster.Options{
		Name: string(p.o.ID), Listen: p.o.Gossip.Listen, Advertise: p.o.Gossip.Advertise, Join: p.o.Gossip.Join,
		Key: p.secrets.gossip, Meta: p.meta(), Logger: p.logger, Registerer: p.registry,
	})
	return err
}

func (p *process) makeConsensus() (err error) {
	p.consensus, err = consensus.New(consensus.Options{
		ID: p.o.ID, DataDir: p.o.DataDir, Bind: p.o.Raft.Listen, Advertise: p.o.Raft.Advertise,
		Logger: p.logger, Registerer: p.registry,
	})
	return err
}

func (p *process) makeStore() (err error) {
	limits := session.Limits{PerHour: p.o.Limits.PerHour, PerDay: p.o.Limits.PerDay}
	if p.o.Store.Kind == StoreEmbedded {
		p.store, err = session.NewEmbedded(session.EmbeddedOptions{Limits: limits})
		return err
	}
	// All schedulers derive the same secret, so that a client is one client to
	// all of them, and Valkey never sees its address.
	secret := sha256.Sum256([]byte("session keys of " + p.secrets.cluster))
	p.store, err = session.NewValkey(session.Options{
		Addresses: p.o.Store.Addresses, Username: p.o.Store.Username, PasswordFile: p.o.Store.PasswordFile,
		Limits: limits, WhenDown: session.Policy(p.o.Store.WhenDown), Secret: secret[:],
		Logger: p.logger, Registerer: p.registry,
	})
	return err
}

func (p *process) makeEdges() (err error) {
	p.edges, err = newEdges(p.o.Edges, p.logger, p.registry)
	return err
}

func (p *process) makeReconciler() (err error) {
	p.agents = newDialer(p.secrets.cluster)
	p.reconciler, err = reconcile.New(reconcile.Options{
		Log: p.consensus, Members: members{p.gossip}, Dial: p.agents.dial, Edges: p.edges.drivers,
		URL: p.o.Public.PublicURL, NewHost: func() string { return api.NewHostLabel() + "." + p.o.Public.Domain },
		NodeGrace: p.o.Timing.NodeGrace.D(), LeaderGrace: p.o.Timing.LeaderGrace.D(), EndedKept: p.o.Timing.EndedKept.D(),
		Logger: p.logger, Registerer: p.registry,
	})
	return err
}

func (p *process) makeLeases() (err error) {
	p.leases, err = lease.New(lease.Options{
		Log: p.consensus, Records: p.store, Routes: p.reconciler, Nodes: p.reconciler, URL: p.o.Public.PublicURL,
		Logger: p.logger, Registerer: p.registry,
	})
	return err
}

func (p *process) makeAPI() error {
	proxies, err := httpx.ParseTrustedProxies(p.o.HTTP.TrustedProxies)
	if err != nil {
		return fmt.Errorf("http.trusted_proxies: %w", err)
	}
	p.api, err = httpd.New(httpd.Options{
		Adapter: p.adapter, Demos: p.leases, Limiter: p.store, Cluster: p, Health: p.health,
		Metrics:      promhttp.HandlerFor(p.registry, promhttp.HandlerOpts{}),
		ClusterToken: p.secrets.cluster, AdminToken: p.secrets.admin, Server: p.o.ID,
		TrustedProxies: proxies, CORSOrigins: p.o.HTTP.CORSOrigins, MaxStreams: p.o.HTTP.MaxStreams,
		Logger: p.logger, Registerer: p.registry,
	})
	if err != nil {
		return err
	}
	p.server, err = httpx.Listen(p.o.HTTP.Listen, p.api, p.logger)
	return err
}

// run starts the parts in their order and stops them in reverse: leave
// readiness, drain HTTP, end the leader's loops, hand over leadership, end
// Raft, leave gossip.
func (p *process) run(ctx context.Context) error {
	g := lifecycle.New(p.logger, p.o.Timing.StopDeadline.D())
	g.Add("gossip", p.gossip.Run)
	g.Add("consensus", p.consensus.Run)
	g.Add("store", p.store.Run)
	p.edges.add(g)
	g.Add("group", p.keepGroup)
	g.Add("leases", p.leases.Run)
	g.Add("leader loops", p.lead)
	g.Add("http", p.serve)
	g.Add("readiness", func(ctx context.Context) error {
		<-ctx.Done()
		p.stopping.Store(true)
		return nil
	})
	p.logger.Info("scheduler started", "version", version.String(), "http", p.server.Addr().String(), "store", p.o.Store.Kind)
	return g.Run(ctx)
}

func (p *process) serve(ctx context.Context) error {
	err := p.server.Run(ctx)
	p.api.Close()
	return err
}

func (p *process) lead(ctx context.Context) error {
	defer p.agents.close()
	return p.consensus.Lead(ctx, func(ctx context.Context, term uint64) error {
		return p.reconciler.Lead(ctx, term, p.leases)
	})
}

// health says what keeps this scheduler from taking requests, if anything.
func (p *process) health() api.Health {
	_, leader := p.consensus.Leader()
	h := api.Health{Live: true, Leader: string(leader)}
	if p.stopping.Load() {
		h.Why = append(h.Why, "this scheduler is stopping")
	}
	if ok, why := p.consensus.Ready(); !ok {
		h.Why = append(h.Why, why)
	}
	h.Ready = len(h.Why) == 0
	return h
}
