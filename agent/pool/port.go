package pool

import (
	"errors"
	"fmt"
)

// PortRange is where instances are published on the node.
type PortRange struct {
	First, Last int
}

// Validate reports a range that is empty or out of bounds.
func (r PortRange) Validate() error {
	if r.First < 1024 || r.Last > 65535 || r.Last < r.First {
		return fmt.Errorf("%d to %d is not a range of ports from 1024 to 65535", r.First, r.Last)
	}
	return nil
}

var errNoPort = errors.New("every port of the agent's range is in use; widen ports.first to ports.last")

// ports hands out ports in turn, so that a connection kept by an old visitor
// does not soon meet somebody else's instance.
type ports struct {
	rng  PortRange
	next int
	free func(port int) bool // whether nobody listens there
}

// take returns a port that is neither in used nor listened on.
func (p *ports) take(used map[int]bool) (int, error) {
	size := p.rng.Last - p.rng.First + 1
	for range size {
		port := p.rng.First + p.next%size
		p.next++
		if !used[port] && p.free(port) {
			return port, nil
		}
	}
	return 0, errNoPort
}
