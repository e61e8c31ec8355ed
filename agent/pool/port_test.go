package pool

import (
	"errors"
	"testing"
)

func TestPorts(t *testing.T) {
	listening := map[int]bool{20001: true}
	p := ports{rng: PortRange{First: 20000, Last: 20003}, free: func(port int) bool { return !listening[port] }}
	used := map[int]bool{}
	for _, want := range []int{20000, 20002, 20003} {
		got, err := p.take(used)
		if err != nil || got != want {
			t.Errorf("take: got %d, %v, want %d", got, err, want)
		}
		used[got] = true
	}
	if got, err := p.take(used); !errors.Is(err, errNoPort) {
		t.Errorf("take with none left: got %d, %v, want errNoPort", got, err)
	}
	delete(used, 20002)
	if got, err := p.take(used); err != nil || got != 20002 {
		t.Errorf("take after one came back: got %d, %v, want 20002", got, err)
	}
	// A port is not given out again at once, although it is the first free one.
	delete(used, 20000)
	delete(used, 20003)
	if got, err := p.take(used); err != nil || got != 20003 {
		t.Errorf("take in turn: got %d, %v, want 20003", got, err)
	}
}

func TestPortRange(t *testing.T) {
	for _, c := range []struct {
		r  PortRange
		ok bool
	}{
		{PortRange{20000, 29999}, true}, {PortRange{20000, 20000}, true}, {PortRange{20001, 20000}, false},
		{PortRange{80, 20000}, false}, {PortRange{20000, 65536}, false}, {PortRange{}, false},
	} {
		if err := c.r.Validate(); (err == nil) != c.ok {
			t.Errorf("%+v: got %v, want valid %v", c.r, err, c.ok)
		}
	}
}
