package clustertest

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// port is the same everywhere: names differ by their IP addresses.
	port = 7946
	// roomForPackets and roomForStreams bound what waits to be read.
	roomForPackets = 1024
	roomForStreams = 64
	// lastProbe is longer than any probe or exchange that a member has begun when
	// it stops: the library does not wait for those, and a bubble must.
	lastProbe = time.Minute
)

// Network connects transports. All methods may be called at any time and from
// any goroutine.
type Network struct {
	t testing.TB

	mu        sync.Mutex
	addresses map[string]netip.AddrPort // by name
	open      map[netip.AddrPort]*Transport
	isolated  map[netip.AddrPort]bool
}

// New returns a network that nobody is on, for a test in a bubble of
// [testing/synctest]. When the test ends, everybody must have left.
func New(t testing.TB) *Network {
	t.Helper()
	n := &Network{
		t: t, addresses: map[string]netip.AddrPort{},
		open: map[netip.AddrPort]*Transport{}, isolated: map[netip.AddrPort]bool{},
	}
	t.Cleanup(func() {
		time.Sleep(lastProbe)
		n.mu.Lock()
		defer n.mu.Unlock()
		if len(n.open) > 0 {
			t.Errorf("%d transports were not shut down", len(n.open))
		}
	})
	return n
}

// Address returns where a name is or will be reached, for example
// "10.0.0.1:7946".
func (n *Network) Address(name string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.address(name).String()
}

// address gives a name its address. The caller holds the lock.
func (n *Network) address(name string) netip.AddrPort {
	a, ok := n.addresses[name]
	if !ok {
		i := len(n.addresses) + 1
		a = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), port)
		n.addresses[name] = a
	}
	return a
}

// Transport puts a name on the network. A name whose transport was shut down
// may come back, at the same address.
func (n *Network) Transport(name string) *Transport {
	n.t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	a := n.address(name)
	if n.open[a] != nil {
		n.t.Fatalf("%s is on the network already", name)
	}
	t := &Transport{
		network: n, address: a, closed: make(chan struct{}),
		packets: make(chan *memberlist.Packet, roomForPackets), streams: make(chan net.Conn, roomForStreams),
	}
	n.open[a] = t
	return t
}

// Isolate cuts a name off: its packets vanish in both directions, and new
// connections run into their timeouts, as behind a pulled cable. To the others
// this is also what a crash looks like.
func (n *Network) Isolate(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.isolated[n.address(name)] = true
}

// Heal connects everybody again.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.isolated)
}

// cut reports whether nothing passes between a and b. The caller holds the
// lock.
func (n *Network) cut(a, b netip.AddrPort) bool { return a != b && (n.isolated[a] || n.isolated[b]) }

// Transport is one name's access to the network. It implements
// [memberlist.Transport].
type Transport struct {
	network *Network
	address netip.AddrPort
	closed  chan struct{}
	packets chan *memberlist.Packet
	streams chan net.Conn
}

var _ memberlist.Transport = (*Transport)(nil)

// FinalAdvertiseAddr implements memberlist.Transport.
func (t *Transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.address.Addr().AsSlice(), int(t.address.Port()), nil
}

// WriteTo implements memberlist.Transport. Like UDP it does not tell whether
// anybody got the packet.
func (t *Transport) WriteTo(b []byte, address string) (time.Time, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return time.Time{}, err
	}
	now := time.Now()
	t.network.mu.Lock()
	defer t.network.mu.Unlock()
	peer := t.network.open[to]
	if peer == nil || t.network.open[t.address] != t || t.network.cut(t.address, to) {
		return now, nil
	}
	select {
	case peer.packets <- &memberlist.Packet{Buf: bytes.Clone(b), From: net.UDPAddrFromAddrPort(t.address), Timestamp: now}:
	default:
	}
	return now, nil
}

// PacketCh implements memberlist.Transport.
func (t *Transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// DialTimeout implements memberlist.Transport.
func (t *Transport) DialTimeout(address string, timeout time.Duration) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	conn, hangs, err := t.dial(to)
	if !hangs {
		return conn, err
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil, fmt.Errorf("dial %s: %w", to, os.ErrDeadlineExceeded)
	case <-t.closed:
		return nil, fmt.Errorf("dial %s: %w", to, net.ErrClosed)
	}
}

// dial connects, or says that nothing answers at all.
func (t *Transport) dial(to netip.AddrPort) (conn net.Conn, hangs bool, err error) {
	t.network.mu.Lock()
	defer t.network.mu.Unlock()
	if t.network.open[t.address] != t {
		return nil, false, fmt.Errorf("dial %s: %w", to, net.ErrClosed)
	}
	if t.network.cut(t.address, to) {
		return nil, true, nil
	}
	peer := t.network.open[to]
	if peer == nil {
		return nil, false, fmt.Errorf("dial %s: %w", to, syscall.ECONNREFUSED)
	}
	near, far := net.Pipe()
	select {
	case peer.streams <- far:
		return near, false, nil
	default:
		return nil, true, nil
	}
}

// StreamCh implements memberlist.Transport.
func (t *Transport) StreamCh() <-chan net.Conn { return t.streams }

// Shutdown implements memberlist.Transport. It may be called more than once.
func (t *Transport) Shutdown() error {
	t.network.mu.Lock()
	defer t.network.mu.Unlock()
	if t.network.open[t.address] != t {
		return nil
	}
	delete(t.network.open, t.address)
	close(t.closed)
	for {
		select {
		case conn := <-t.streams:
			_ = conn.Close()
		default:
			return nil
		}
	}
}
