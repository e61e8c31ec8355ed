package reconcile

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

// maxEnded is how many ended demos the edges tell from unknown ones.
const maxEnded = 10_000

// table is a route table and what is asked about it.
type table struct {
	api.RouteTable
	instances map[api.InstanceID]struct{} // that have a route
}

// routing renders the table that the edges should serve.
func (t *term) routing() loop {
	r := &router{t: t}
	return loop{name: "routes", period: time.Second, pause: 10 * time.Millisecond, share: 5, bells: []*bell{t.views}, round: r.round}
}

type router struct {
	t        *term
	revision uint64 // of the view that was rendered last
}

func (r *router) round(context.Context) (next time.Time, err error) {
	t := r.t
	v := t.o.Log.View()
	last := t.table.Load()
	if last != nil && v.Revision() == r.revision && len(last.Ended) == 0 {
		return time.Time{}, nil
	}
	r.revision = v.Revision()
	routes, ended := renderRoutes(v, t.now(v).Add(-t.o.EndedKept))
	if last != nil && slices.Equal(routes, last.Routes) && slices.Equal(ended, last.Ended) {
		return time.Time{}, nil
	}
	instances := make(map[api.InstanceID]struct{}, len(routes))
	for _, route := range routes {
		instances[route.Instance] = struct{}{}
	}
	t.table.Store(&table{
		RouteTable: api.RouteTable{Term: t.number, Generation: v.Revision(), Routes: routes, Ended: ended},
		instances:  instances,
	})
	for _, e := range t.edges {
		nudge(e.wake)
	}
	return time.Time{}, nil
}

// renderRoutes returns what visitors can reach, sorted by host: warm instances
// by their own host, so that a lease needs no push, and leased ones by the host
// of their lease, which differs once it has moved. since is how far back ended
// demos are named.
func renderRoutes(v *state.View, since time.Time) (routes []api.Route, ended []string) {
	up := map[api.NodeID]bool{}
	for n := range v.Nodes() {
		up[n.ID] = n.Status == api.NodeUp
	}
	for t := range v.Templates() {
		for i := range v.InstancesOf(t.Spec.Name, api.InstanceWarm) {
			if up[i.Node] {
				routes = append(routes, api.Route{Host: i.Host, Instance: i.ID, Upstream: i.Address})
			}
		}
		for i := range v.InstancesOf(t.Spec.Name, api.InstanceLeased) {
			l, ok := v.Lease(i.Lease)
			if ok && up[i.Node] && !l.State.Ended() && l.Instance == i.ID {
				routes = append(routes, api.Route{Host: l.Host, Instance: i.ID, Upstream: i.Address})
			}
		}
	}
	slices.SortFunc(routes, func(a, b api.Route) int { return strings.Compare(a.Host, b.Host) })

	for l := range v.LeasesByEnd() {
		if l.EndedAt.After(since) {
			ended = append(ended, l.Host)
		}
	}
	ended = ended[max(0, len(ended)-maxEnded):] // the newest come last
	slices.Sort(ended)
	return routes, slices.Compact(ended)
}
