package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/boss/demo-multiplexer/agent/checkpoint"
	"github.com/boss/demo-multiplexer/agent/page"
	"github.com/boss/demo-multiplexer/agent/podman"
	"github.com/boss/demo-multiplexer/agent/pool"
	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/internal/version"
)

// The pause between two attempts of the preflight: short at first, because at
// boot Podman's socket comes a moment later.
const (
	retryFirst = 250 * time.Millisecond
	retryMost  = 10 * time.Second
)

// ground is what the pool stands on.
type ground struct {
	node        api.NodeInfo
	runtime     pool.Runtime
	checkpoints pool.Checkpoints
	close       func() error // ends what does not outlive this process
}

// keepInstances proves the host and then owns its instances until ctx ends.
func (p *process) keepInstances(ctx context.Context) (err error) {
	ground, err := p.preflight(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ground.close()) }()
	owner, err := p.makePool(ground) //nolint:contextcheck // to try a port takes no time
	if err != nil {
		return err
	}
	p.gate.waitFor("the first list of this node's containers")
	listed := make(chan struct{})
	watch, stop := context.WithCancel(ctx)
	defer func() { stop(); <-listed }()
	go func() {
		defer close(listed)
		if _, err := owner.Observe(watch, "", 0); err == nil {
			p.gate.pass(behind{node: ground.node, pool: owner, store: p.store})
			p.logger.Info("agent ready", "restores", ground.node.Restores, "host_class", ground.node.HostClass)
		}
	}()
	return owner.Run(ctx)
}

// preflight finds out what this host is, however long its Podman takes to
// come up: the agent is of no use without it, and restarting would not help.
func (p *process) preflight(ctx context.Context) (ground, error) {
	if p.o.Runtime == RuntimePage {
		return p.pageGround()
	}
	var said string
	for pause := retryFirst; ; pause = min(2*pause, retryMost) {
		ground, err := p.podmanGround(ctx)
		switch {
		case err == nil:
			return ground, nil
		case ctx.Err() != nil:
			return ground, context.Cause(ctx)
		}
		if reason := err.Error(); reason != said {
			said = reason
			p.gate.waitFor("the preflight: " + reason)
			p.logger.Warn("the preflight failed; trying again until it succeeds", "err", err)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ground, context.Cause(ctx)
		}
	}
}

func (p *process) podmanGround(ctx context.Context) (ground, error) {
	address, err := p.o.address()
	if err != nil {
		return ground{}, err
	}
	runtime, err := podman.Open(ctx, podman.Options{
		Node: p.o.ID, Socket: p.o.Podman.Socket, Address: address, PagesDir: p.o.pagesDir(), Store: p.store, Disk: p.disk,
		Agent: version.String(), Logger: p.logger,
	})
	if err != nil {
		return ground{}, err
	}
	node, err := runtime.Preflight(ctx)
	if err != nil {
		return ground{}, err
	}
	fetcher := checkpoint.NewFetcher(p.store, node.HostClass, p.token, p.o.Checkpoints.Transfers, p.o.Checkpoints.Bandwidth)
	return ground{
		node: node, runtime: runtime, checkpoints: runtime.Library(fetcher),
		close: func() error { fetcher.Client.CloseIdleConnections(); return nil },
	}, nil
}

func (p *process) pageGround() (ground, error) {
	address, err := p.o.address()
	if err != nil {
		return ground{}, err
	}
	runtime := page.New(address, p.logger)
	p.logger.Warn("the runtime is for development only: instances are built-in pages without isolation")
	return ground{
		node: page.Info(p.o.ID, version.String()), runtime: runtime, checkpoints: page.Checkpoints{}, close: runtime.Close,
	}, nil
}

func (p *process) makePool(g ground) (*pool.Pool, error) {
	address, err := p.o.address()
	if err != nil {
		return nil, err
	}
	g.node.Capacity = p.o.Capacity
	owner, err := pool.New(pool.Options{
		Dir: filepath.Join(p.o.DataDir, "pool"), Node: g.node, Ports: p.o.portRange(), PortFree: portFree(address), Starts: p.o.Starts,
		Runtime: g.runtime, Checkpoints: g.checkpoints, Host: p.host(), Recorder: p.recorder, Logger: p.logger,
	})
	if err != nil {
		return nil, fmt.Errorf("records of this node's instances: %w", err)
	}
	return owner, nil
}
