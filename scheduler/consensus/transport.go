package consensus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

const (
	// transportTimeout bounds one read or write on a Raft connection. A silent
	// peer must not keep replication to it waiting much longer than the peer
	// needs to come back; snapshots get more, by their size.
	transportTimeout = 2 * time.Second
	// transportPool is how many idle connections are kept per peer.
	transportPool = 3
)

// fullTransport is what all transports of the library are.
type fullTransport interface {
	raft.Transport
	raft.WithPreVote
	raft.WithClose
}

// relay is a transport that listens in on how far the leader has committed,
// because a follower is only told as much as it can apply.
type relay struct {
	fullTransport
	out             chan raft.RPC
	leaderCommitted atomic.Uint64
}

func newRelay(t fullTransport) *relay { return &relay{fullTransport: t, out: make(chan raft.RPC)} }

// Consumer implements raft.Transport.
func (r *relay) Consumer() <-chan raft.RPC { return r.out }

// run hands on requests until ctx ends.
func (r *relay) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case rpc := <-r.fullTransport.Consumer():
			if a, ok := rpc.Command.(*raft.AppendEntriesRequest); ok && a.LeaderCommitIndex > r.leaderCommitted.Load() {
				r.leaderCommitted.Store(a.LeaderCommitIndex)
			}
			select {
			case r.out <- rpc:
			case <-ctx.Done():
				return
			}
		}
	}
}

// openTransport listens for the other servers.
func openTransport(o Options, logger hclog.Logger) (fullTransport, error) {
	if o.Transport != nil {
		t, ok := o.Transport.(fullTransport)
		if !ok {
			return nil, fmt.Errorf("the transport %T cannot be closed or knows no pre-votes", o.Transport)
		}
		return t, nil
	}
	layer := o.StreamLayer
	if layer == nil {
		var err error
		if layer, err = listen(o.Bind, o.Advertise); err != nil {
			return nil, err
		}
	}
	return raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: layer, MaxPool: transportPool, Timeout: transportTimeout, Logger: logger,
	}), nil
}

// tcp is the plain stream layer.
type tcp struct {
	net.Listener
	advertise net.Addr
}

func listen(bind, advertise string) (*tcp, error) {
	var public net.Addr
	if advertise != "" {
		a, err := net.ResolveTCPAddr("tcp", advertise)
		if err != nil {
			return nil, fmt.Errorf("the advertised Raft address %s is no address and port: %w", advertise, err)
		}
		public = a
	}
	l, err := net.Listen("tcp", bind)
	if err != nil {
		return nil, fmt.Errorf("raft cannot listen on %s: %w", bind, err)
	}
	if public == nil {
		public = l.Addr()
	}
	if a, ok := public.(*net.TCPAddr); !ok || a.IP == nil || a.IP.IsUnspecified() {
		return nil, errors.Join(fmt.Errorf("the Raft address %s cannot be reached by others; advertise another", public), l.Close())
	}
	return &tcp{Listener: l, advertise: public}, nil
}

// Addr returns the address that the others use.
func (t *tcp) Addr() net.Addr { return t.advertise }

// Dial implements raft.StreamLayer.
func (t *tcp) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return net.DialTimeout("tcp", string(address), timeout)
}
