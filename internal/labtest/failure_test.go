//go:build lab

package labtest

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

func testLeaderKilled(t *testing.T) {
	warm(t, "tiny", 60*time.Second)
	before := acquire(t, follower(t), "tiny")
	killed := leader(t)
	var others []string
	for s := range schedulers {
		if s != killed {
			others = append(others, s)
		}
	}
	on(t, killed, "systemctl kill --signal=KILL demo-scheduler")
	began := time.Now()
	after := acquire(t, others[0], "tiny")
	t.Logf("next acquire succeeded %s after kill -9 of the leader", time.Since(began).Round(time.Millisecond))
	if before.ID == after.ID || before.URL == after.URL {
		t.Errorf("one shop was given twice: %s", before.URL)
	}
	for _, demo := range []api.Demo{before, after} {
		if got := inspect(t, others[1], demo.ID); got.State != api.DemoActive || got.URL != demo.URL {
			t.Errorf("after the change of leader the demo is %+v, want it as acknowledged: %+v", got, demo)
		}
		if page := visit(t, demo, "GET", "/", nil, nil); page.status != 200 {
			t.Errorf("page of %s: got %d, want 200", demo.URL, page.status)
		}
	}
	ready(t, killed)
	for _, demo := range []api.Demo{before, after} {
		release(t, killed, demo.ID)
	}
}

// ready waits until a scheduler says that it can take requests.
func ready(t *testing.T, scheduler string) {
	t.Helper()
	within(t, 20*time.Second, scheduler+" ready", func() error {
		got, err := try(t, request{method: "GET", scheduler: scheduler, path: "/health/ready"})
		if err == nil && got.status != 200 {
			err = fmt.Errorf("status %d: %s", got.status, got.body)
		}
		return err
	})
}

func testSchedulerRestartedFromDisk(t *testing.T) {
	demo := acquire(t, leader(t), "tiny")
	// All of them: what comes back can only come from their disks.
	for s := range schedulers {
		on(t, s, "systemctl kill --signal=KILL demo-scheduler; systemctl stop demo-scheduler")
	}
	for s := range schedulers {
		on(t, s, "systemctl start demo-scheduler")
	}
	for s := range schedulers {
		ready(t, s)
		if got := inspect(t, s, demo.ID); got.State != api.DemoActive || got.URL != demo.URL || got.Credentials == nil || *got.Credentials != *demo.Credentials {
			t.Errorf("%s restarted from disk says %+v, want %+v", s, got, demo)
		}
	}
	if page := visit(t, demo, "GET", "/", nil, nil); page.status != 200 {
		t.Errorf("page after the restart of all schedulers: got %d, want 200", page.status)
	}
	release(t, follower(t), demo.ID)
}

func testAgentRestarted(t *testing.T) {
	demo := acquire(t, leader(t), "tiny")
	instance := instanceOf(t, demo)
	node := string(instance.Node)
	containers := func() string {
		return on(t, node, "podman ps -q --no-trunc --filter label=demo.instance="+string(instance.ID))
	}
	before := containers()
	if got := visit(t, demo, "POST", "/note", strings.NewReader("still here"), nil); got.status != http.StatusNoContent {
		t.Fatalf("write the note: status %d", got.status)
	}
	on(t, node, "systemctl kill --signal=KILL demo-agent")
	if page := visit(t, demo, "GET", "/", nil, nil); page.status != 200 {
		t.Errorf("page while the agent is dead: got %d, want 200", page.status)
	}
	within(t, 30*time.Second, "agent back", func() error {
		if state := on(t, node, "systemctl is-active demo-agent || true"); state != "active" {
			return fmt.Errorf("the agent is %s", state)
		}
		for _, n := range admin[[]api.NodeStatus](t, "/api/v1/nodes") {
			if string(n.ID) == node && n.Status == api.NodeUp {
				return nil
			}
		}
		return fmt.Errorf("node %s is not up", node)
	})
	warm(t, "tiny", 60*time.Second)
	if after := containers(); after == "" || after != before {
		t.Errorf("the container of the running lease was %s and is %s, want the same one adopted", before, after)
	}
	if got := note(t, demo); got != "still here" {
		t.Errorf("note after the restart of the agent: got %q, want %q", got, "still here")
	}
	release(t, "s1", demo.ID)
	within(t, 30*time.Second, "adopted container gone", func() error {
		if left := containers(); left != "" {
			return fmt.Errorf("container %s is still there", left)
		}
		return nil
	})
}

func testCaddyRestartedEmpty(t *testing.T) {
	demo := acquire(t, leader(t), "tiny")
	on(t, edgeHost, "rm -f /var/lib/caddy/.config/caddy/autosave.json; systemctl restart caddy")
	began := time.Now()
	within(t, 15*time.Second, "routes repaired", func() error {
		res, err := edgeClient.Get(demo.URL)
		if err != nil {
			return err
		}
		res.Body.Close()
		if res.StatusCode != 200 {
			return fmt.Errorf("the edge answers %d", res.StatusCode)
		}
		return nil
	})
	t.Logf("an empty Caddy served again after %s", time.Since(began).Round(time.Millisecond))
	release(t, "s1", demo.ID)
}

func testValkeyStoppedAndBack(t *testing.T) {
	on(t, edgeHost, "systemctl stop valkey-server")
	demo := acquire(t, follower(t), "tiny")
	release(t, "s1", demo.ID)
	ask := request{method: "POST", scheduler: "s1", path: "/api/v1/demo/acquire", body: `{"template":"nosuch"}`, visitor: freshVisitor()}
	limited := func() bool {
		for range 2 * perHour {
			if call(t, ask).status == http.StatusTooManyRequests {
				return true
			}
		}
		return false
	}
	if !limited() {
		t.Error("without Valkey nobody limits")
	}
	on(t, edgeHost, "systemctl start valkey-server")
	within(t, 15*time.Second, "Valkey used again", func() error {
		got := call(t, request{method: "GET", scheduler: "s1", path: "/api/v1/cluster", admin: true})
		var status api.ClusterStatus
		got.decode(t, &status)
		if !status.Store.Healthy {
			return fmt.Errorf("store: %+v", status.Store)
		}
		return nil
	})
	ask.visitor = freshVisitor()
	if !limited() {
		t.Error("with Valkey back nobody limits")
	}
}

// testDiskFullOnAgent gives an agent a disk that is too small for a
// checkpoint. It must say so, leave nothing, and serve again afterwards.
func testDiskFullOnAgent(t *testing.T) {
	const dir = "/var/lib/demo-multiplexer/agent"
	for a := range agents {
		on(t, a, "systemctl stop demo-agent && mv "+dir+" "+dir+".kept && mkdir "+dir+" && mount -t tmpfs -o size=2m tmpfs "+dir+" && systemctl start demo-agent")
	}
	apply(t, "tiny", "name: tiny", "name: crowded", "warm: 4", "warm: 1")
	within(t, 60*time.Second, "the disk is reported full", func() error {
		for _, s := range admin[[]api.TemplateStatus](t, "/api/v1/templates") {
			for _, c := range s.Checkpoints {
				if s.Template.Name == "crowded" && strings.Contains(c.Reason, "full") {
					return nil
				}
			}
		}
		return fmt.Errorf("%+v", admin[[]api.TemplateStatus](t, "/api/v1/templates"))
	})
	for a := range agents {
		on(t, a, "systemctl stop demo-agent && umount "+dir+" && rmdir "+dir+" && mv "+dir+".kept "+dir+" && systemctl start demo-agent")
	}
	apply(t, "tiny", "name: tiny", "name: crowded", "warm: 4", "warm: 0")
	warm(t, "tiny", 90*time.Second)
}

// testPortTaken starts a second scheduler and a second agent on the ports of
// the first.
func testPortTaken(t *testing.T) {
	out := on(t, "s1", `sed 's#/var/lib/demo-multiplexer/scheduler#/tmp/second#' /etc/demo-multiplexer/scheduler.yaml >/tmp/second.yaml
		timeout 20 demo-scheduler --config /tmp/second.yaml 2>&1 | tail -1`)
	if !strings.Contains(out, "address already in use") {
		t.Errorf("second scheduler on the same ports said %q, want: address already in use", out)
	}
	out = on(t, "s1", `sed 's#bootstrap_expect#bootstrap_expekt#' /etc/demo-multiplexer/scheduler.yaml >/tmp/wrong.yaml
		demo-scheduler --config /tmp/wrong.yaml --check 2>&1; echo code $?`)
	if !strings.Contains(out, "bootstrap_expekt") || !strings.Contains(out, "code 2") {
		t.Errorf("wrong configuration said %q, want the unknown key and code 2", out)
	}
}

// testNothingLeftBehind counts what the tests should have given back.
func testNothingLeftBehind(t *testing.T) {
	apply(t, "tiny", "warm: 4", "warm: 0")
	apply(t, "wordpress", "warm: 4", "warm: 0")
	for a := range agents {
		within(t, 60*time.Second, "node "+a+" empty", func() error {
			left := on(t, a, `podman ps -a --format '{{.Names}} {{.Status}}'; podman volume ls -q; ip -o link show type veth | grep -v eth0 || true; ls /run/netns 2>/dev/null || true; ls /var/lib/demo-multiplexer/agent/instances 2>/dev/null || true`)
			if left != "" {
				return fmt.Errorf("left behind:\n%s\ninstances: %+v", left, admin[[]api.InstanceStatus](t, "/api/v1/instances"))
			}
			return nil
		})
	}
	for _, l := range admin[[]api.LeaseStatus](t, "/api/v1/leases") {
		if l.State == api.DemoActive {
			t.Errorf("lease %s is still active", l.ID)
		}
	}
	for s := range schedulers {
		if bad := on(t, s, `journalctl -u demo-scheduler --no-pager | grep -E 'panic|DATA RACE' | head -3 || true`); bad != "" {
			t.Errorf("%s logged: %s", s, bad)
		}
	}
}
