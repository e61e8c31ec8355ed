package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestProcess(t *testing.T) {
	var g group
	if err := g.start(t.TempDir(), "sleeper", "/bin/sh", "-c", "echo awake; exec sleep 60"); err != nil {
		t.Fatal(err)
	}
	defer g.stop()
	p := g.processes[0]
	if err := g.wait(t.Context(), "the first words", func() error {
		if p.tail() != "awake" {
			return errors.New(p.tail())
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if bytes, err := p.resident(); err != nil || bytes < 10e3 || bytes > 1e9 {
		t.Errorf("resident = %v, %v, want the bytes of a shell", bytes, err)
	}
	if err := g.ended(); err != nil {
		t.Errorf("ended = %v while it runs", err)
	}
	p.stop()
	if err := g.ended(); err == nil || !strings.Contains(err.Error(), "sleeper ended: awake") {
		t.Errorf("ended = %v, want its name and last words", err)
	}
	if _, err := p.resident(); err == nil {
		t.Error("a process that has ended holds memory")
	}
}

// TestWaitEndsWithTheProcess: nobody waits minutes for what is dead.
func TestWaitEndsWithTheProcess(t *testing.T) {
	var g group
	if err := g.start(t.TempDir(), "broken", "/bin/sh", "-c", "echo no such port >&2; exit 1"); err != nil {
		t.Fatal(err)
	}
	defer g.stop()
	err := g.wait(t.Context(), "the moon", func() error { return errors.New("not yet") })
	if err == nil || !strings.Contains(err.Error(), "no such port") {
		t.Errorf("wait = %v, want why the process ended", err)
	}
	if err := g.start(t.TempDir(), "missing", "/no/such/program"); err == nil {
		t.Error("a program that does not exist was started")
	}
}

func TestPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		if err := poll(t.Context(), "three tries", func() error {
			if tries++; tries < 3 {
				return errors.New("not yet")
			}
			return nil
		}); err != nil || tries != 3 {
			t.Errorf("poll = %v after %d tries, want nil after 3", err, tries)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		last := errors.New("still not")
		if err := poll(ctx, "nothing", func() error { return last }); !errors.Is(err, last) || !strings.Contains(err.Error(), "nothing") {
			t.Errorf("poll = %v, want the last failure and what was waited for", err)
		}
	})
}

func TestFreePortsAreDifferent(t *testing.T) {
	got, err := freePorts(20)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, a := range got {
		if seen[a] || !strings.HasPrefix(a, "127.0.0.1:") {
			t.Errorf("addresses %q: want 20 different ones on loopback", got)
		}
		seen[a] = true
	}
}
