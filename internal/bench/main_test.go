package main

import (
	"errors"
	"flag"
	"io"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParse(t *testing.T) {
	s, err := parse([]string{"-valkey", "127.0.0.1:1", "-bin", "programs"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if !filepath.IsAbs(s.bin) || !filepath.IsAbs(s.work) {
		t.Errorf("directories %q and %q: want them absolute, because programs run elsewhere", s.bin, s.work)
	}
	for name, args := range map[string][]string{
		"no Valkey": {"-valkey", ""},
		"no calls":  {"-valkey", "127.0.0.1:1", "-calls", "0"},
		"no agents": {"-valkey", "127.0.0.1:1", "-agents", "0"},
		"too many":  {"-valkey", "127.0.0.1:1", "-calls", "100000"},
		"no rounds": {"-valkey", "127.0.0.1:1", "-rounds", "-1"},
	} {
		if _, err := parse(args, io.Discard); err == nil || errors.Is(err, flag.ErrHelp) {
			t.Errorf("%s: got %v, want an error", name, err)
		}
	}
	if _, err := parse([]string{"-nonsense"}, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("unknown flag: got %v, want the help", err)
	}
}

// TestPoolFillsTheAgents: were there room left, instances would start while
// demos are acquired.
func TestPoolFillsTheAgents(t *testing.T) {
	for _, s := range []settings{{calls: 1, agents: 2}, {calls: 500, agents: 3}, {calls: 1337, agents: 1}, {calls: 5000, agents: 16}} {
		n := s.poolSize()
		if n%s.agents != 0 || n < leases || n < s.calls+warmups {
			t.Errorf("%d calls: a pool of %d for %d agents", s.calls, n, s.agents)
		}
		end := firstPort - 1
		for i := range s.agents {
			first, last := s.ports(i)
			if first != end+1 || last > lastPort || last-first+1 < n/s.agents {
				t.Errorf("agent %d of %d has the ports %d to %d, want room for %d behind %d", i, s.agents, first, last, n/s.agents, end)
			}
			end = last
		}
	}
}
