package api

import (
	"context"
	"math"
	"net/http"
	"net/url"
	"strconv"
)

const demoPath = "/api/v1/demo/"

// Acquire leases a demo. Without an idempotency key it makes one, so that
// trying the next endpoint never leases two.
func (c *Client) Acquire(ctx context.Context, a AcquireCall) (Demo, error) {
	if a.IdempotencyKey == "" {
		a.IdempotencyKey = NewRequestID()
	}
	header := http.Header{"Idempotency-Key": {a.IdempotencyKey}}
	if a.Wait > 0 {
		header.Set("Prefer", "wait="+strconv.Itoa(int(math.Ceil(a.Wait.Seconds()))))
	}
	var d Demo
	err := c.do(ctx, call{method: http.MethodPost, path: demoPath + "acquire", body: a.AcquireRequest, into: &d, header: header})
	return d, err
}

// Demo returns a demo.
func (c *Client) Demo(ctx context.Context, id LeaseID) (Demo, error) {
	var d Demo
	err := c.do(ctx, call{method: http.MethodGet, path: demoOf(id), into: &d})
	return d, err
}

// Extend gives a demo more time.
func (c *Client) Extend(ctx context.Context, id LeaseID, r ExtendRequest) (Demo, error) {
	var d Demo
	err := c.do(ctx, call{method: http.MethodPost, path: demoOf(id) + "/extend", body: r, into: &d})
	return d, err
}

// Release ends a demo.
func (c *Client) Release(ctx context.Context, id LeaseID) (Demo, error) {
	var d Demo
	err := c.do(ctx, call{method: http.MethodDelete, path: demoOf(id), into: &d})
	return d, err
}

func demoOf(id LeaseID) string { return demoPath + url.PathEscape(string(id)) }

// PoolStats counts the instances of every template.
func (c *Client) PoolStats(ctx context.Context) (PoolStats, error) {
	return get[PoolStats](ctx, c, "/api/v1/pool/stats")
}

// Cluster says who leads and who is there, as the endpoint that answers sees
// it.
func (c *Client) Cluster(ctx context.Context) (ClusterStatus, error) {
	return get[ClusterStatus](ctx, c, "/api/v1/cluster")
}

// Nodes lists the nodes.
func (c *Client) Nodes(ctx context.Context) ([]NodeStatus, error) {
	return get[[]NodeStatus](ctx, c, "/api/v1/nodes")
}

// Leases lists the leases that are remembered.
func (c *Client) Leases(ctx context.Context) ([]LeaseStatus, error) {
	return get[[]LeaseStatus](ctx, c, "/api/v1/leases")
}

// Instances lists the instances.
func (c *Client) Instances(ctx context.Context) ([]InstanceStatus, error) {
	return get[[]InstanceStatus](ctx, c, "/api/v1/instances")
}

// Templates lists the templates in their current revisions.
func (c *Client) Templates(ctx context.Context) ([]TemplateStatus, error) {
	return get[[]TemplateStatus](ctx, c, templatesPath)
}

const templatesPath = "/api/v1/templates"

// Template returns one template.
func (c *Client) Template(ctx context.Context, name TemplateName) (TemplateStatus, error) {
	return get[TemplateStatus](ctx, c, templatesPath+"/"+url.PathEscape(string(name)))
}

// ApplyTemplate makes t the current revision of its template.
func (c *Client) ApplyTemplate(ctx context.Context, t Template) (TemplateStatus, error) {
	var s TemplateStatus
	err := c.do(ctx, call{method: http.MethodPut, path: templatesPath + "/" + url.PathEscape(string(t.Name)), body: t, into: &s})
	return s, err
}

func get[T any](ctx context.Context, c *Client, path string) (T, error) {
	var v T
	err := c.do(ctx, call{method: http.MethodGet, path: path, into: &v})
	return v, err
}
