package agent

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/boss/demo-multiplexer/agent/checkpoint"
	"github.com/boss/demo-multiplexer/api"
)

// host tells what is left of the node's resources; zero is unknown.
type host struct {
	disk checkpoint.Disk
	dir  string
}

func (p *process) host() host { return host{disk: p.disk, dir: p.o.DataDir} }

// Available implements pool.Host.
func (h host) Available() (memory, disk api.Bytes) {
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		memory = memoryAvailable(string(text))
	}
	if free, err := h.disk.Available(h.dir); err == nil {
		disk = free
	}
	return memory, disk
}

// memoryAvailable returns what the kernel believes could be used without
// swapping, from the text of /proc/meminfo.
func memoryAvailable(meminfo string) api.Bytes {
	for line := range strings.Lines(meminfo) {
		value, ok := strings.CutPrefix(line, "MemAvailable:")
		if !ok {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
		if err != nil || kib < 0 {
			return 0
		}
		return api.Bytes(kib) << 10
	}
	return 0
}

// portFree returns a function that tells whether nobody listens on a port of
// an address.
func portFree(address netip.Addr) func(port int) bool {
	return func(port int) bool {
		// Listening on one's own address neither waits nor resolves anything.
		l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", netip.AddrPortFrom(address, uint16(port)).String())
		if err != nil {
			return false
		}
		return l.Close() == nil
	}
}
