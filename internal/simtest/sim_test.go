package simtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/scheduler/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// number returns a whole number from the environment.
func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s must be a whole number, not %q", name, text)
	}
	return n
}

// TestSimFaults lets visitors come and go while things break, for SIM_SEEDS
// seeds from SIM_SEED on.
func TestSimFaults(t *testing.T) {
	first, count := number(t, "SIM_SEED", 1), number(t, "SIM_SEEDS", 2)
	for seed := first; seed < first+count; seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { runFaults(t, seed, 3*time.Minute) })
		})
	}
}

func runFaults(t *testing.T, seed uint64, length time.Duration) {
	t.Logf("repeat this run with: SIM_SEED=%d SIM_SEEDS=1 make sim", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	w := newWorld(t, seed, 3, 3)
	w.apply(warmTarget)
	w.within(patience, "the pool fills", func() error { return w.full(warmTarget) })

	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	h := newHistory()
	var visitors sync.WaitGroup
	for i := range 6 {
		own := rand.New(rand.NewPCG(seed, uint64(i)+1))
		visitors.Go(func() { w.visitor(ctx, own, h) })
	}
	began := time.Now()
	faults := w.breakThings(ctx, rng)
	visitors.Wait()
	w.heal()
	w.within(patience, "the cluster settles", func() error { return w.settled() })
	if err := w.verdict(h); err != nil {
		t.Error(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	t.Logf("%s of virtual time: %d shops leased, %d visitors refused, faults: %v", time.Since(began).Round(time.Second), len(h.granted), h.refused, faults)
	if len(h.granted) < 20 {
		t.Errorf("only %d shops were leased: the run proves nothing", len(h.granted))
	}
}

// breakThings draws faults until ctx ends, each healed before the next of its
// kind, and checks the invariants after each. It counts them by kind.
func (w *world) breakThings(ctx context.Context, rng *rand.Rand) map[string]int {
	faults := map[string]int{}
	for {
		if pause(ctx, time.Duration(2+rng.IntN(6))*time.Second) != nil {
			return faults
		}
		hurt := time.Duration(500+rng.IntN(12_000)) * time.Millisecond
		s, h := rng.IntN(len(w.servers)), w.hosts[rng.IntN(len(w.hosts))]
		if rng.IntN(2) == 0 {
			s = w.group.Leader(w.t)
		}
		switch kind := rng.IntN(5); kind {
		case 0:
			faults["scheduler killed"]++
			w.crash(s)
			_ = pause(ctx, hurt)
			w.restart(s)
		case 1:
			faults["scheduler isolated"]++
			w.group.Isolate(s)
			_ = pause(ctx, hurt)
			w.group.Heal()
		case 2:
			faults["agent killed"]++
			h.kill()
			_ = pause(ctx, hurt)
			h.boot(w.t)
		case 3:
			faults["node cut off"]++
			h.cut(true)
			_ = pause(ctx, hurt)
			h.cut(false)
		case 4:
			faults["starts failing"]++
			h.fail(0.5)
			_ = pause(ctx, hurt)
			h.fail(0)
		}
		w.check()
	}
}

func (h *host) fail(share float64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failing = share
}

func (w *world) heal() {
	w.group.Heal()
	for _, h := range w.hosts {
		h.cut(false)
		h.fail(0)
	}
}

// check looks for broken invariants in every replica.
func (w *world) check() {
	w.t.Helper()
	for i := range w.servers {
		if err := state.Check(w.group.Node(i).View()); err != nil {
			w.t.Errorf("replica %d: %v", i, err)
		}
	}
}

// settled reports what is still missing once everything is healed: equal
// replicas, a full pool, and exactly the containers that the records name.
func (w *world) settled() error {
	v := w.view()
	for i := range w.servers {
		if got := w.group.Node(i).View().Revision(); got != v.Revision() {
			return fmt.Errorf("replica %d is at revision %d, the leader at %d", i, got, v.Revision())
		}
	}
	if c := v.TemplateCounts("shop"); c.Warm != warmTarget || c.Pending+c.Ending+c.Failed != 0 {
		return fmt.Errorf("instances: %+v", c)
	}
	for _, h := range w.hosts {
		var want []api.InstanceID
		for i := range v.InstancesOn(h.id) {
			want = append(want, i.ID)
		}
		slices.Sort(want)
		if got := h.left(); !slices.Equal(got, want) {
			return fmt.Errorf("node %s has the containers %v, the records say %v", h.id, got, want)
		}
	}
	for l := range v.LeasesByExpiry() {
		i, ok := v.Instance(l.Instance)
		if !ok || i.State != api.InstanceLeased {
			return fmt.Errorf("the lease of %s has no serving instance", l.Host)
		}
		if got := w.edge.upstream(l.Host); got != i.Address {
			return fmt.Errorf("the edge sends %s to %q, not %q", l.Host, got, i.Address)
		}
	}
	w.check()
	return nil
}
