package agent

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/boss/demo-multiplexer/agent/checkpoint"
	"github.com/boss/demo-multiplexer/agent/httpd"
	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/internal/httpx"
	"github.com/boss/demo-multiplexer/internal/lifecycle"
	"github.com/boss/demo-multiplexer/internal/logging"
	"github.com/boss/demo-multiplexer/internal/version"
)

// Run runs one agent until ctx ends, and returns nil after an orderly stop,
// which leaves the containers running. o must have been validated; the log
// goes to stderr.
func Run(ctx context.Context, o Options, stderr io.Writer) error {
	logger, err := logging.New(stderr, o.Log)
	if err != nil {
		return err
	}
	p, err := build(o, logger.With("node", o.ID)) //nolint:contextcheck // the server makes its own contexts, which outlive no request
	if err != nil {
		return err
	}
	return p.run(ctx)
}

// process is one agent with all of its parts.
type process struct {
	o         Options
	logger    *slog.Logger
	registry  *prometheus.Registry
	recorder  *recorder
	token     string
	gossipKey []byte
	disk      checkpoint.Disk
	store     *checkpoint.Store
	gate      *gate
	server    *httpx.Server

	stopping atomic.Bool // readiness is the first thing to go
}

// build makes what needs no runtime. The API's port is opened before anything
// is read or written, so that a second agent on the same host, or a port that
// somebody else has, is the first thing that an operator reads.
func build(o Options, logger *slog.Logger) (p *process, err error) {
	p = &process{o: o, logger: logger, registry: newRegistry(), disk: checkpoint.Disk{Reserve: o.Checkpoints.DiskReserve}, gate: newGate()}
	if p.token, err = httpx.ReadSecret(o.TokenFile); err != nil {
		return nil, fmt.Errorf("token_file: %w", err)
	}
	if p.gossipKey, err = o.gossipKey(); err != nil {
		return nil, fmt.Errorf("gossip.key_file: %w", err)
	}
	p.recorder = newRecorder(p.registry)
	handler := httpd.New(httpd.Options{
		Adapter: httpx.NewAdapter(logger, p.registry, "demo_agent"), Token: p.token, Pool: p.gate, Store: p.gate, Health: p.health,
		Metrics: promhttp.HandlerFor(p.registry, promhttp.HandlerOpts{}),
	})
	if p.server, err = httpx.Listen(o.HTTP.Listen, handler, logger); err != nil {
		return nil, err
	}
	if p.store, err = checkpoint.Open(filepath.Join(o.DataDir, "checkpoints"), p.disk); err != nil {
		p.server.Close()
		return nil, err
	}
	p.registry.MustRegister(&gauges{gate: p.gate, store: p.store, host: p.host()})
	return p, nil
}

// run starts the parts and stops them in reverse: leave readiness, leave
// gossip, so that nobody counts on this node any more, drain HTTP, end starts
// and builds under way.
func (p *process) run(ctx context.Context) error {
	g := lifecycle.New(p.logger, p.o.StopDeadline.D())
	g.Add("instances", p.keepInstances)
	g.Add("http", p.server.Run)
	g.Add("gossip", p.joinGossip)
	g.Add("readiness", func(ctx context.Context) error {
		<-ctx.Done()
		p.stopping.Store(true)
		return nil
	})
	p.logger.Info("agent started", "version", version.String(), "http", p.server.Addr().String(), "runtime", p.o.Runtime)
	return g.Run(ctx)
}

// health says what keeps this agent from taking requests, if anything.
func (p *process) health() api.Health {
	h := api.Health{Live: true}
	if p.stopping.Load() {
		h.Why = append(h.Why, "this agent is stopping")
	}
	if _, why := p.gate.enter(); why != "" {
		h.Why = append(h.Why, why)
	}
	h.Ready = len(h.Why) == 0
	return h
}
