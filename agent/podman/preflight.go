package podman

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"time"

	"github.com/containers/podman/v5/pkg/bindings/containers"
	"github.com/containers/podman/v5/pkg/bindings/images"

	"github.com/boss/demo-multiplexer/agent/checkpoint"
	"github.com/boss/demo-multiplexer/api"
)

// trialTimeout bounds the whole trial checkpoint and restore.
const trialTimeout = 90 * time.Second

// trialResources are enough for a program that sleeps.
var trialResources = api.Resources{Memory: 32 << 20, CPUs: 1, PIDs: 16}

// Preflight finds out what this host is and whether it can restore. The error
// is for a host that cannot run containers at all; one that only fails the
// trial boots cold, and the reply says why.
func (r *Runtime) Preflight(ctx context.Context) (api.NodeInfo, error) {
	if err := r.inspectHost(ctx); err != nil {
		return api.NodeInfo{}, err
	}
	if err := r.clearLeftovers(ctx); err != nil {
		return api.NodeInfo{}, err
	}
	info := api.NodeInfo{ID: r.node, HostClass: r.hostClass, Versions: r.versions, Restores: true}
	began := time.Now()
	if err := r.trial(ctx); err != nil {
		if ctx.Err() != nil {
			return api.NodeInfo{}, context.Cause(ctx)
		}
		info.Restores, info.Reason = false, "the trial checkpoint and restore failed: "+firstLine(err.Error())
		r.logger.Warn("this node does not restore", "err", err)
	}
	r.logger.Info("preflight done", "restores", info.Restores, "host_class", info.HostClass, "podman", info.Versions.Podman,
		"runtime", info.Versions.Runtime, "criu", info.Versions.CRIU, "kernel", info.Versions.Kernel, "took", time.Since(began))
	return info, nil
}

// clearLeftovers removes builds and trials that a killed agent left. Nobody
// else owns them.
func (r *Runtime) clearLeftovers(ctx context.Context) error {
	found, err := r.listed(ctx, "")
	if err != nil {
		return err
	}
	for _, c := range found {
		if c.Labels[labelRole] == roleInstance {
			continue
		}
		if err := r.remove(ctx, c.ID); err != nil {
			return err
		}
		r.logger.Info("leftover removed", "container", c.Names, "role", c.Labels[labelRole])
	}
	return checkpoint.SweepPages(r.pagesDir)
}

// trial checkpoints a tiny container and restores it under another name, by
// the very path that instances take.
func (r *Runtime) trial(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, trialTimeout, fmt.Errorf("it took longer than %s", trialTimeout))
	defer cancel()
	image, err := r.importTrial(ctx)
	if err != nil {
		return err
	}
	from, to := fmt.Sprintf("demo-trial-%s-from", r.node), fmt.Sprintf("demo-trial-%s-to", r.node)
	defer func() {
		err = errors.Join(err, r.discard(ctx, to), r.discard(ctx, from), r.removeImage(context.WithoutCancel(ctx), image))
	}()
	s := slot{name: from, role: roleTrial, image: image, command: []string{"/" + sleeperPath}, resources: trialResources}
	id, err := r.create(ctx, s)
	if err != nil {
		return err
	}
	if err := r.startContainer(ctx, id); err != nil {
		return err
	}
	dir, err := r.freeze(ctx, id)
	if err != nil {
		return err
	}
	s.name = to
	ready, err := r.prepare(ctx, s, dir)
	if err != nil {
		return err
	}
	if err := r.restore(ctx, ready); err != nil {
		return err
	}
	call, done := r.client.call(ctx, queryTimeout)
	defer done()
	restored, err := containers.Inspect(call, ready.id, nil)
	if err != nil {
		return fmt.Errorf("inspect container: %w", err)
	}
	if restored.State == nil || !restored.State.Running {
		return fmt.Errorf("the restored container does not run%s", criuComplaint(filepath.Join(ready.dir, restoreLog)))
	}
	return nil
}

// importTrial imports an image that was made in memory.
func (r *Runtime) importTrial(ctx context.Context) (string, error) {
	content, err := trialImage(runtime.GOARCH)
	if err != nil {
		return "", err
	}
	call, cancel := r.client.call(ctx, createTimeout)
	defer cancel()
	report, err := images.Import(call, content, new(images.ImportOptions).WithReference(fmt.Sprintf("localhost/demo-trial:%s", r.node)))
	if err != nil {
		return "", fmt.Errorf("import the trial image: %w", err)
	}
	return report.Id, nil
}
