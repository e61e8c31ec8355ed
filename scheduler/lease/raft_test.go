package lease

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/consensus/consensustest"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

// group is a real Raft group with a service on every server. Servers keep
// their service while they are cut off.
type group struct {
	*consensustest.Cluster
	services []*Service
}

// inGroup runs a test against three schedulers with count warm instances.
func inGroup(t *testing.T, count int, test func(t *testing.T, g *group)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		g := &group{Cluster: consensustest.New(t, 3)}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		defer running.Wait()
		defer cancel()
		records, fleet := newFakeRecords(), newFakeFleet()
		for i := range g.Size() {
			s, err := New(Options{
				Log: g.Node(i), Records: records, Routes: fleet, Nodes: fleet,
				URL: func(host string) string { return "https://" + host }, Logger: slog.New(slog.DiscardHandler),
			})
			if err != nil {
				t.Fatalf("New: %v", err)
			}
			g.services = append(g.services, s)
			running.Go(func() {
				if err := s.Run(ctx); err != nil {
					t.Errorf("Run: %v", err)
				}
			})
		}
		g.propose(t, state.PutTemplate{Spec: shop()})
		g.propose(t, state.PutNode{Node: state.Node{ID: "n0", Capacity: 1000}})
		for n := range count {
			g.warm(t, n)
		}
		g.WaitEqual(t)
		test(t, g)
		g.Heal()
		g.WaitEqual(t)
		for i := range g.Size() {
			if err := state.Check(g.Node(i).View()); err != nil {
				t.Errorf("server %d: %v", i, err)
			}
		}
	})
}

func (g *group) propose(t *testing.T, cmd state.Command) {
	t.Helper()
	r, err := g.Node(g.Leader(t)).Propose(t.Context(), cmd)
	if err == nil {
		err = r.Err()
	}
	if err != nil {
		t.Fatalf("Propose(%+v): %v", cmd, err)
	}
}

func (g *group) warm(t *testing.T, n int) {
	t.Helper()
	id := api.InstanceID(fmt.Sprintf("i-%04d", n))
	g.propose(t, state.CreateInstance{ID: id, Template: api.TemplateRef{Name: "shop", Revision: 1}, Node: "n0", Host: fmt.Sprintf("d-%04d", n)})
	g.propose(t, state.WarmInstance{ID: id, Address: "10.0.0.1:4000", Credentials: &api.Credentials{Username: "admin", Password: "p"}})
}

// acquire asks one server after the other with the same key, as a client does,
// until one of them knows.
func (g *group) acquire(t *testing.T, first int, c api.AcquireCall) (api.Demo, error) {
	for n := first; ; n++ {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		d, _, err := g.services[n%len(g.services)].Acquire(ctx, c)
		cancel()
		switch api.CodeOf(err) {
		case api.CodeNotLeader, api.CodeUnavailable, api.CodeUncertain:
			if n-first > 500 {
				return d, err
			}
			time.Sleep(20 * time.Millisecond)
		default:
			return d, err
		}
	}
}

// TestAcquiresSurviveALostLeader cuts leaders off while clients acquire: every
// key gets one demo, no instance is given twice, and nothing acknowledged is
// lost.
func TestAcquiresSurviveALostLeader(t *testing.T) {
	inGroup(t, 60, func(t *testing.T, g *group) {
		const clients = 80
		var mu sync.Mutex
		demos := map[int]api.Demo{}
		exhausted := 0
		var done sync.WaitGroup
		for i := range clients {
			done.Go(func() {
				time.Sleep(time.Duration(i) * 25 * time.Millisecond)
				d, err := g.acquire(t, i, call(fmt.Sprintf("key-%d", i), 0))
				mu.Lock()
				defer mu.Unlock()
				switch api.CodeOf(err) {
				case "":
					demos[i] = d
				case api.CodeExhausted:
					exhausted++
				default:
					t.Errorf("client %d: %v", i, err)
				}
			})
		}
		for range 2 {
			time.Sleep(500 * time.Millisecond)
			lost := g.Leader(t)
			g.Isolate(lost)
			time.Sleep(700 * time.Millisecond)
			g.Heal()
		}
		done.Wait()
		g.WaitEqual(t)
		v := g.Node(g.Leader(t)).View()
		instances := map[api.InstanceID]int{}
		for i, d := range demos {
			l, ok := v.Lease(d.ID)
			if !ok || l.State.Ended() {
				t.Errorf("client %d was given a demo that the group does not know", i)
				continue
			}
			instances[l.Instance]++
			again, err := g.acquire(t, i, call(fmt.Sprintf("key-%d", i), 0))
			if err != nil || again.ID != d.ID {
				t.Errorf("client %d repeated its request and got another demo, or %v", i, err)
			}
		}
		for id, n := range instances {
			if n != 1 {
				t.Errorf("%d clients have instance %s", n, id)
			}
		}
		if len(demos) != 60 || exhausted != clients-60 || v.ActiveLeases() != 60 {
			t.Errorf("%d demos, %d turned away and %d leases for 60 instances and %d clients", len(demos), exhausted, v.ActiveLeases(), clients)
		}
	})
}

// TestLineAtALostLeader lets callers wait at a leader that is cut off: they
// hear of it, go to the next and are served there.
func TestLineAtALostLeader(t *testing.T) {
	inGroup(t, 0, func(t *testing.T, g *group) {
		old := g.Leader(t)
		errs := make(chan error, 3)
		for range cap(errs) {
			go func() {
				_, _, err := g.services[old].Acquire(t.Context(), call("", time.Minute))
				errs <- err
			}()
		}
		synctest.Wait()
		start := time.Now()
		g.Isolate(old)
		for range cap(errs) {
			wantCode(t, "a waiting caller", <-errs, api.CodeNotLeader)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("they heard of it after %s", took)
		}
		now := g.Leader(t)
		served := make(chan error, 1)
		go func() {
			_, _, err := g.services[now].Acquire(t.Context(), call("", time.Minute))
			served <- err
		}()
		synctest.Wait()
		g.warm(t, 0)
		if err := <-served; err != nil {
			t.Errorf("Acquire at the new leader: %v", err)
		}
	})
}

// TestFollowers reads and watches at a follower what the leader does.
func TestFollowers(t *testing.T) {
	inGroup(t, 1, func(t *testing.T, g *group) {
		leader := g.Leader(t)
		follower := g.services[(leader+1)%3]
		d, err := g.acquire(t, leader, call("", 0))
		if err != nil {
			t.Fatalf("Acquire: %v", err)
		}
		g.WaitEqual(t)
		changed, stop := follower.Watch(d.ID)
		defer stop()
		got, stale, err := follower.Inspect(t.Context(), d.ID)
		if err != nil || stale || got.ID != d.ID || got.Credentials == nil {
			t.Errorf("Inspect at a follower: %+v, stale %t, %v", got, stale, err)
		}
		_, err = follower.Release(t.Context(), d.ID)
		wantCode(t, "Release at a follower", err, api.CodeNotLeader)
		if _, err := g.services[leader].Release(t.Context(), d.ID); err != nil {
			t.Fatalf("Release: %v", err)
		}
		start := time.Now()
		<-changed
		if took := time.Since(start); took > 200*time.Millisecond {
			t.Errorf("the follower's watcher was told after %s", took)
		}
		if got, _, err := follower.Inspect(t.Context(), d.ID); err != nil || got.State != api.DemoReleased {
			t.Errorf("Inspect at a follower after the release: %+v, %v", got, err)
		}
		g.Isolate((leader + 1) % 3)
		time.Sleep(2 * time.Second)
		if _, stale, err := follower.Inspect(t.Context(), d.ID); err != nil || !stale {
			t.Errorf("Inspect on the minority: stale %t, %v, want stale", stale, err)
		}
	})
}
