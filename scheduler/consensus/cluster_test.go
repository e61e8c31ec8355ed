package consensus_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/consensus"
	"github.com/boss/demo-multiplexer/scheduler/consensus/consensustest"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

func TestReplicates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := consensustest.New(t, 3)
		leader := c.Node(c.Leader(t))
		r := must(t, leader, state.PutTemplate{Spec: api.Template{Name: "shop"}})
		if r.Template == nil || r.Template.Revision != 1 {
			t.Errorf("result = %+v, want template revision 1", r)
		}
		if got := leader.View().Revision(); got != 1 {
			t.Errorf("the leader's view has revision %d right after the proposal, want 1", got)
		}
		c.WaitEqual(t)
		for i := range c.Size() {
			if _, ok := c.Node(i).View().Template("shop"); !ok {
				t.Errorf("server %d does not know the template", i)
			}
			if ok, why := c.Node(i).Ready(); !ok {
				t.Errorf("server %d is not ready: %s", i, why)
			}
			if self, id := c.Node(i).Leader(); id != "s"+api.ServerID(fmt.Sprint(c.Leader(t))) || self != (c.Node(i) == leader) {
				t.Errorf("server %d says that %q leads, itself: %t", i, id, self)
			}
		}
		refused, err := leader.Propose(t.Context(), state.RemoveInstance{ID: "x"})
		if err != nil || api.CodeOf(refused.Err()) != api.CodeNotFound {
			t.Errorf("a refused command gave %v, %v, want not_found in the result", refused.Err(), err)
		}
	})
}

func TestCrashesAndRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := consensustest.New(t, 3)
		for round := range 6 {
			leader := c.Leader(t)
			must(t, c.Node(leader), nothing())
			c.Crash(leader)
			start := time.Now()
			must(t, c.Node(c.Leader(t)), nothing())
			if took := time.Since(start); took > 3*time.Second {
				t.Errorf("round %d: the next write succeeded only after %s", round, took)
			}
			c.Restart(leader)
		}
		c.WaitEqual(t)
		if got := c.Node(0).View().Revision(); got != 12 {
			t.Errorf("revision %d after 12 acknowledged commands", got)
		}
	})
}

// TestPartition cuts the leader off: it must stop to acknowledge, say so
// truthfully, and forget what only it wrote.
func TestPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := consensustest.New(t, 3)
		old := c.Leader(t)
		stock(t, c.Node(old), 2)
		c.Isolate(old)

		_, err := c.Node(old).Propose(t.Context(), claimOf(1, 0))
		if api.CodeOf(err) != api.CodeUncertain {
			t.Errorf("the cut-off leader answered %v, want code uncertain", err)
		}
		if err := c.Node(old).VerifyLeader(t.Context()); api.CodeOf(err) != api.CodeNotLeader {
			t.Errorf("VerifyLeader on the minority = %v, want code not_leader", err)
		}
		_, err = c.Node(old).Propose(t.Context(), claimOf(2, 1))
		if api.CodeOf(err) != api.CodeNotLeader {
			t.Errorf("after its lease the cut-off leader answered %v, want code not_leader", err)
		}
		if ok, why := c.Node(old).Ready(); ok || !strings.Contains(why, "no leader") {
			t.Errorf("Ready on the minority = %t, %q", ok, why)
		}

		now := c.Leader(t)
		if now == old {
			t.Fatal("the cut-off server still leads")
		}
		must(t, c.Node(now), claimOf(3, 0)) // the same instance: the uncertain claim must not have survived
		c.Heal()
		c.WaitEqual(t)
		for i := range c.Size() {
			v := c.Node(i).View()
			if _, ok := v.Lease("l-1"); ok {
				t.Errorf("server %d holds the lease that no majority agreed to", i)
			}
			if err := state.Check(v); err != nil {
				t.Errorf("server %d: %v", i, err)
			}
		}
	})
}

// TestConcurrentClaims lets many callers want the same few instances.
func TestConcurrentClaims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const instances, callers = 5, 400
		c := consensustest.New(t, 3)
		leader := c.Node(c.Leader(t))
		stock(t, leader, instances)
		var mu sync.Mutex
		winners := map[api.InstanceID]int{}
		var callersDone sync.WaitGroup
		for i := range callers {
			callersDone.Go(func() {
				r, err := leader.Propose(t.Context(), claimOf(i, i%instances))
				if err != nil {
					t.Errorf("claim %d: %v", i, err)
					return
				}
				if r.Refusal == nil {
					mu.Lock()
					defer mu.Unlock()
					winners[r.Instance.ID]++
				}
			})
		}
		callersDone.Wait()
		for id, n := range winners {
			if n != 1 {
				t.Errorf("%d callers got instance %s", n, id)
			}
		}
		if got := leader.View().ActiveLeases(); got != instances || len(winners) != instances {
			t.Errorf("%d active leases and %d winners, want %d", got, len(winners), instances)
		}
		c.WaitEqual(t)
	})
}

// TestLeadJoinsTerms holds the work of one term up beyond its end: that of the
// next must wait.
func TestLeadJoinsTerms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := consensustest.New(t, 3)
		first := c.Leader(t)
		n := c.Node(first)

		type start struct {
			term  uint64
			ctx   context.Context
			leave chan struct{}
		}
		starts := make(chan start)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() {
			ended <- n.Lead(ctx, func(ctx context.Context, term uint64) error {
				s := start{term, ctx, make(chan struct{})}
				starts <- s
				<-s.leave // even after the end of ctx
				return ctx.Err()
			})
		}()

		one := <-starts
		if got := n.Term(); one.term != got {
			t.Errorf("work of term %d started in term %d", one.term, got)
		}
		c.Isolate(first)
		<-one.ctx.Done()
		if cause := context.Cause(one.ctx); !strings.Contains(cause.Error(), "does not lead any more") {
			t.Errorf("cause = %v", cause)
		}
		c.Leader(t)
		c.Heal()
		for c.Leader(t) != first { // until leadership comes back
			if err := c.Node(c.Leader(t)).TransferLeadership(t.Context()); err != nil {
				t.Logf("transfer: %v", err)
			}
		}
		synctest.Wait()
		select {
		case two := <-starts:
			t.Fatalf("the work of term %d began before that of term %d returned", two.term, one.term)
		default:
		}
		close(one.leave)
		two := <-starts
		if two.term <= one.term {
			t.Errorf("term %d after term %d", two.term, one.term)
		}
		cancel()
		<-two.ctx.Done()
		close(two.leave)
		if err := <-ended; err != nil {
			t.Errorf("Lead = %v, want nil after the end of its context", err)
		}
	})
}

func TestLeadReportsErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := consensustest.New(t, 1)
		broken := errors.New("broken")
		err := c.Node(c.Leader(t)).Lead(t.Context(), func(context.Context, uint64) error { return broken })
		if !errors.Is(err, broken) {
			t.Errorf("Lead = %v, want %v", err, broken)
		}
	})
}

// TestStopHandsOver: an orderly stop leaves a leader behind at once.
func TestStopHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := consensustest.New(t, 3)
		leader := c.Leader(t)
		must(t, c.Node(leader), nothing())
		c.Stop(leader)
		leaders := 0
		for i := range c.Size() {
			if self, _ := c.Node(i).Leader(); self && i != leader {
				leaders++
			}
		}
		if leaders != 1 {
			t.Errorf("%d leaders right after the old one stopped, want 1", leaders)
		}
		if _, err := c.Node(leader).Propose(t.Context(), nothing()); api.CodeOf(err) != api.CodeNotLeader {
			t.Errorf("a stopped server answered %v, want code not_leader", err)
		}
		if ok, why := c.Node(leader).Ready(); ok || why != "consensus is stopping" {
			t.Errorf("Ready = %t, %q", ok, why)
		}
	})
}

// TestLateJoiner gives a new server the state by snapshot, because the log
// does not reach back.
func TestLateJoiner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := consensustest.New(t, 3, func(o *consensus.Options) {
			o.Snapshots = consensus.Snapshots{Interval: time.Second, Threshold: 16, Trailing: 4}
		})
		leader := c.Node(c.Leader(t))
		stock(t, leader, 50)
		for i := range 20 {
			must(t, leader, claimOf(i, i))
		}
		time.Sleep(10 * time.Second) // snapshots are taken and the log is cut
		late := c.Join(t)
		c.WaitEqual(t)
		got := c.Node(late).View()
		if got.ActiveLeases() != 20 || got.TemplateCounts("shop").Warm != 30 {
			t.Errorf("the late server holds %d leases and %+v", got.ActiveLeases(), got.TemplateCounts("shop"))
		}
		if err := state.Check(got); err != nil {
			t.Error(err)
		}
		c.Crash(late)
		must(t, c.Node(c.Leader(t)), nothing())
		c.Restart(late)
		c.WaitEqual(t)
		if got := len(c.Node(late).Servers()); got != 4 {
			t.Errorf("the late server knows %d members, want 4", got)
		}
	})
}

func TestFullQueueSheds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := consensustest.New(t, 3, func(o *consensus.Options) { o.QueueDepth = 2 })
		leader := c.Leader(t)
		c.Isolate(leader) // proposals now wait for the leader's lease
		codes := map[api.Code]int{}
		var mu sync.Mutex
		var callers sync.WaitGroup
		for range 20 {
			callers.Go(func() {
				_, err := c.Node(leader).Propose(t.Context(), nothing())
				mu.Lock()
				defer mu.Unlock()
				codes[api.CodeOf(err)]++
			})
			synctest.Wait()
		}
		callers.Wait()
		// Four entries were written, two commands waited behind them, the rest was shed.
		if codes[api.CodeUncertain] != 4 || codes[api.CodeUnavailable] != 14 || codes[api.CodeNotLeader] != 2 {
			t.Errorf("codes = %v, want 4 uncertain, 14 unavailable and 2 not_leader", codes)
		}
	})
}

// slowLog writes entries only while nobody holds its token.
type slowLog struct {
	raft.LogStore
	token chan struct{}
}

func (s *slowLog) StoreLogs(logs []*raft.Log) error {
	<-s.token
	defer func() { s.token <- struct{}{} }()
	return s.LogStore.StoreLogs(logs)
}

// TestProposalsShareEntries: what arrives while the disk writes goes into few
// entries.
func TestProposalsShareEntries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const callers = 1000
		disk := &slowLog{token: make(chan struct{}, 1)}
		disk.token <- struct{}{}
		c := consensustest.New(t, 1, func(o *consensus.Options) { disk.LogStore, o.LogStore = o.LogStore, disk })
		n := c.Node(c.Leader(t))
		before := n.AppliedIndex()
		<-disk.token
		var group sync.WaitGroup
		for range callers {
			group.Go(func() { must(t, n, nothing()) })
		}
		synctest.Wait() // all are on their way, none is written
		disk.token <- struct{}{}
		group.Wait()
		if got := n.View().Revision(); got != callers {
			t.Errorf("revision %d, want %d", got, callers)
		}
		if got := n.AppliedIndex() - before; got > 2*4 { // four small entries were on their way, four large ones followed
			t.Errorf("%d commands took %d log entries, want at most 8", callers, got)
		}
	})
}

func TestGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := consensustest.New(t, 3)
		leader := c.Leader(t)
		stock(t, c.Node(leader), 10)
		c.Isolate(leader)
		var callers sync.WaitGroup
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond) // well before the lease ends
		defer cancel()
		for i := range 6 { // four are written, two wait
			want := api.CodeUncertain
			if i >= 4 {
				want = api.CodeUnavailable
			}
			callers.Go(func() {
				if _, err := c.Node(leader).Propose(ctx, claimOf(i, i)); api.CodeOf(err) != want {
					t.Errorf("claim %d: %v, want code %s", i, err, want)
				}
			})
			synctest.Wait()
		}
		callers.Wait()
	})
}

func TestSubscribe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := consensustest.New(t, 1)
		n := c.Node(c.Leader(t))
		changed, end := n.Subscribe()
		for range 3 { // nobody listens, and nobody is stopped by that
			must(t, n, nothing())
		}
		<-changed
		if got := n.View().Revision(); got != 3 {
			t.Errorf("revision %d after the notice, want 3", got)
		}
		end()
		must(t, n, nothing())
		synctest.Wait()
		select {
		case <-changed:
			t.Error("a notice after the end of the subscription")
		default:
		}
	})
}

func TestGroupChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := consensustest.New(t, 3)
		leader := c.Leader(t)
		follower := (leader + 1) % 3
		if err := c.Node(follower).RemoveServer(t.Context(), "s0"); api.CodeOf(err) != api.CodeNotLeader {
			t.Errorf("RemoveServer on a follower = %v, want code not_leader", err)
		}
		if err := c.Node(follower).Barrier(t.Context()); api.CodeOf(err) != api.CodeNotLeader {
			t.Errorf("Barrier on a follower = %v, want code not_leader", err)
		}
		if err := c.Node(follower).TransferLeadership(t.Context()); api.CodeOf(err) != api.CodeNotLeader {
			t.Errorf("TransferLeadership on a follower = %v, want code not_leader", err)
		}
		c.Crash(follower)
		if err := c.Node(leader).RemoveServer(t.Context(), api.ServerID(fmt.Sprintf("s%d", follower))); err != nil {
			t.Fatalf("RemoveServer: %v", err)
		}
		if got := len(c.Node(leader).Servers()); got != 2 {
			t.Errorf("%d members, want 2", got)
		}
		if err := c.Node(leader).Barrier(t.Context()); err != nil {
			t.Errorf("Barrier: %v", err)
		}
		if err := c.Node(leader).Bootstrap(nil); err != nil {
			t.Errorf("a second Bootstrap = %v, want nil", err)
		}
	})
}
