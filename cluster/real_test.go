package cluster

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"
)

// loopback returns the options of a member on a free port of the loopback.
func loopback(name string, key []byte, join ...string) Options {
	return Options{Name: name, Listen: "127.0.0.1:0", Advertise: "127.0.0.1:0", Key: key, Join: join}
}

// address returns where a member of loopback listens.
func (m member) address() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.list.LocalNode().Address()
}

func TestPortInUse(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	defer func() { _ = other.Close() }()
	address := other.Addr().String()
	g, err := New(Options{
		Name: "a", Listen: address, Advertise: address, Meta: agentAt("127.0.0.1:9000"), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	err = g.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "address already in use") || !strings.Contains(err.Error(), address) {
		t.Errorf("got %v, want an error that names %s and says that it is in use", err, address)
	}
	select {
	case <-g.Started():
		t.Error("it says that it started")
	default:
	}
}

// failures passes on what a member logs about joining in vain.
type failures struct{ seen chan string }

func (f failures) Enabled(context.Context, slog.Level) bool { return true }
func (f failures) WithAttrs([]slog.Attr) slog.Handler       { return f }
func (f failures) WithGroup(string) slog.Handler            { return f }
func (f failures) Handle(_ context.Context, r slog.Record) error {
	if strings.HasPrefix(r.Message, "nobody to join yet") {
		select {
		case f.seen <- r.Message:
		default:
		}
	}
	return nil
}

func TestWrongKeyIsKeptOut(t *testing.T) {
	key, wrong := []byte(strings.Repeat("k", 32)), []byte(strings.Repeat("w", 32))
	a := start(t, loopback("a", key))
	b := start(t, loopback("b", key, a.address()))
	await(t, a.Gossip, patience, "a+ b+")
	await(t, b.Gossip, patience, "a+ b+")

	for name, k := range map[string][]byte{"wrong": wrong, "none": nil} {
		seen := failures{make(chan string, 1)}
		o := loopback(name, k, a.address())
		o.Logger = slog.New(seen)
		intruder := start(t, o)
		select {
		case <-seen.seen:
		case <-time.After(patience):
			t.Fatalf("%s: it did not fail to join within %v", name, patience)
		}
		if got, want := look(intruder.Gossip), name+"+"; got != want {
			t.Errorf("%s sees %q, want %q", name, got, want)
		}
	}
	for _, m := range []member{a, b} {
		if got, want := look(m.Gossip), "a+ b+"; got != want {
			t.Errorf("%s sees %q, want %q", m.o.Name, got, want)
		}
	}
}
