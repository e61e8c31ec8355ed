package scheduler

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/cluster"
	"github.com/boss/demo-multiplexer/scheduler/reconcile"
)

const (
	// agentDialTimeout bounds connecting to an agent: nodes are near, and a
	// silent one must be noticed well within the grace of a node.
	agentDialTimeout = 2 * time.Second
	// agentIdle closes connections to agents that are not used any more.
	agentIdle = time.Minute
)

// errNoAnswer is what agents' errors become when nobody answered at all.
var errNoAnswer = errors.New("the agent did not answer")

// dialer makes clients of agents that share connections.
type dialer struct {
	token  string
	client *http.Client
}

func newDialer(token string) *dialer {
	return &dialer{token: token, client: &http.Client{Transport: &http.Transport{
		DialContext:         (&net.Dialer{Timeout: agentDialTimeout}).DialContext,
		MaxIdleConnsPerHost: 4, IdleConnTimeout: agentIdle,
	}}}
}

func (d *dialer) close() { d.client.CloseIdleConnections() }

func (d *dialer) dial(base string) (reconcile.Agent, error) {
	c, err := api.NewAgentClient(base, d.token, d.client)
	if err != nil {
		return nil, err
	}
	return agent{c}, nil
}

// agent tells apart a host whose agent does not serve and a host that is
// silent: the containers of the former most likely still run.
type agent struct{ client *api.AgentClient }

// Desire implements reconcile.Agent.
func (a agent) Desire(ctx context.Context, d api.Desired) (api.Observed, error) {
	o, err := a.client.Desire(ctx, d)
	return o, sayWho(err)
}

// Observe implements reconcile.Agent.
func (a agent) Observe(ctx context.Context, boot string, after uint64) (api.Observed, error) {
	o, err := a.client.Observe(ctx, boot, after)
	return o, sayWho(err)
}

// sayWho classifies the error of a call. A refused connection and an answer
// that the agent is not ready both come from a living host.
func sayWho(err error) error {
	var transport *url.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w: %w", reconcile.ErrRefused, err)
	case errors.As(err, &transport):
		// Without the code: an unreachable host is not an answer "unavailable".
		return fmt.Errorf("%w: %v", errNoAnswer, err) //nolint:errorlint // the chain is cut on purpose
	case api.CodeOf(err) == api.CodeUnavailable:
		return fmt.Errorf("%w: %w", reconcile.ErrRefused, err)
	}
	return err
}

// members shows the agents that gossip sees to the leader's loops.
type members struct{ gossip *cluster.Gossip }

// Agents implements reconcile.Members.
func (m members) Agents() []reconcile.Member {
	var agents []reconcile.Member
	for _, member := range m.gossip.Members() {
		if member.Meta.Role == api.RoleAgent && member.Meta.HTTP != "" {
			agents = append(agents, reconcile.Member{ID: api.NodeID(member.Name), URL: "http://" + member.Meta.HTTP, Alive: member.Alive})
		}
	}
	return agents
}

// Subscribe implements reconcile.Members.
func (m members) Subscribe() (<-chan struct{}, func()) { return m.gossip.Subscribe() }
