package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
)

// AgentClient calls the API of one agent. It is safe for concurrent use.
type AgentClient struct{ client *Client }

// NewAgentClient returns a client of the agent at a base URL, with the token of
// the cluster. A nil hc is one with sane timeouts.
func NewAgentClient(base, token string, hc *http.Client) (*AgentClient, error) {
	c, err := NewClient(ClientOptions{Endpoints: []string{base}, Token: token, HTTPClient: hc})
	if err != nil {
		return nil, err
	}
	return &AgentClient{client: c}, nil
}

// Desire tells the agent everything that it should do, and returns what it
// sees. Errors: [CodeConflict] for an older term or generation,
// [CodeUnavailable] where the agent is not ready or nobody answered.
func (c *AgentClient) Desire(ctx context.Context, d Desired) (Observed, error) {
	var o Observed
	err := c.client.do(ctx, call{method: http.MethodPut, path: "/v1/desired", body: d, into: &o})
	return o, err
}

// Observe waits until there is something newer than a revision of an agent
// process, at most ten seconds, and returns what the agent sees.
func (c *AgentClient) Observe(ctx context.Context, boot string, after uint64) (Observed, error) {
	q := url.Values{"boot": {boot}, "after": {strconv.FormatUint(after, 10)}}
	var o Observed
	err := c.client.do(ctx, call{method: http.MethodGet, path: "/v1/observed?" + q.Encode(), into: &o})
	return o, err
}
