package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/boss/demo-multiplexer/api"
)

// Timing of gossip. A dead member is seen within three to four seconds; what is
// faster flapped among a hundred members on busy machines.
const (
	probeInterval  = 500 * time.Millisecond
	probeTimeout   = 200 * time.Millisecond
	gossipInterval = 100 * time.Millisecond
	suspicionMult  = 3
	// streamTimeout bounds one exchange with one member, so that dead addresses
	// hold up neither the others nor the end.
	streamTimeout = 3 * time.Second
	// reclaimAfter is when the name of a dead member may come back with another
	// address: a replaced machine.
	reclaimAfter = 30 * time.Second
)

const (
	// joinFirst and joinMost bound the pause between tries to join.
	joinFirst = 200 * time.Millisecond
	joinMost  = 5 * time.Second
	// rejoinEvery is how often members that should be there are looked for, so
	// that two halves of a healed partition find each other again.
	rejoinEvery = 10 * time.Second
	// leaveTimeout bounds telling the others that this member leaves.
	leaveTimeout = time.Second
	// updateTimeout bounds telling the others something new.
	updateTimeout = 2 * time.Second
)

// Gossip is this process's membership. All methods may be called at any time
// and from any goroutine.
type Gossip struct {
	o       Options
	logger  *slog.Logger
	table   *table
	started chan struct{}

	mu   sync.Mutex
	meta []byte
	told []byte                 // what the library knows of meta
	list *memberlist.Memberlist // nil unless it runs

	// telling is held while the library takes over what is new, so that an
	// older one never comes last.
	telling sync.Mutex
}

// New returns a membership that does nothing yet. The error has
// [api.CodeInvalid] for wrong options.
func New(o Options) (*Gossip, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	meta, err := encodeMeta(o.Meta)
	if err != nil {
		return nil, err
	}
	g := &Gossip{o: o, logger: o.Logger, table: newTable(o.Logger), started: make(chan struct{}), meta: meta}
	if o.Registerer != nil {
		if err := register(o.Registerer, g.table); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// Started is closed once Run listens.
func (g *Gossip) Started() <-chan struct{} { return g.started }

// Members returns everybody that gossip has seen, this member included, sorted
// by name.
func (g *Gossip) Members() []Member { return g.table.members() }

// Subscribe returns a channel that says "look again" after [Gossip.Members] has
// changed, and a function that ends the subscription.
func (g *Gossip) Subscribe() (<-chan struct{}, func()) { return g.table.subscribe() }

// SetMeta changes what this member says of itself and tells the others. The
// same once more costs nothing.
func (g *Gossip) SetMeta(m api.MemberMeta) error {
	meta, err := encodeMeta(m)
	if err != nil {
		return err
	}
	g.mu.Lock()
	g.meta = meta
	g.mu.Unlock()
	return g.tell()
}

// tell spreads what is new, if anything is and gossip runs.
func (g *Gossip) tell() error {
	g.telling.Lock()
	defer g.telling.Unlock()
	g.mu.Lock()
	same, list := slices.Equal(g.meta, g.told), g.list
	g.mu.Unlock()
	if same || list == nil {
		return nil
	}
	if err := list.UpdateNode(updateTimeout); err != nil {
		return fmt.Errorf("spread what this member says of itself: %w", err)
	}
	return nil
}

func (g *Gossip) ownMeta() []byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.told = g.meta
	return g.meta
}

// Run takes part in gossip until ctx ends, and then leaves. It returns an error
// only where it cannot listen.
func (g *Gossip) Run(ctx context.Context) (err error) {
	c, err := g.config()
	if err != nil {
		return err
	}
	list, err := memberlist.Create(c)
	if err != nil {
		return fmt.Errorf("gossip cannot listen on %s: %w", g.o.Listen, err)
	}
	g.mu.Lock()
	g.list = list
	g.mu.Unlock()
	if err := g.tell(); err != nil { // it may have changed since the library asked
		g.logger.Debug("the others were not told at once", "err", err)
	}
	close(g.started)
	g.logger.Info("gossip started", "listen", g.o.Listen, "encrypted", len(g.o.Key) > 0)
	g.keepJoined(ctx, list)
	g.mu.Lock()
	g.list = nil
	g.mu.Unlock()
	if err := list.Leave(leaveTimeout); err != nil {
		g.logger.Debug("the others were not told that this member leaves", "err", err)
	}
	if err := list.Shutdown(); err != nil {
		return fmt.Errorf("stop gossip: %w", err)
	}
	return nil
}

// keepJoined joins, and joins again whoever is missing, until ctx ends.
func (g *Gossip) keepJoined(ctx context.Context, list *memberlist.Memberlist) {
	pause := joinFirst
	failed := false
	for {
		wait := rejoinEvery
		if missing := g.missing(list); len(missing) > 0 {
			n, err := join(ctx, list, missing)
			if ctx.Err() != nil {
				return
			}
			if n == 0 && list.NumMembers() == 1 {
				wait, pause = pause, min(2*pause, joinMost)
				if !failed {
					failed = true
					g.logger.Info("nobody to join yet; trying on", "join", missing, "err", err)
				}
			} else {
				pause, failed = joinFirst, false
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// join exchanges what is known with the members at some addresses, and returns
// how many answered and why the last one did not. The library cannot be
// interrupted, so it gets one address at a time.
func join(ctx context.Context, list *memberlist.Memberlist, addresses []string) (n int, err error) {
	for _, address := range addresses {
		if ctx.Err() != nil {
			break
		}
		joined, e := list.Join([]string{address})
		n += joined
		if e != nil {
			err = errors.Unwrap(e) // without the library's heading over several lines
		}
	}
	return n, err
}

// missing returns the addresses to join that no member has.
func (g *Gossip) missing(list *memberlist.Memberlist) []string {
	have := map[string]bool{g.o.Advertise: true}
	for _, n := range list.Members() {
		if a, ok := netip.AddrFromSlice(n.Addr); ok {
			have[netip.AddrPortFrom(a.Unmap(), n.Port).String()] = true
		}
	}
	var missing []string
	for _, address := range g.o.Join {
		if !have[address] {
			missing = append(missing, address)
		}
	}
	return missing
}
