//go:build integration

package edge

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// ownNetwork marks the child process of [inOwnNetwork].
const ownNetwork = "EDGE_TEST_OWN_NETWORK"

// inOwnNetwork runs the calling test again in a child process with a network
// namespace of its own, in which net.ipv4.tcp_migrate_req is on, and reports
// whether this is that child. Caddy 2.6 opens its listeners anew with each
// reload; connections that the kernel had accepted for the old one are reset
// unless it may hand them to the new one. Edge hosts have the setting on.
func inOwnNetwork(t *testing.T) bool {
	t.Helper()
	if os.Getenv(ownNetwork) != "" {
		if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
			t.Fatalf("bring up loopback: %v: %s", err, out)
		}
		if err := os.WriteFile("/proc/sys/net/ipv4/tcp_migrate_req", []byte("1"), 0o600); err != nil {
			t.Fatalf("this kernel cannot hand over connections of a closed listener (needs Linux 5.14): %v", err)
		}
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), ownNetwork+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	}
	out, err := cmd.CombinedOutput()
	t.Logf("in a network namespace of its own:\n%s", out)
	if err != nil {
		t.Error(err)
	}
	return false
}
