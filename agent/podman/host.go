package podman

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/containers/podman/v5/pkg/bindings/system"

	"github.com/boss/demo-multiplexer/api"
)

// layoutVersion is part of the host class and rises with every change of how
// containers are created that a checkpoint depends on: mounts, name spaces.
const layoutVersion = 1

// unknownVersion stands for a version that nobody tells.
const unknownVersion = "unknown"

// criuTimeout bounds asking CRIU for its version.
const criuTimeout = 5 * time.Second

// inspectHost asks for the versions that a checkpoint depends on.
func (r *Runtime) inspectHost(ctx context.Context) error {
	call, cancel := r.client.call(ctx, queryTimeout)
	defer cancel()
	info, err := system.Info(call, nil)
	if err != nil {
		return fmt.Errorf("ask podman about the host: %w", err)
	}
	v := api.Versions{Agent: r.agent, Podman: info.Version.Version, Runtime: unknownVersion, CRIU: criuVersion(ctx), Kernel: info.Host.Kernel}
	if o := info.Host.OCIRuntime; o != nil {
		// The first line is "crun version 1.28"; what follows is its build.
		line, _, _ := strings.Cut(o.Version, "\n")
		v.Runtime = strings.Replace(line, " version ", " ", 1)
	}
	cpu, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return fmt.Errorf("read the CPU's features: %w", err)
	}
	if info.Store == nil || info.Store.GraphRoot == "" {
		return fmt.Errorf("podman does not say where its storage is")
	}
	r.versions, r.graphRoot = v, info.Store.GraphRoot
	r.hostClass = hostClass(runtime.GOARCH, cpuFeatures(string(cpu)), v)
	return nil
}

// criuVersion asks CRIU itself, because Podman's API does not tell.
func criuVersion(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, criuTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, "criu", "--version").Output()
	if err != nil {
		return unknownVersion
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(strings.TrimPrefix(line, "Version:"))
}

// cpuFeatures returns the sorted features of the first CPU in /proc/cpuinfo.
func cpuFeatures(cpuinfo string) []string {
	for line := range strings.Lines(cpuinfo) {
		name, value, _ := strings.Cut(line, ":")
		if name = strings.TrimSpace(name); name == "flags" || name == "Features" {
			features := strings.Fields(value)
			slices.Sort(features)
			return slices.Compact(features)
		}
	}
	return nil
}

// hostClass names the hosts on which one checkpoint can be restored, for
// example amd64-6.18-1a2b3c4d.
func hostClass(arch string, features []string, v api.Versions) api.HostClass {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%s\n%s\n%s\n%s\n%d",
		arch, strings.Join(features, " "), v.Kernel, v.CRIU, v.Runtime, v.Podman, layoutVersion))
	release := strings.SplitN(v.Kernel, ".", 3)
	short := strings.Join(release[:min(len(release), 2)], ".")
	return api.HostClass(fmt.Sprintf("%s-%s-%x", arch, short, sum[:4]))
}
