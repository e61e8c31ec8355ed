package cluster

import (
	"context"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/memberlist"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/cluster/clustertest"
)

// three starts a, b and c, which know each other when it returns.
func three(t *testing.T, n *clustertest.Network) (a, b, c member) {
	t.Helper()
	a = start(t, on(n, "a", "a", "b", "c"))
	b = start(t, on(n, "b", "a", "b", "c"))
	c = start(t, on(n, "c", "a", "b", "c"))
	for _, m := range []member{a, b, c} {
		await(t, m.Gossip, 10*time.Second, "a+ b+ c+")
	}
	return a, b, c
}

func TestMembersFindEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { three(t, clustertest.New(t)) })
}

// TestMembersWaitForTheFirst starts those who join long before the one they
// join.
func TestMembersWaitForTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := clustertest.New(t)
		b := start(t, on(n, "b", "a"))
		c := start(t, on(n, "c", "a"))
		time.Sleep(10 * time.Minute)
		if got, want := look(b.Gossip), "b+"; got != want {
			t.Fatalf("alone: got %q, want %q", got, want)
		}
		a := start(t, on(n, "a"))
		for _, m := range []member{a, b, c} {
			await(t, m.Gossip, 2*joinMost, "a+ b+ c+")
		}
	})
}

func TestCrashIsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := clustertest.New(t)
		a, b, c := three(t, n)
		n.Isolate("c")
		at := time.Now()
		await(t, a.Gossip, 5*time.Second, "a+ b+ c-")
		await(t, b.Gossip, 5*time.Second-time.Since(at), "a+ b+ c-")
		t.Logf("seen after %v", time.Since(at))
		for _, m := range a.Members() {
			if m.Name == "c" && (m.Since.Before(at) || m.Meta != agentAt("10.1.0.1:9000")) {
				t.Errorf("c: got %+v, want its last meta and a time after %v", m, at)
			}
		}
		await(t, c.Gossip, 10*time.Second, "a- b- c+")
	})
}

// TestPartitionHeals keeps the cut longer than gossip goes on talking to the
// dead.
func TestPartitionHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := clustertest.New(t)
		a, b, c := three(t, n)
		n.Isolate("c")
		time.Sleep(10 * time.Minute)
		for m, want := range map[*Gossip]string{a.Gossip: "a+ b+ c-", b.Gossip: "a+ b+ c-", c.Gossip: "a- b- c+"} {
			if got := look(m); got != want {
				t.Errorf("while cut, %s: got %q, want %q", m.o.Name, got, want)
			}
		}
		n.Heal()
		at := time.Now()
		for _, m := range []member{a, b, c} {
			await(t, m.Gossip, 30*time.Second-time.Since(at), "a+ b+ c+")
		}
		t.Logf("together after %v", time.Since(at))
	})
}

func TestSetMetaSpreads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, c := three(t, clustertest.New(t))
		want := api.MemberMeta{Role: api.RoleScheduler, HTTP: "10.1.0.9:8080", Raft: "10.1.0.9:7000", Joined: true}
		if err := a.SetMeta(want); err != nil {
			t.Fatalf("SetMeta: %v", err)
		}
		for _, m := range []member{a, b, c} {
			awaitTrue(t, m.Gossip, 2*time.Second, func() (string, bool) {
				got := metaOf(m.Gossip, "a")
				return cmp.Diff(want, got), got == want
			})
		}
		at := time.Now()
		if err := a.SetMeta(want); err != nil || time.Since(at) > 0 {
			t.Errorf("the same again: got %v after %v, want nil at once", err, time.Since(at))
		}
	})
}

// TestSetMetaWhileStarting changes what a member says after the library has
// asked for it and before Run has the library.
func TestSetMetaWhileStarting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := clustertest.New(t)
		o := on(n, "a")
		o.Logger, o.Meta = slog.New(slog.DiscardHandler), agentAt("10.1.0.1:9000")
		g, err := New(o)
		if err != nil {
			t.Fatalf("New: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		g.table.mu.Lock() // holds up the library, which tells of the new member
		go func() { ended <- g.Run(ctx) }()
		for asked := false; !asked; runtime.Gosched() {
			g.mu.Lock()
			asked = g.told != nil
			g.mu.Unlock()
		}
		want := agentAt("10.1.0.2:9000")
		if err := g.SetMeta(want); err != nil {
			t.Errorf("SetMeta: %v", err)
		}
		g.table.mu.Unlock()
		b := start(t, on(n, "b", "a"))
		awaitTrue(t, b.Gossip, patience, func() (string, bool) {
			got := metaOf(b.Gossip, "a")
			return cmp.Diff(want, got), got == want
		})
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestLeaveIsSeenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := clustertest.New(t)
		a, b, c := three(t, n)
		at := time.Now()
		if err := c.stop(); err != nil {
			t.Fatalf("stop: %v", err)
		}
		if took := time.Since(at); took > leaveTimeout {
			t.Errorf("leaving took %v, want %v at most", took, leaveTimeout)
		}
		await(t, a.Gossip, time.Second, "a+ b+ c-")
		await(t, b.Gossip, time.Second, "a+ b+ c-")

		start(t, on(n, "c", "a"))
		await(t, a.Gossip, time.Second, "a+ b+ c+")
	})
}

// TestStopWhileJoining ends a member that waits for addresses where nothing
// answers.
func TestStopWhileJoining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := clustertest.New(t)
		n.Isolate("a")
		a := start(t, on(n, "a", "b", "c", "d", "e"))
		time.Sleep(100 * time.Millisecond)
		at := time.Now()
		if err := a.stop(); err != nil {
			t.Fatalf("stop: %v", err)
		}
		if took := time.Since(at); took > streamTimeout {
			t.Errorf("stopping took %v, want %v at most", took, streamTimeout)
		}
	})
}

// stranger is a member of the library alone that says what it likes.
type stranger struct {
	delegate
	meta []byte
}

func (s *stranger) NodeMeta(int) []byte { return s.meta }

func TestStrangersAreIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := clustertest.New(t)
		a, b, _ := three(t, n)
		good := `{"r":"agent","h":"10.1.0.1:9000"}`
		for name, meta := range map[string]string{
			"empty": "", "garbage": "\x00\xff{", "role": `{"r":"king","h":"10.1.0.1:9000"}`,
			"address": `{"r":"agent","h":"evil.example:80"}`, "Not A Name": good,
		} {
			c := memberlist.DefaultLANConfig()
			c.Name, c.Transport, c.LogOutput, c.Delegate = name, n.Transport(name), io.Discard, &stranger{meta: []byte(meta)}
			list, err := memberlist.Create(c)
			if err != nil {
				t.Fatalf("create %q: %v", name, err)
			}
			defer func() { _ = list.Shutdown() }()
			if _, err := list.Join([]string{n.Address("a")}); err != nil {
				t.Fatalf("join %q: %v", name, err)
			}
		}
		start(t, on(n, "z", "a"))
		time.Sleep(5 * time.Second)
		for _, m := range []member{a, b} {
			if got, want := look(m.Gossip), "a+ b+ c+ z+"; got != want {
				t.Errorf("%s sees %q, want %q", m.o.Name, got, want)
			}
			if got, want := m.list.NumMembers(), 9; got != want {
				t.Errorf("the library at %s has %d members, want %d: the strangers did not come through", m.o.Name, got, want)
			}
		}
	})
}

func TestMetric(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := clustertest.New(t)
		r := prometheus.NewRegistry()
		o := on(n, "a")
		o.Registerer = r
		a := start(t, o)
		b := start(t, on(n, "b", "a"))
		await(t, a.Gossip, patience, "a+ b+")
		alive := func() float64 {
			families, err := r.Gather()
			if err != nil || len(families) != 1 {
				t.Fatalf("gather: got %v, %v, want one metric", families, err)
			}
			return families[0].GetMetric()[0].GetGauge().GetValue()
		}
		if got, want := alive(), 2.0; got != want {
			t.Errorf("got %v members, want %v", got, want)
		}
		if err := b.stop(); err != nil {
			t.Fatalf("stop: %v", err)
		}
		await(t, a.Gossip, patience, "a+ b-")
		if got, want := alive(), 1.0; got != want {
			t.Errorf("after one left: got %v members, want %v", got, want)
		}
	})
}

func TestOptions(t *testing.T) {
	good := Options{
		Name: "s1", Listen: ":7946", Advertise: "10.0.0.1:7946", Key: make([]byte, 32),
		Meta: agentAt("10.0.0.1:9000"), Logger: slog.New(slog.DiscardHandler),
	}
	long := strings.Repeat("x", memberlist.MetaMaxSize)
	tests := map[string]struct {
		change func(*Options)
		field  string // empty: valid
	}{
		"good":                  {func(*Options) {}, ""},
		"no key":                {func(o *Options) { o.Key = nil }, ""},
		"IPv6":                  {func(o *Options) { o.Listen, o.Advertise = "[::]:7946", "[fd00::1]:7946" }, ""},
		"no name":               {func(o *Options) { o.Name = "" }, "name"},
		"wrong name":            {func(o *Options) { o.Name = "S1.example" }, "name"},
		"no logger":             {func(o *Options) { o.Logger = nil }, "logger"},
		"short key":             {func(o *Options) { o.Key = make([]byte, 15) }, "key"},
		"listen on a name":      {func(o *Options) { o.Listen = "localhost:7946" }, "listen"},
		"listen without a port": {func(o *Options) { o.Listen = "10.0.0.1" }, "listen"},
		"listen port too high":  {func(o *Options) { o.Listen = "10.0.0.1:65536" }, "listen"},
		"advertise nothing":     {func(o *Options) { o.Advertise = "" }, "advertise"},
		"advertise everything":  {func(o *Options) { o.Advertise = "0.0.0.0:7946" }, "advertise"},
		"advertise a name":      {func(o *Options) { o.Advertise = "host:7946" }, "advertise"},
		"oversize meta":         {func(o *Options) { o.Meta.HostClass = api.HostClass(long) }, "meta"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			o := good
			test.change(&o)
			_, err := New(o)
			if test.field == "" {
				if err != nil {
					t.Errorf("got %v, want none", err)
				}
				return
			}
			if got := fieldsOf(err); api.CodeOf(err) != api.CodeInvalid || len(got) != 1 || got[0] != test.field {
				t.Errorf("got %v with fields %v, want invalid with field %s", err, got, test.field)
			}
		})
	}
}
