package podman

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containers/podman/v5/pkg/bindings/containers"

	"github.com/boss/demo-multiplexer/agent/checkpoint"
	"github.com/boss/demo-multiplexer/api"
)

// stopwatch measures the stages of a start or a build.
type stopwatch struct{ stages []api.Stage }

func (w *stopwatch) run(stage string, do func() error) error {
	began := time.Now()
	err := do()
	w.stages = append(w.stages, api.Stage{Name: stage, Took: api.Duration(time.Since(began).Round(10 * time.Microsecond))})
	return inStage(stage, err)
}

// Start boots or restores an instance, rekeys it and proves its page. After an
// error nothing of it is left.
func (r *Runtime) Start(ctx context.Context, t api.TemplateRevision, want api.DesiredInstance, port int) (api.ObservedInstance, error) {
	var w stopwatch
	credentials, err := r.start(ctx, &w, t, want, port)
	if err != nil {
		return api.ObservedInstance{}, errors.Join(err, r.discard(ctx, instanceName(want.ID)))
	}
	return api.ObservedInstance{
		ID: want.ID, State: api.InstanceWarm, Port: port, Credentials: credentials, Stages: w.stages,
	}, nil
}

func (r *Runtime) start(ctx context.Context, w *stopwatch, t api.TemplateRevision, want api.DesiredInstance, port int) (credentials *api.Credentials, err error) {
	if err := r.disk.Room(r.graphRoot, 0); err != nil {
		return nil, inStage(api.StagePrepare, err)
	}
	var id string
	if want.Checkpoint == "" {
		id, err = r.boot(ctx, w, instanceSlot(t, want, t.Template.Image, port), t.Template.Health)
	} else {
		id, err = r.revive(ctx, w, t, want, port)
	}
	if err != nil {
		return nil, err
	}
	err = w.run(api.StageHook, func() (err error) {
		credentials, err = r.rekey(ctx, id, t.Template, newHookInput(want))
		return err
	})
	if err != nil {
		return nil, err
	}
	return credentials, w.run(api.StageProbe, func() error {
		return r.probe.good(ctx, r.endpoint(port), t.Template, want.Host)
	})
}

func newHookInput(want api.DesiredInstance) hookInput {
	seed := make([]byte, 32)
	_, _ = rand.Read(seed) // never fails: it crashes the program instead
	return hookInput{Instance: want.ID, Host: want.Host, URL: want.URL, Seed: seed}
}

// boot starts a container cold and waits until it is healthy.
func (r *Runtime) boot(ctx context.Context, w *stopwatch, s slot, h api.HealthCheck) (id string, err error) {
	err = w.run(api.StageColdBoot, func() error {
		if id, err = r.create(ctx, s); err != nil {
			return err
		}
		if err := r.startContainer(ctx, id); err != nil {
			return err
		}
		return r.probe.healthy(ctx, r.endpoint(s.hostPort), h)
	})
	return id, err
}

// revive restores an instance from a checkpoint that is ready here.
func (r *Runtime) revive(ctx context.Context, w *stopwatch, t api.TemplateRevision, want api.DesiredInstance, port int) (string, error) {
	m, err := r.store.Manifest(want.Checkpoint)
	if err != nil {
		return "", inStage(api.StagePrepare, err)
	}
	pages, err := r.pages(m)
	if err != nil {
		return "", inStage(api.StagePrepare, err)
	}
	var ready prepared
	err = w.run(api.StagePrepare, func() error {
		ready, err = r.prepare(ctx, instanceSlot(t, want, m.Image, port), pages)
		return err
	})
	if err != nil {
		return "", err
	}
	return ready.id, w.run(api.StageRestore, func() error { return r.restore(ctx, ready) })
}

// pages returns the directory where the pages of a checkpoint are unpacked,
// shared by all its restores.
func (r *Runtime) pages(m api.Manifest) (string, error) {
	blob, err := checkpoint.BlobOf(m, checkpoint.PagesBlob)
	if err != nil {
		return "", err
	}
	return filepath.Join(r.pagesDir, string(blob.Digest)), nil
}

// The files that a checkpoint leaves in a container's directory, and that a
// restore looks for there.
const (
	checkpointDir = "checkpoint"            // CRIU's images
	shmFile       = "devshm-checkpoint.tar" // the content of /dev/shm
	dumpLog       = "dump.log"
	restoreLog    = "restore.log"
)

// prepared is a container that only needs to be restored: it costs disk and no
// memory.
type prepared struct {
	id  string
	dir string // the container's own directory
}

// prepare makes a container that [Runtime.restore] can restore. Initialising
// it lays down the runtime's configuration, without which a restore fails;
// stopping it then frees its processes and its network again.
func (r *Runtime) prepare(ctx context.Context, s slot, pages string) (prepared, error) {
	id, err := r.create(ctx, s)
	if err != nil {
		return prepared{}, err
	}
	call, cancel := r.client.call(ctx, createTimeout)
	defer cancel()
	if err := containers.ContainerInit(call, id, nil); err != nil {
		return prepared{}, fmt.Errorf("initialise container: %w", err)
	}
	if err := containers.Stop(call, id, new(containers.StopOptions).WithTimeout(0)); err != nil {
		return prepared{}, fmt.Errorf("stop container: %w", err)
	}
	dir, err := r.staticDir(call, id)
	if err != nil {
		return prepared{}, err
	}
	for _, name := range []string{checkpointDir, shmFile} {
		target := filepath.Join(pages, name)
		if _, err := os.Stat(target); name == shmFile && errors.Is(err, os.ErrNotExist) {
			continue
		} else if err != nil {
			return prepared{}, fmt.Errorf("link pages: %w", err)
		}
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			return prepared{}, fmt.Errorf("link pages: %w", err)
		}
	}
	return prepared{id: id, dir: dir}, nil
}

// staticDir returns the directory in which Podman keeps a container's files.
func (r *Runtime) staticDir(ctx context.Context, id string) (string, error) {
	inspected, err := containers.Inspect(ctx, id, nil)
	if err != nil {
		return "", fmt.Errorf("inspect container: %w", err)
	}
	if !filepath.IsAbs(inspected.StaticDir) {
		return "", fmt.Errorf("podman does not say where container %s lies", id)
	}
	return inspected.StaticDir, nil
}

func (r *Runtime) restore(ctx context.Context, p prepared) error {
	call, cancel := r.client.call(ctx, restoreTimeout)
	defer cancel()
	options := new(containers.RestoreOptions).WithKeep(true).WithTCPClose(true).WithFileLocks(true).WithPrintStats(true)
	report, err := containers.Restore(call, p.id, options)
	if err != nil {
		return fmt.Errorf("restore container: %w%s", err, criuComplaint(filepath.Join(p.dir, restoreLog)))
	}
	if s := report.CRIUStatistics; s != nil {
		r.logger.Debug("restored", "container", p.id, "runtime", time.Duration(report.RuntimeDuration)*time.Microsecond,
			"criu", time.Duration(s.RestoreTime)*time.Microsecond)
	}
	return nil
}

// maxCRIULog bounds what is read of CRIU's log.
const maxCRIULog = 4 << 20

// criuComplaint returns the first error of CRIU's log, for people; the errors
// after it mostly follow from it.
func criuComplaint(path string) string {
	info, err := os.Stat(path)
	if err != nil || info.Size() > maxCRIULog {
		return ""
	}
	log, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(log)) {
		if _, complaint, ok := strings.Cut(line, "Error "); ok {
			return "; CRIU says: " + firstLine(complaint)
		}
	}
	return ""
}
