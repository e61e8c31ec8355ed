package reconcile

import (
	"fmt"
	"testing"
	"time"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

// large is a cluster of 1,000 nodes with 90,000 leased and 10,000 warm
// instances of 20 templates, at rest.
func large(b *testing.B) *sketch {
	s := newSketch(b)
	var templates []*state.Template
	for n := range 20 {
		templates = append(templates, s.template(api.TemplateName(fmt.Sprintf("t%d", n)), 500))
	}
	var batch []state.Envelope
	add := func(cmd state.Command) { batch = append(batch, state.Envelope{At: s.now, Command: cmd}) }
	for n := range 1000 {
		node := api.NodeID(fmt.Sprintf("n%d", n))
		s.node(node, 100)
		for k := range 100 {
			id := api.InstanceID(fmt.Sprintf("i-%d-%d", n, k))
			add(state.CreateInstance{ID: id, Template: templates[(k+n)%20].Ref(), Node: node, Host: string(id) + ".demo.test"})
			add(state.WarmInstance{ID: id, Address: "10.0.0.1:8080"})
			if k < 90 {
				add(state.ClaimLease{Lease: api.LeaseID(id), Instance: id, InstanceRevision: 2, TTL: api.Duration(time.Hour), MaxTTL: api.Duration(time.Hour)})
			}
		}
	}
	s.v, _ = state.ApplyAll(s.v, batch)
	if n := s.v.ActiveLeases(); n != 90_000 {
		b.Fatalf("%d leases, want 90000", n)
	}
	return s
}

func BenchmarkPlans(b *testing.B) {
	s := large(b)
	for name, plan := range map[string]func(){
		"pool": func() {
			if p := planPool(s.v, s.facts()); len(p.actions) != 0 {
				b.Fatalf("a cluster at rest has %d actions", len(p.actions))
			}
		},
		"rebind": func() { brokenLeases(s.v) },
		"scan":   func() { scanLeases(s.v, map[api.LeaseID]*state.Lease{}) },
		"sweep":  func() { planSweep(s.v, sweepBatch) },
		"expiry": func() { planExpiry(s.v, s.now, expiryBatch) },
		"routes": func() { renderRoutes(s.v, s.now) },
		"link":   func() { s.content("n500", nil) },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				plan()
			}
		})
	}
}
