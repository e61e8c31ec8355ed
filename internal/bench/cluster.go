package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"

	"github.com/boss/demo-multiplexer/api"
)

const (
	// leases is how many leases are held when memory is measured.
	leases = 1000
	// warmups are the calls before those that are measured, with the same
	// connections.
	warmups = 64
	// The ports of the agents' instances, below those that the kernel gives to
	// outgoing connections. Each agent has a range wider than it needs, because
	// a port may be somebody else's.
	firstPort = 20000
	lastPort  = 31999
)

// poolSize is how many instances there are. All of the agents' capacity is
// used, so that nothing starts while demos are acquired.
func (s settings) poolSize() int {
	n := max(leases, s.calls) + warmups
	return (n + s.agents - 1) / s.agents * s.agents
}

// ports returns the range of the i-th agent.
func (s settings) ports(i int) (first, last int) {
	width := (lastPort - firstPort + 1) / s.agents
	return firstPort + i*width, firstPort + (i+1)*width - 1
}

// cluster is the real thing.
type cluster struct {
	group
	settings settings
	dir      string
	urls     map[api.ServerID]string
	admin    *caller
	gossip   []string
}

func startCluster(ctx context.Context, s settings) (_ *cluster, err error) {
	c := &cluster{settings: s, dir: filepath.Join(s.work, clusterDir), urls: map[api.ServerID]string{}}
	defer func() {
		if err != nil {
			c.stop()
		}
	}()
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return nil, err
	}
	token, err := c.writeSecrets()
	if err != nil {
		return nil, err
	}
	c.admin = newCaller(16, token)
	if c.gossip, err = freePorts(servers + s.agents); err != nil {
		return nil, err
	}
	for i := range servers {
		if err := c.startScheduler(i); err != nil {
			return nil, err
		}
	}
	for i := range s.agents {
		if err := c.startAgent(i); err != nil {
			return nil, err
		}
	}
	var leader string
	if err := c.wait(ctx, "a leader and the agents", func() (err error) {
		leader, _, err = c.roles(ctx)
		return err
	}); err != nil {
		return nil, err
	}
	template := api.Template{Name: templateName, Image: "none", Port: 80, Pool: api.Pool{Warm: s.poolSize()}}.WithDefaults()
	if err := c.admin.call(ctx, http.MethodPut, leader+"/api/v1/templates/"+string(templateName), template, nil); err != nil {
		return nil, err
	}
	return c, c.full(ctx)
}

// writeSecrets returns the operators' token.
func (c *cluster) writeSecrets() (admin string, err error) {
	admin = rand.Text()
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	for name, content := range map[string]string{
		"gossip.key": base64.StdEncoding.EncodeToString(key), "cluster.token": rand.Text(), "admin.token": admin,
	} {
		if err := os.WriteFile(c.file(name), []byte(content), 0o600); err != nil {
			return "", err
		}
	}
	return admin, nil
}

func (c *cluster) file(name string) string { return filepath.Join(c.dir, name) }

// document is a configuration file: YAML contains JSON.
type document = map[string]any

func (c *cluster) launch(program, id string, config document) error {
	data, err := json.MarshalIndent(config, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.file(id+".yaml"), data, 0o600); err != nil {
		return err
	}
	return c.start(c.dir, id, filepath.Join(c.settings.bin, program), "--config", c.file(id+".yaml"))
}

func (c *cluster) gossipConfig(i int) document {
	return document{"listen": c.gossip[i], "advertise": c.gossip[i], "join": c.gossip[:servers], "key_file": c.file("gossip.key")}
}

func (c *cluster) startScheduler(i int) error {
	id := fmt.Sprintf("s%d", i+1)
	p, err := freePorts(3)
	if err != nil {
		return err
	}
	store := document{"kind": "valkey", "addresses": []string{c.settings.valkey.address}}
	if f := c.settings.valkey.passwordFile; f != "" {
		store["password_file"] = f
	}
	c.urls[api.ServerID(id)] = "http://" + p[0]
	return c.launch("scheduler", id, document{
		"id": id, "data_dir": c.file(id), "gossip": c.gossipConfig(i), "store": store,
		"http":   document{"listen": p[0], "advertise": p[0]},
		"raft":   document{"listen": p[1], "advertise": p[1], "bootstrap_expect": servers},
		"tokens": document{"cluster_file": c.file("cluster.token"), "admin_file": c.file("admin.token")},
		"limits": document{"per_hour": noLimit, "per_day": noLimit},
		"public": document{"scheme": "http", "domain": "demo.localhost"},
		"edges":  []document{{"id": "e1", "kind": "builtin", "listen": []string{p[2]}}},
	})
}

func (c *cluster) startAgent(i int) error {
	id := fmt.Sprintf("a%d", i+1)
	p, err := freePorts(1)
	if err != nil {
		return err
	}
	first, last := c.settings.ports(i)
	return c.launch("agent", id, document{
		"id": id, "data_dir": c.file(id), "gossip": c.gossipConfig(servers + i), "token_file": c.file("cluster.token"),
		"http":    document{"listen": p[0], "advertise": p[0]},
		"runtime": "page", "capacity": c.settings.poolSize() / c.settings.agents, "starts": 16,
		"ports": document{"first": first, "last": last},
	})
}

// roles returns the URLs of the leader and of a follower, once all members are
// there.
func (c *cluster) roles(ctx context.Context) (leader, follower string, err error) {
	for _, url := range c.urls {
		var status api.ClusterStatus
		if err = c.admin.call(ctx, http.MethodGet, url+"/api/v1/cluster", nil, &status); err != nil {
			continue
		}
		if leader = c.urls[status.Leader]; leader == "" || len(status.Servers) != servers {
			err = fmt.Errorf("the leader is %q of %d servers", status.Leader, len(status.Servers))
			continue
		}
		for id, other := range c.urls {
			if id != status.Leader {
				follower = other
			}
		}
		return leader, follower, c.nodesUp(ctx, leader)
	}
	return "", "", err
}

func (c *cluster) nodesUp(ctx context.Context, leader string) error {
	var nodes []api.NodeStatus
	if err := c.admin.call(ctx, http.MethodGet, leader+"/api/v1/nodes", nil, &nodes); err != nil {
		return err
	}
	up := 0
	for _, n := range nodes {
		if n.Status == api.NodeUp {
			up++
		}
	}
	if up != c.settings.agents {
		return fmt.Errorf("%d of %d nodes are up", up, c.settings.agents)
	}
	return nil
}

// full waits until the pool is full, everywhere.
func (c *cluster) full(ctx context.Context) error {
	want := c.settings.poolSize()
	return c.wait(ctx, fmt.Sprintf("%d warm instances", want), func() error {
		for _, url := range c.urls {
			var stats api.PoolStats
			if err := c.admin.call(ctx, http.MethodGet, url+"/api/v1/pool/stats", nil, &stats); err != nil {
				return err
			}
			if len(stats.Templates) != 1 || stats.Templates[0].Warm < want {
				return fmt.Errorf("the pool is %+v", stats.Templates)
			}
		}
		return nil
	})
}

// release ends the demos and waits until the pool is full again.
func (c *cluster) release(ctx context.Context, demos []api.LeaseID) error {
	leader, _, err := c.roles(ctx)
	if err != nil {
		return err
	}
	ids := make(chan api.LeaseID)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error // guarded by mu
	for range 16 {
		wg.Go(func() {
			for id := range ids {
				if err := c.admin.call(ctx, http.MethodDelete, leader+"/api/v1/demo/"+string(id), nil, nil); err != nil {
					mu.Lock()
					errs = append(errs, err)
					mu.Unlock()
				}
			}
		})
	}
	for _, id := range demos {
		ids <- id
	}
	close(ids)
	wg.Wait()
	if len(errs) > 0 {
		return fmt.Errorf("release %d demos: %w", len(demos), errors.Join(errs[:min(3, len(errs))]...))
	}
	return c.full(ctx)
}
