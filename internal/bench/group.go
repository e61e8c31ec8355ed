package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// servers is how many servers agree, in the floors as in the cluster.
const servers = 3

// startDeadline bounds the start of processes and the filling of the pool.
const startDeadline = 3 * time.Minute

// group is a set of processes that are stopped together.
type group struct{ processes []*process }

func (g *group) start(dir, name string, argv ...string) error {
	p, err := startProcess(dir, name, argv...)
	if err == nil {
		g.processes = append(g.processes, p)
	}
	return err
}

func (g *group) stop() {
	for _, p := range g.processes {
		p.stop()
	}
}

// ended reports a process that has ended by itself.
func (g *group) ended() error {
	for _, p := range g.processes {
		select {
		case <-p.done:
			return fmt.Errorf("%s ended: %s", p.name, p.tail())
		default:
		}
	}
	return nil
}

// wait repeats check until it succeeds, a process ends or too much time has
// passed.
func (g *group) wait(ctx context.Context, what string, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, startDeadline)
	defer cancel()
	var dead error
	err := poll(ctx, what, func() error {
		if dead = g.ended(); dead != nil {
			return nil
		}
		return check()
	})
	if dead != nil {
		return dead
	}
	return err
}

// floors is the group that serves the floors.
type floors struct {
	group
	urls []string
}

func startFloor(ctx context.Context, s settings) (_ *floors, err error) {
	f := &floors{}
	defer func() {
		if err != nil {
			f.stop()
		}
	}()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(s.work, floorDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	listen, err := freePorts(servers)
	if err != nil {
		return nil, err
	}
	raft, err := freePorts(servers)
	if err != nil {
		return nil, err
	}
	var peers []string
	for i := range servers {
		peers = append(peers, fmt.Sprintf("f%d=%s", i+1, raft[i]))
	}
	for i := range servers {
		name := fmt.Sprintf("f%d", i+1)
		if err := f.start(dir, name, self, floorCommand, "-id", name, "-listen", listen[i], "-raft", raft[i], "-dir", filepath.Join(dir, name),
			"-peers", strings.Join(peers, ","), "-valkey", s.valkey.address, "-valkey-password-file", s.valkey.passwordFile); err != nil {
			return nil, err
		}
		f.urls = append(f.urls, "http://"+listen[i])
	}
	leader, err := f.leader(ctx)
	if err != nil {
		return nil, err
	}
	// Every measured call takes one instance for good, and so do warm-ups.
	n := len(connectionCounts) * s.rounds * (s.calls + warmups)
	c := newCaller(1, "")
	defer c.close()
	return f, c.call(ctx, http.MethodPost, leader+"/stock", stockRequest{Instances: n}, nil)
}

// leader returns the URL of the server that leads.
func (f *floors) leader(ctx context.Context) (leader string, err error) {
	c := newCaller(1, "")
	defer c.close()
	err = f.wait(ctx, "a leader of the floors", func() (err error) {
		for _, url := range f.urls {
			if err = c.call(ctx, http.MethodGet, url+"/leads", nil, nil); err == nil {
				leader = url
				return nil
			}
		}
		return err
	})
	return leader, err
}
