package scheduler

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/boss/demo-multiplexer/edge/devproxy"
	"github.com/boss/demo-multiplexer/internal/httpx"
	"github.com/boss/demo-multiplexer/internal/lifecycle"
	"github.com/boss/demo-multiplexer/scheduler/edge"
	"github.com/boss/demo-multiplexer/scheduler/reconcile"
)

// edges are the drivers of all edges, and what serves the builtin ones.
type edges struct {
	drivers []reconcile.Edge
	servers []builtin
}

// builtin is one address of an edge that this process serves itself.
type builtin struct {
	name   string
	server *httpx.Server
	proxy  *devproxy.Proxy
}

func newEdges(options []EdgeOptions, logger *slog.Logger, registry prometheus.Registerer) (*edges, error) {
	all := &edges{}
	for _, o := range options {
		if err := all.open(o, logger, registry); err != nil {
			all.close()
			return nil, fmt.Errorf("edge %s: %w", o.ID, err)
		}
	}
	return all, nil
}

func (e *edges) open(o EdgeOptions, logger *slog.Logger, registry prometheus.Registerer) error {
	if o.Kind == EdgeCaddy {
		driver, err := edge.NewCaddy(edge.Options{ID: o.ID, Admin: o.Admin, Listen: o.Listen, Logger: logger, Registerer: registry})
		if err != nil {
			return err
		}
		e.drivers = append(e.drivers, driver)
		return nil
	}
	proxy, err := devproxy.New(devproxy.Options{ID: o.ID, Logger: logger})
	if err != nil {
		return err
	}
	e.drivers = append(e.drivers, proxy)
	for _, address := range o.Listen {
		server, err := httpx.Listen(address, proxy, logger)
		if err != nil {
			return err
		}
		e.servers = append(e.servers, builtin{name: fmt.Sprintf("edge %s at %s", o.ID, address), server: server, proxy: proxy})
	}
	logger.Warn("this edge is for development only", "edge", o.ID)
	return nil
}

// add lets the builtin edges serve as parts of the process.
func (e *edges) add(g *lifecycle.Group) {
	for _, b := range e.servers {
		g.Add(b.name, func(ctx context.Context) error {
			err := b.server.Run(ctx)
			b.proxy.Close()
			return err
		})
	}
}

// close gives the ports back where the edges are never run.
func (e *edges) close() {
	for _, b := range e.servers {
		b.server.Close()
	}
}
