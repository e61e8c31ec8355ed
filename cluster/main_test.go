package cluster

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/cluster/clustertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds waits that no test is about.
const patience = 20 * time.Second

// member is a Gossip that runs.
type member struct {
	*Gossip
	stop func() error // ends Run and returns its outcome; may be called again
}

// start runs a member until the test ends or it is stopped.
func start(t *testing.T, o Options) member {
	t.Helper()
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(t.Output(), nil)).With("member", o.Name)
	}
	if o.Meta == (api.MemberMeta{}) {
		o.Meta = agentAt("10.1.0.1:9000")
	}
	g, err := New(o)
	if err != nil {
		t.Fatalf("New(%s): %v", o.Name, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	m := member{Gossip: g, stop: func() error {
		cancel()
		err := <-ended
		ended <- err
		return err
	}}
	t.Cleanup(func() {
		if err := m.stop(); err != nil {
			t.Errorf("Run of %s: got %v, want nil", o.Name, err)
		}
	})
	select {
	case <-g.Started():
	case err := <-ended:
		ended <- err
		t.Fatalf("%s did not start: %v", o.Name, err)
	}
	return m
}

// on returns the options of a member on a network in memory that joins others
// by their names.
func on(n *clustertest.Network, name string, join ...string) Options {
	o := Options{Name: name, Transport: n.Transport(name)}
	for _, other := range join {
		o.Join = append(o.Join, n.Address(other))
	}
	return o
}

func agentAt(address string) api.MemberMeta {
	return api.MemberMeta{Role: api.RoleAgent, HTTP: address}
}

// look spells the members: "a+ b-" says that a is alive and b is not.
func look(g *Gossip) string {
	var words []string
	for _, m := range g.Members() {
		if m.Alive {
			words = append(words, m.Name+"+")
		} else {
			words = append(words, m.Name+"-")
		}
	}
	return strings.Join(words, " ")
}

// await waits for what look returns.
func await(t *testing.T, g *Gossip, within time.Duration, want string) {
	t.Helper()
	awaitTrue(t, g, within, func() (string, bool) {
		got := look(g)
		return "members " + got + ", want " + want, got == want
	})
}

// awaitTrue waits until ok says so after a change of the members.
func awaitTrue(t *testing.T, g *Gossip, within time.Duration, ok func() (got string, good bool)) {
	t.Helper()
	changed, stop := g.Subscribe()
	defer stop()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	for {
		got, good := ok()
		if good {
			return
		}
		select {
		case <-changed:
		case <-deadline.C:
			t.Fatalf("%s after %v: got %s", g.o.Name, within, got)
		}
	}
}

// metaOf returns what a member is listed with.
func metaOf(g *Gossip, name string) api.MemberMeta {
	for _, m := range g.Members() {
		if m.Name == name {
			return m.Meta
		}
	}
	return api.MemberMeta{}
}
