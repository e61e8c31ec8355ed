package edge

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

// The kinds of push, as metrics and logs name them.
const (
	pushCreate = "create" // the server did not exist
	pushWhole  = "whole"  // the whole server at once
	pushAdd    = "add"    // one route
	pushDelete = "delete" // one route
)

// converge reads the whole server and changes what differs from want.
func (c *Caddy) converge(ctx context.Context, want plan) (pushed bool, err error) {
	k := &c.known
	server, err := c.admin.server(ctx)
	if err != nil {
		return false, fmt.Errorf("edge %s: read server: %w", c.id, err)
	}
	untouched := k.current != "" && server.equal(k.sum)
	if untouched && k.current == want.digest && k.base.Term == want.Term {
		k.latest, k.verified = want.order, time.Now()
		return false, nil
	}
	if !untouched {
		// The marker was read before the server; a newer leader may have
		// pushed in between, and then this ETag is of its table.
		m := server.marker()
		if err := c.fence(m.order, want); err != nil {
			return false, err
		}
		if k.current != "" {
			c.metrics.repairs.Inc()
			c.logger.Warn("edge was restarted or changed by somebody else; repairing all its routes", "found", m.String())
		}
	}

	kind, method, path, base := pushWhole, http.MethodPatch, serverPath, marker{order: want.order, Digest: want.digest}
	body := c.renderer.server(want, base)
	sum := digest(body)
	switch {
	case server.absent():
		kind, method = pushCreate, http.MethodPut
	case untouched && k.base.Term == want.Term:
		if one, ok := c.single(want); ok {
			kind, method, path, body, base = one.kind, one.method, one.path, one.body, k.base
			sum = digest(c.renderer.server(want, base))
		}
	}
	k.current = "" // until the write is known to have succeeded
	start := time.Now()
	if err := c.admin.write(ctx, method, path, body, server.etag); err != nil {
		c.metrics.failed(err)
		if errors.Is(err, errChanged) {
			return false, err
		}
		return false, fmt.Errorf("edge %s: push routes (%s): %w", c.id, kind, err)
	}
	now := time.Now()
	c.metrics.pushed(kind, now.Sub(start))
	c.logger.Debug("pushed routes", "kind", kind, "routes", len(want.routes), "term", want.Term, "generation", want.Generation, "took", now.Sub(start))
	*k = known{routes: want.routes, ended: want.ended, current: want.digest, latest: want.order, base: base, sum: sum, verified: now}
	return true, nil
}

// change is a push of one route.
type change struct {
	kind, method, path string
	body               []byte
}

// single returns the push of one route that leads from what is known to want,
// if there is one. Caddy reloads once either way, but the request stays small.
func (c *Caddy) single(want plan) (change, bool) {
	k := &c.known
	if !slices.Equal(want.ended, k.ended) {
		return change{}, false
	}
	longer, shorter := want.routes, k.routes
	if len(longer) < len(shorter) {
		longer, shorter = shorter, longer
	}
	if len(longer) != len(shorter)+1 {
		return change{}, false
	}
	i := 0
	for i < len(shorter) && longer[i] == shorter[i] {
		i++
	}
	for j := i; j < len(shorter); j++ {
		if longer[j+1] != shorter[j] {
			return change{}, false
		}
	}
	r := longer[i]
	if len(want.routes) < len(k.routes) {
		return change{kind: pushDelete, method: http.MethodDelete, path: idPath + routeID(r.Instance)}, true
	}
	// PUT inserts before the index. The marker comes first, so route i is at
	// i+1; the ETag makes sure that it still is.
	at := serverPath + "/routes/" + strconv.Itoa(i+1)
	return change{kind: pushAdd, method: http.MethodPut, path: at, body: encode(renderRoute(r))}, true
}

// report stores what status and gauges say.
func (c *Caddy) report(want plan, pushed bool, err error) {
	var reasons []string
	for _, s := range want.skipped {
		reasons = append(reasons, s.Error())
	}
	reason := strings.Join(reasons, "; ")

	c.mu.Lock()
	before := c.status
	next := api.EdgeStatus{ID: c.id, Healthy: err == nil, Routes: len(want.routes), Reason: reason, LastPushed: before.LastPushed}
	if err != nil {
		next.Routes, next.Reason = before.Routes, err.Error()
	}
	if pushed {
		next.LastPushed = time.Now()
	}
	c.status = next
	c.mu.Unlock()

	c.metrics.routes.Set(float64(next.Routes))
	c.metrics.skipped.Set(float64(len(want.skipped)))
	if reason != "" && reason != before.Reason && err == nil {
		c.logger.Warn("left out routes", "reason", reason)
	}
	if next.Healthy && !before.Healthy {
		c.logger.Info("edge serves the routes", "routes", next.Routes, "term", want.Term)
	}
}
