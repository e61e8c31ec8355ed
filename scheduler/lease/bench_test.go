package lease

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

// warmView has n warm instances over 100 nodes, as a log would give it.
func warmView(b *testing.B, n int) *state.View {
	b.Helper()
	at := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	envelopes := []state.Envelope{{At: at, Command: state.PutTemplate{Spec: shop()}}}
	for i := range 100 {
		envelopes = append(envelopes, state.Envelope{At: at, Command: state.PutNode{Node: state.Node{ID: api.NodeID(fmt.Sprintf("n%02d", i)), Capacity: n}}})
	}
	for i := range n {
		id := api.InstanceID(fmt.Sprintf("i-%06d", i))
		envelopes = append(envelopes,
			state.Envelope{At: at, Command: state.CreateInstance{
				ID: id, Template: api.TemplateRef{Name: "shop", Revision: 1}, Node: api.NodeID(fmt.Sprintf("n%02d", i%100)), Host: fmt.Sprintf("d-%06d", i),
			}},
			state.Envelope{At: at.Add(time.Duration(i) * time.Millisecond), Command: state.WarmInstance{ID: id, Address: "10.0.0.1:4000"}})
	}
	v, results := state.ApplyAll(state.New(), envelopes)
	for _, r := range results {
		if r.Refusal != nil {
			b.Fatal(r.Refusal)
		}
	}
	return v
}

// BenchmarkAcquire measures finding an instance among 100,000 and giving it
// back: alone with a new view each time, in a burst on one view, and with all
// edges down.
func BenchmarkAcquire(b *testing.B) {
	v := warmView(b, 100_000)
	for _, c := range []struct {
		name      string
		burst     int
		edgesDown bool
	}{{"alone", 1, false}, {"burst=1000", 1000, false}, {"edges-down", 1, true}} {
		b.Run(c.name, func(b *testing.B) {
			l, f := newFakeLog(), newFakeFleet()
			l.view, f.edgesDown = v, c.edgesDown
			s, err := New(Options{Log: l, Records: newFakeRecords(), Routes: f, Nodes: f, URL: func(h string) string { return h }, Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				clear(s.stock.hands) // what a new revision of the view does
				var got []*state.Instance
				for range c.burst {
					t := s.stock.take(want{name: "shop"})
					if t.instance == nil {
						b.Fatal("no instance")
					}
					got = append(got, t.instance)
				}
				for _, i := range got {
					s.stock.giveBack("shop", i.ID)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*c.burst), "ns/instance")
		})
	}
}
