package podman

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"

	"github.com/boss/demo-multiplexer/agent/checkpoint"
	"github.com/boss/demo-multiplexer/api"
)

// Options configure a runtime.
type Options struct {
	Node     api.NodeID
	Socket   string     // path of Podman's socket
	Address  netip.Addr // of this node, where instances are published
	PagesDir string     // where pages are unpacked; best on a tmpfs
	Store    *checkpoint.Store
	Disk     checkpoint.Disk
	Agent    string // version of this agent
	Logger   *slog.Logger
}

func (o Options) validate() error {
	if !api.ValidName(string(o.Node)) || o.Socket == "" || !o.Address.IsValid() || o.PagesDir == "" || o.Store == nil || o.Logger == nil {
		return errors.New("podman runtime needs a node, a socket, an address, a directory for pages, a store and a logger")
	}
	return nil
}

// Runtime runs instances as containers. It is safe for concurrent use after
// [Runtime.Preflight].
type Runtime struct {
	node     api.NodeID
	address  netip.Addr
	pagesDir string
	store    *checkpoint.Store
	disk     checkpoint.Disk
	agent    string
	logger   *slog.Logger
	client   *client
	probe    *prober

	// What the preflight found.
	graphRoot string // where Podman keeps its storage
	hostClass api.HostClass
	versions  api.Versions
}

// Open connects to Podman. It starts nothing and changes nothing.
func Open(ctx context.Context, o Options) (*Runtime, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	c, err := connect(ctx, o.Socket)
	if err != nil {
		return nil, err
	}
	return &Runtime{
		node: o.Node, address: o.Address, pagesDir: o.PagesDir, store: o.Store, disk: o.Disk,
		agent: o.Agent, logger: o.Logger, client: c, probe: newProber(),
	}, nil
}
