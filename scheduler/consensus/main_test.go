package consensus_test

import (
	"context"
	"fmt"
	"testing"

	"go.uber.org/goleak"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/consensus"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// must proposes on n and fails the test where the command is not applied.
func must(t testing.TB, n *consensus.Node, cmd state.Command) state.Result {
	t.Helper()
	r, err := n.Propose(t.Context(), cmd)
	if err == nil {
		err = r.Err()
	}
	if err != nil {
		t.Fatalf("Propose(%+v): %v", cmd, err)
	}
	return r
}

// stock puts a template, a node and count warm instances into the state.
func stock(t testing.TB, n *consensus.Node, count int) {
	t.Helper()
	must(t, n, state.PutTemplate{Spec: api.Template{Name: "shop", Image: "img", Port: 80}})
	must(t, n, state.PutNode{Node: state.Node{ID: "n1", Capacity: count}})
	for i := range count {
		id := api.InstanceID(fmt.Sprintf("i-%d", i))
		must(t, n, state.CreateInstance{ID: id, Template: api.TemplateRef{Name: "shop", Revision: 1}, Node: "n1", Host: fmt.Sprintf("d-%d", i)})
		must(t, n, state.WarmInstance{ID: id, Address: "10.0.0.1:4000"})
	}
}

// claimOf claims the i-th instance of stock, as it was made.
func claimOf(lease, i int) state.ClaimLease {
	return state.ClaimLease{
		Lease: api.LeaseID(fmt.Sprintf("l-%d", lease)), Instance: api.InstanceID(fmt.Sprintf("i-%d", i)), InstanceRevision: 2,
		TTL: api.Duration(1e9), MaxTTL: api.Duration(1e9),
	}
}

// nothing is a command that changes only the revision.
func nothing() state.Command { return state.Collect{Limit: 1} }

// run runs n until the test ends or stop is called, which returns its error.
func run(t testing.TB, n *consensus.Node) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	stopped := false
	var err error
	stop = func() error {
		if !stopped {
			stopped = true
			cancel()
			err = <-ended
		}
		return err
	}
	t.Cleanup(func() { _ = stop() })
	select {
	case <-n.Started():
	case err = <-ended:
		stopped = true
		cancel()
	}
	return stop
}
