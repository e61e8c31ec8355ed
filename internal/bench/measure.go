package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/boss/demo-multiplexer/api"
)

// connectionCounts are the loads: one visitor after the other, and a crowd.
var connectionCounts = []int{1, 64}

// attempts is how often a load run is tried: on a busy machine the leader may
// change in its midst, and then the run measured something else.
const attempts = 3

// The figures of one load, in the order of the table.
const (
	floorHandler    = "floor.handler"
	floorLimit      = "floor.limit"
	floorCommit     = "floor.commit"
	acquireLeader   = "acquire.leader"
	acquireFollower = "acquire.follower"
)

var figures = []string{floorHandler, floorLimit, floorCommit, acquireLeader, acquireFollower}

// bench measures the floors and the cluster in turn.
type bench struct {
	settings settings
	floors   *floors
	cluster  *cluster
}

func measure(ctx context.Context, s settings, f *floors, c *cluster) ([]result, error) {
	b := &bench{settings: s, floors: f, cluster: c}
	var results []result
	for _, connections := range connectionCounts {
		samples := map[string]sample{}
		for round := range s.rounds {
			for _, figure := range figures {
				_, _ = fmt.Fprintf(s.progress, "== %d connections, round %d of %d: %s\n", connections, round+1, s.rounds, figure)
				one, err := b.run(ctx, figure, connections)
				if err != nil {
					return nil, fmt.Errorf("%s with %d connections: %w", figure, connections, err)
				}
				samples[figure] = samples[figure].with(one)
			}
		}
		for _, figure := range figures {
			var floor sample
			if !strings.HasPrefix(figure, "floor.") {
				floor = samples[floorCommit]
			}
			results = append(results, latencyResults(fmt.Sprintf("%s.%d", figure, connections), samples[figure], floor)...)
		}
	}
	memory, err := b.memory(ctx)
	return append(results, memory...), err
}

// run makes one load run of a figure.
func (b *bench) run(ctx context.Context, figure string, connections int) (sample, error) {
	switch figure {
	case floorHandler, floorLimit, floorCommit:
		leader, err := b.floors.leader(ctx)
		if err != nil {
			return sample{}, err
		}
		one, _, err := b.load(ctx, connections, leader+"/"+strings.TrimPrefix(figure, "floor."))
		return one, err
	}
	for attempt := 1; ; attempt++ {
		one, steady, err := b.acquire(ctx, figure, connections)
		if err == nil && !steady {
			err = fmt.Errorf("the leader changed in each of %d runs", attempt)
		} else {
			return one, err
		}
		if attempt == attempts {
			return sample{}, err
		}
	}
}

// acquire measures acquires and gives everything back. It is steady if the
// same server led all the time.
func (b *bench) acquire(ctx context.Context, figure string, connections int) (one sample, steady bool, err error) {
	leader, follower, err := b.cluster.roles(ctx)
	if err != nil {
		return sample{}, false, err
	}
	url := leader
	if figure == acquireFollower {
		url = follower
	}
	one, demos, failed := b.load(ctx, connections, url+"/api/v1/demo/acquire")
	now, _, err := b.cluster.roles(ctx)
	if err != nil {
		return sample{}, false, err
	}
	if failed != nil && now == leader {
		return sample{}, false, failed
	}
	return one, failed == nil && now == leader, b.cluster.release(ctx, demos)
}

// load warms the connections up and measures. The demos are all that were
// given, also where it fails.
func (b *bench) load(ctx context.Context, connections int, url string) (sample, []api.LeaseID, error) {
	c := newCaller(connections, "")
	defer c.close()
	var mu sync.Mutex
	var demos []api.LeaseID // guarded by mu
	do := func() error {
		d, err := c.acquire(ctx, url)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		demos = append(demos, d.ID)
		return nil
	}
	if _, err := load(connections, warmups, do); err != nil {
		return sample{}, demos, err
	}
	one, err := load(connections, b.settings.calls, do)
	return one, demos, err
}

// memory measures what the processes hold with many leases.
func (b *bench) memory(ctx context.Context) ([]result, error) {
	leader, _, err := b.cluster.roles(ctx)
	if err != nil {
		return nil, err
	}
	c := newCaller(16, "")
	defer c.close()
	if _, err := load(16, leases, func() error {
		_, err := c.acquire(ctx, leader+"/api/v1/demo/acquire")
		return err
	}); err != nil {
		return nil, fmt.Errorf("hold %d leases: %w", leases, err)
	}
	if err := b.held(ctx); err != nil {
		return nil, err
	}
	var results []result
	for _, part := range []struct{ name, prefix string }{{"scheduler", "s"}, {"agent", "a"}} {
		var most float64
		n := 0
		for _, p := range b.cluster.processes {
			if !strings.HasPrefix(p.name, part.prefix) {
				continue
			}
			bytes, err := p.resident()
			if err != nil {
				return nil, err
			}
			most = max(most, bytes)
			n++
		}
		results = append(results, newResult(fmt.Sprintf("%s.resident.%d_leases", part.name, leases), "bytes", most, 0, n))
	}
	return results, nil
}

// held waits until all schedulers know all leases.
func (b *bench) held(ctx context.Context) error {
	return b.cluster.wait(ctx, fmt.Sprintf("%d leases", leases), func() error {
		for _, url := range b.cluster.urls {
			var stats api.PoolStats
			if err := b.cluster.admin.call(ctx, http.MethodGet, url+"/api/v1/pool/stats", nil, &stats); err != nil {
				return err
			}
			if len(stats.Templates) != 1 || stats.Templates[0].Leased != leases {
				return fmt.Errorf("the pool is %+v", stats.Templates)
			}
		}
		return nil
	})
}

// with adds another run of the same load.
func (s sample) with(other sample) sample {
	all := slices.Concat(s.latencies, other.latencies)
	slices.Sort(all)
	return sample{latencies: all, elapsed: s.elapsed + other.elapsed}
}
