package podman

import (
	"log/slog"
	"net/netip"
	"slices"
	"testing"

	"github.com/containers/podman/v5/pkg/domain/entities/types"
	"github.com/google/go-cmp/cmp"
	nettypes "go.podman.io/common/libnetwork/types"

	"github.com/boss/demo-multiplexer/api"
)

func testRuntime() *Runtime {
	return &Runtime{node: "a1", address: netip.MustParseAddr("10.0.0.7"), logger: slog.New(slog.DiscardHandler), probe: newProber()}
}

func testRevision() api.TemplateRevision {
	t := api.Template{
		Name: "tiny", Image: "localhost/demo/tiny:latest", Port: 8080, Resources: api.Resources{Memory: 64 << 20, CPUs: 0.5, PIDs: 32},
	}.WithDefaults()
	return api.TemplateRevision{Template: t, Revision: 3}
}

// TestSpecIsConfined pins what keeps a visitor inside a container.
func TestSpecIsConfined(t *testing.T) {
	r := testRuntime()
	want := api.DesiredInstance{ID: "i-1", Epoch: 2, Checkpoint: "cafe"}
	g := r.spec(instanceSlot(testRevision(), want, "image-id", 20001))
	is := func(b *bool, want bool) bool { return b != nil && *b == want }
	limits := g.ResourceLimits
	for what, ok := range map[string]bool{
		"all capabilities are dropped":      slices.Equal(g.CapDrop, []string{"all"}) && len(g.CapAdd) == 0,
		"no new privileges":                 is(g.NoNewPrivileges, true),
		"not privileged":                    g.Privileged == nil || !*g.Privileged,
		"no environment of the host":        is(g.EnvHost, false) && is(g.HTTPProxy, false) && len(g.Env) == 0,
		"no hosts file of the host":         g.BaseHostsFile == "none",
		"no resolver of the host":           is(g.UseImageResolvConf, true),
		"no mounts, volumes or devices":     len(g.Mounts)+len(g.Volumes)+len(g.OverlayVolumes)+len(g.Devices) == 0 && g.ImageVolumeMode == "ignore",
		"no name space of the host":         !g.PidNS.IsHost() && !g.IpcNS.IsHost() && !g.NetNS.IsHost() && !g.UtsNS.IsHost() && !g.UserNS.IsHost(),
		"seccomp as podman has it":          g.SeccompProfilePath == "" && g.SeccompPolicy == "",
		"a bounded log":                     g.LogConfiguration.Driver == "k8s-file" && g.LogConfiguration.Size == logBytes,
		"podman does not restart it":        g.RestartPolicy == "no",
		"64 MiB of memory, swap included":   *limits.Memory.Limit == 64<<20 && *limits.Memory.Swap == 64<<20,
		"half a CPU":                        *limits.CPU.Quota == 50_000 && *limits.CPU.Period == 100_000,
		"32 processes":                      limits.Pids.Limit == 32,
		"the name of a container of ours":   g.Name == "demo-i-1",
		"the image as it was asked for":     g.Image == "image-id",
		"the same host name for all":        g.Hostname == "demo",
		"the image's own command":           g.Command == nil && g.Entrypoint == nil,
		"not removed or stopped by a timer": g.Timeout == 0 && (g.Remove == nil || !*g.Remove),
	} {
		if !ok {
			t.Errorf("not so: %s", what)
		}
	}
	wantPorts := []nettypes.PortMapping{{HostIP: "10.0.0.7", HostPort: 20001, ContainerPort: 8080, Protocol: "tcp"}}
	if diff := cmp.Diff(g.PortMappings, wantPorts); diff != "" {
		t.Errorf("published ports (-got +want):\n%s", diff)
	}
	wantLabels := map[string]string{
		labelNode: "a1", labelRole: roleInstance, labelInstance: "i-1", labelTemplate: "tiny", labelRevision: "3",
		labelCheckpoint: "cafe", labelEpoch: "2", labelPort: "20001",
	}
	if diff := cmp.Diff(g.Labels, wantLabels); diff != "" {
		t.Errorf("labels (-got +want):\n%s", diff)
	}
}

func TestSpecVariants(t *testing.T) {
	r := testRuntime()
	revision := testRevision()
	revision.Template.Command = []string{"/bin/serve", "-v"}
	g := r.spec(instanceSlot(revision, api.DesiredInstance{ID: "i-1"}, "image", 20001))
	// An empty entrypoint, because the template's command replaces the image's whole.
	if !slices.Equal(g.Command, revision.Template.Command) || g.Entrypoint == nil || len(g.Entrypoint) != 0 {
		t.Errorf("command: got %v after %v, want %v after an empty entrypoint", g.Command, g.Entrypoint, revision.Template.Command)
	}
	trial := r.spec(slot{name: "trial", role: roleTrial, image: "image", resources: trialResources})
	if len(trial.PortMappings) != 0 {
		t.Errorf("ports of a trial: got %v, want none", trial.PortMappings)
	}
}

func TestObserved(t *testing.T) {
	labels := map[string]string{labelInstance: "i-1", labelPort: "20001", labelEpoch: "4"}
	for _, c := range []struct {
		name string
		c    types.ListContainer
		want api.ObservedInstance
	}{
		{"running", types.ListContainer{Labels: labels, State: "running"}, api.ObservedInstance{ID: "i-1", State: api.InstanceWarm, Port: 20001, Epoch: 4}},
		{"paused", types.ListContainer{Labels: labels, State: "paused"}, api.ObservedInstance{ID: "i-1", State: api.InstanceWarm, Port: 20001, Epoch: 4}},
		{"exited", types.ListContainer{Labels: labels, State: "exited", ExitCode: 137, ExitedAt: 1_700_000_000},
			api.ObservedInstance{ID: "i-1", State: api.InstanceFailed, Port: 20001, Epoch: 4, Reason: "its container is exited, exit code 137 at 2023-11-14T22:13:20Z"}},
		{"created and never started", types.ListContainer{Labels: labels, State: "created"},
			api.ObservedInstance{ID: "i-1", State: api.InstanceFailed, Port: 20001, Epoch: 4, Reason: "its container is created, exit code 0"}},
		{"labels that cannot be read", types.ListContainer{Labels: map[string]string{labelInstance: "i-1", labelPort: "x"}, State: "running"},
			api.ObservedInstance{ID: "i-1", State: api.InstanceWarm}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(observed(c.c), c.want); diff != "" {
				t.Errorf("(-got +want):\n%s", diff)
			}
		})
	}
}
