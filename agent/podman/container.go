package podman

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"strconv"
	"time"

	"github.com/containers/podman/v5/pkg/bindings/containers"
	"github.com/containers/podman/v5/pkg/domain/entities/types"
	"github.com/containers/podman/v5/pkg/specgen"
	"github.com/opencontainers/runtime-spec/specs-go"
	nettypes "go.podman.io/common/libnetwork/types"

	"github.com/boss/demo-multiplexer/api"
)

// The labels by which a restarted agent knows its containers.
const (
	labelNode       = "demo.node"
	labelRole       = "demo.role"
	labelInstance   = "demo.instance"
	labelTemplate   = "demo.template"
	labelRevision   = "demo.revision"
	labelCheckpoint = "demo.checkpoint"
	labelEpoch      = "demo.epoch" // at creation; the agent's own record has the current one
	labelPort       = "demo.port"
)

// The roles of containers.
const (
	roleInstance = "instance"
	roleBuild    = "build" // being made into a checkpoint
	roleTrial    = "trial" // of the preflight
)

const (
	// logBytes bounds the log of one container; conmon starts it anew there.
	logBytes = 1 << 20
	// cpuPeriod is the period of the CPU quota, in microseconds.
	cpuPeriod = 100_000
	// hostName is the same in every container, because a restore brings back
	// the name of the container that was checkpointed anyway.
	hostName = "demo"
)

// slot describes a container to create.
type slot struct {
	name      string
	role      string
	image     string // reference or ID
	command   []string
	port      int // inside; 0 publishes nothing
	hostPort  int
	resources api.Resources
	labels    map[string]string
}

func instanceName(id api.InstanceID) string { return "demo-" + string(id) }

// spec returns the full description of a container. The layout must be the
// same when a checkpoint is made and when it is restored; see layoutVersion.
func (r *Runtime) spec(s slot) *specgen.SpecGenerator {
	g := specgen.NewSpecGenerator(s.image, false)
	g.Name = s.name
	g.Hostname = hostName
	if len(s.command) > 0 {
		g.Entrypoint, g.Command = []string{}, s.command
	}
	g.Labels = map[string]string{labelNode: string(r.node), labelRole: s.role}
	maps.Copy(g.Labels, s.labels)
	g.RestartPolicy = "no"
	g.LogConfiguration = &specgen.LogConfig{Driver: "k8s-file", Size: logBytes}
	// The host's environment, hosts file and resolver are none of a visitor's
	// business.
	g.EnvHost, g.HTTPProxy = new(bool), new(bool)
	g.BaseHostsFile = "none"
	yes := true
	g.UseImageResolvConf = &yes
	// Data that an image declares as volumes must be part of the warm image.
	g.ImageVolumeMode = "ignore"

	g.CapDrop = []string{"all"}
	g.NoNewPrivileges = &yes
	memory, quota, period := int64(s.resources.Memory), int64(s.resources.CPUs*cpuPeriod), uint64(cpuPeriod)
	g.ResourceLimits = &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: &memory, Swap: &memory},
		CPU:    &specs.LinuxCPU{Quota: &quota, Period: &period},
		Pids:   &specs.LinuxPids{Limit: s.resources.PIDs},
	}
	if s.port != 0 {
		g.PortMappings = []nettypes.PortMapping{{
			HostIP: r.address.String(), HostPort: uint16(s.hostPort), ContainerPort: uint16(s.port), Protocol: "tcp",
		}}
	}
	return g
}

func (r *Runtime) create(ctx context.Context, s slot) (string, error) {
	ctx, cancel := r.client.call(ctx, createTimeout)
	defer cancel()
	created, err := containers.CreateWithSpec(ctx, r.spec(s), nil)
	if err != nil {
		return "", fmt.Errorf("create container: %w", err)
	}
	return created.ID, nil
}

func (r *Runtime) startContainer(ctx context.Context, id string) error {
	ctx, cancel := r.client.call(ctx, createTimeout)
	defer cancel()
	if err := containers.Start(ctx, id, nil); err != nil {
		return fmt.Errorf("start container: %w", err)
	}
	return nil
}

// remove removes a container with its storage, running or not. It is no error
// if there is none.
func (r *Runtime) remove(ctx context.Context, nameOrID string) error {
	ctx, cancel := r.client.call(ctx, createTimeout)
	defer cancel()
	options := new(containers.RemoveOptions).WithForce(true).WithIgnore(true).WithVolumes(true).WithTimeout(0)
	reports, err := containers.Remove(ctx, nameOrID, options)
	if err != nil && !notFound(err) {
		return fmt.Errorf("remove container: %w", err)
	}
	for _, report := range reports {
		if report.Err != nil {
			return fmt.Errorf("remove container: %w", report.Err)
		}
	}
	return nil
}

// discard removes what a failed or finished step left, also when the step's
// own context has ended.
func (r *Runtime) discard(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	err := r.remove(ctx, name)
	if err != nil {
		r.logger.Warn("cannot remove a container", "container", name, "err", err)
	}
	return err
}

// listed returns the containers of this node with a role, or with any role.
func (r *Runtime) listed(ctx context.Context, role string) ([]types.ListContainer, error) {
	ctx, cancel := r.client.call(ctx, queryTimeout)
	defer cancel()
	labels := []string{labelNode + "=" + string(r.node)}
	if role != "" {
		labels = append(labels, labelRole+"="+role)
	}
	options := new(containers.ListOptions).WithAll(true).WithFilters(map[string][]string{"label": labels})
	found, err := containers.List(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	return found, nil
}

// List returns every instance that has a container on this node.
func (r *Runtime) List(ctx context.Context) ([]api.ObservedInstance, error) {
	found, err := r.listed(ctx, roleInstance)
	if err != nil {
		return nil, err
	}
	instances := make([]api.ObservedInstance, 0, len(found))
	for _, c := range found {
		instances = append(instances, observed(c))
	}
	return instances, nil
}

func observed(c types.ListContainer) api.ObservedInstance {
	i := api.ObservedInstance{ID: api.InstanceID(c.Labels[labelInstance]), State: api.InstanceWarm}
	// Only this agent writes these labels; what cannot be read counts as zero.
	i.Port, _ = strconv.Atoi(c.Labels[labelPort])
	i.Epoch, _ = strconv.ParseUint(c.Labels[labelEpoch], 10, 64)
	if c.State != "running" && c.State != "paused" {
		i.State = api.InstanceFailed
		i.Reason = fmt.Sprintf("its container is %s, exit code %d", c.State, c.ExitCode)
		if c.ExitedAt > 0 {
			i.Reason += " at " + time.Unix(c.ExitedAt, 0).UTC().Format(time.RFC3339)
		}
	}
	return i
}

// Remove removes an instance and everything that belongs to it.
func (r *Runtime) Remove(ctx context.Context, id api.InstanceID) error {
	return r.remove(ctx, instanceName(id))
}

// instanceSlot describes the container of an instance.
func instanceSlot(t api.TemplateRevision, want api.DesiredInstance, image string, port int) slot {
	return slot{
		name: instanceName(want.ID), role: roleInstance, image: image, command: t.Template.Command,
		port: t.Template.Port, hostPort: port, resources: t.Template.Resources,
		labels: map[string]string{
			labelInstance:   string(want.ID),
			labelTemplate:   string(t.Template.Name),
			labelRevision:   strconv.FormatUint(t.Revision, 10),
			labelCheckpoint: string(want.Checkpoint),
			labelEpoch:      strconv.FormatUint(want.Epoch, 10),
			labelPort:       strconv.Itoa(port),
		},
	}
}

// endpoint is where an instance serves on this node.
func (r *Runtime) endpoint(port int) netip.AddrPort {
	return netip.AddrPortFrom(r.address, uint16(port))
}
