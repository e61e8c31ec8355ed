package podman

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/containers/podman/v5/pkg/bindings/containers"
	"github.com/containers/podman/v5/pkg/bindings/images"

	"github.com/boss/demo-multiplexer/agent/checkpoint"
	"github.com/boss/demo-multiplexer/api"
)

// warmImages is the repository of warm images in Podman's storage. The name
// only keeps them from being pruned: they are used by ID.
const warmImages = "localhost/demo-warm"

// Build boots a template cold, warms it up, freezes it, and stores pages and
// warm image as a checkpoint that is ready to be restored here.
func (r *Runtime) Build(ctx context.Context, t api.TemplateRevision, port int) (built api.ObservedBuild, err error) {
	name := fmt.Sprintf("demo-build-%s-r%d", t.Template.Name, t.Revision)
	b := build{r: r, t: t, port: port, name: name}
	defer func() { err = errors.Join(err, r.discard(ctx, name)) }()
	// A build that a killed agent left would block the name.
	if err := r.remove(ctx, name); err != nil {
		return api.ObservedBuild{}, inStage(api.StageColdBoot, err)
	}
	done := r.store.Writing()
	defer func() { err = errors.Join(err, done()) }()
	m, digest, err := b.run(ctx)
	if err != nil {
		if b.image != "" {
			err = errors.Join(err, r.removeImage(context.WithoutCancel(ctx), b.image))
		}
		return api.ObservedBuild{}, err
	}
	return api.ObservedBuild{Digest: digest, Size: api.Bytes(checkpoint.Size(m)), Stages: b.watch.stages}, nil
}

// build is one build under way.
type build struct {
	r     *Runtime
	t     api.TemplateRevision
	port  int
	name  string // of the container
	watch stopwatch
	dir   string // the container's own directory
	image string // ID of the warm image, once committed
}

func (b *build) run(ctx context.Context) (api.Manifest, api.Digest, error) {
	id, err := b.coldBoot(ctx)
	if err != nil {
		return api.Manifest{}, "", err
	}
	if err := b.watch.run(api.StageWarmup, func() error { return b.warmUp(ctx, id) }); err != nil {
		return api.Manifest{}, "", err
	}
	if err := b.watch.run(api.StageCheckpoint, func() error { return b.freeze(ctx, id) }); err != nil {
		return api.Manifest{}, "", err
	}
	if err := b.watch.run(api.StageCommit, func() error { return b.commit(ctx, id) }); err != nil {
		return api.Manifest{}, "", err
	}
	var m api.Manifest
	var digest api.Digest
	err = b.watch.run(api.StagePack, func() error {
		m, digest, err = b.pack(ctx)
		return err
	})
	return m, digest, err
}

func (b *build) coldBoot(ctx context.Context) (string, error) {
	if err := b.room(ctx); err != nil {
		return "", inStage(api.StageColdBoot, err)
	}
	s := slot{
		name: b.name, role: roleBuild, image: b.t.Template.Image, command: b.t.Template.Command,
		port: b.t.Template.Port, hostPort: b.port, resources: b.t.Template.Resources,
		labels: map[string]string{
			labelTemplate: string(b.t.Template.Name),
			labelRevision: strconv.FormatUint(b.t.Revision, 10),
			labelPort:     strconv.Itoa(b.port),
		},
	}
	return b.r.boot(ctx, &b.watch, s, b.t.Template.Health)
}

// room checks for the space that a build needs at most before it starts: the
// image as an archive, and all of the memory as pages, packed and unpacked.
func (b *build) room(ctx context.Context) error {
	call, cancel := b.r.client.call(ctx, queryTimeout)
	defer cancel()
	image, err := images.GetImage(call, b.t.Template.Image, nil)
	if notFound(err) {
		return fmt.Errorf("image %s is not in this node's storage; load it with podman load", b.t.Template.Image)
	}
	if err != nil {
		return fmt.Errorf("inspect image: %w", err)
	}
	memory := int64(b.t.Template.Resources.Memory)
	return errors.Join(b.r.disk.Room(b.r.graphRoot, memory), b.r.store.Room(image.Size+2*memory))
}

func (b *build) warmUp(ctx context.Context, id string) error {
	if err := b.r.probe.warmUp(ctx, b.r.endpoint(b.port), b.t.Template); err != nil {
		return err
	}
	argv := b.t.Template.Hooks.BeforeCheckpoint
	if len(argv) == 0 {
		return nil
	}
	_, err := b.r.hook(ctx, id, argv, newHookInput(api.DesiredInstance{}))
	return err
}

// freeze checkpoints the container in place and leaves it stopped, so that its
// files stay as its memory remembers them.
func (b *build) freeze(ctx context.Context, id string) error {
	var err error
	if b.dir, err = b.r.freeze(ctx, id); err != nil {
		return err
	}
	return nil
}

// freeze checkpoints a container and returns the directory with its pages.
func (r *Runtime) freeze(ctx context.Context, id string) (dir string, err error) {
	call, cancel := r.client.call(ctx, checkpointTimeout)
	defer cancel()
	if dir, err = r.staticDir(call, id); err != nil {
		return "", err
	}
	options := new(containers.CheckpointOptions).WithKeep(true).WithTCPEstablished(true).WithFileLocks(true).WithPrintStats(true)
	report, err := containers.Checkpoint(call, id, options)
	if err != nil {
		return "", fmt.Errorf("checkpoint container: %w%s", err, criuComplaint(filepath.Join(dir, dumpLog)))
	}
	if s := report.CRIUStatistics; s != nil {
		r.logger.Debug("checkpointed", "container", id, "runtime", time.Duration(report.RuntimeDuration)*time.Microsecond,
			"frozen", time.Duration(s.FrozenTime)*time.Microsecond)
	}
	return dir, nil
}

// commit makes the warm image. Docker's format keeps the image's ID when it
// travels as a docker archive.
func (b *build) commit(ctx context.Context, id string) error {
	call, cancel := b.r.client.call(ctx, imageTimeout)
	defer cancel()
	options := new(containers.CommitOptions).WithFormat("docker").WithPause(false).
		WithRepo(warmImages + "/" + string(b.t.Template.Name)).WithTag(fmt.Sprintf("r%d-%s", b.t.Revision, api.NewRequestID()))
	committed, err := containers.Commit(call, id, options)
	if err != nil {
		return fmt.Errorf("commit warm image: %w", err)
	}
	inspected, err := images.GetImage(call, committed.ID, nil)
	if err != nil {
		return fmt.Errorf("inspect warm image: %w", err)
	}
	b.image = inspected.ID
	return nil
}

// pack stores pages and warm image, and unpacks the pages for restores here.
func (b *build) pack(ctx context.Context) (api.Manifest, api.Digest, error) {
	store := b.r.store
	names := []string{checkpointDir}
	if filled, err := shmFilled(filepath.Join(b.dir, shmFile)); err != nil {
		return api.Manifest{}, "", err
	} else if filled {
		names = append(names, shmFile)
	}
	pages, err := store.WriteBlob(checkpoint.PagesBlob, func(w io.Writer) error {
		return checkpoint.Pack(w, b.dir, names...)
	})
	if err != nil {
		return api.Manifest{}, "", err
	}
	image, err := store.WriteBlob(checkpoint.ImageBlob, func(w io.Writer) error { return b.r.exportImage(ctx, b.image, w) })
	if err != nil {
		return api.Manifest{}, "", err
	}
	m := api.Manifest{
		For: b.t.Ref(), HostClass: b.r.hostClass, Versions: b.r.versions, Image: b.image,
		CreatedAt: time.Now().UTC().Truncate(time.Second), Blobs: []api.Blob{pages, image},
	}
	dir, err := b.r.pages(m)
	if err != nil {
		return m, "", err
	}
	if err := store.Unpack(pages, dir); err != nil {
		return m, "", err
	}
	digest, err := store.Put(m)
	return m, digest, err
}

// shmFilled reports whether the archive of /dev/shm holds more than the
// directory itself. Without content a restore is spared unpacking it.
func shmFilled(path string) (bool, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }() // it is only read
	archive := tar.NewReader(f)
	for range 2 {
		if _, err := archive.Next(); errors.Is(err, io.EOF) {
			return false, nil
		} else if err != nil {
			return false, fmt.Errorf("read %s: %w", shmFile, err)
		}
	}
	return true, nil
}

func (r *Runtime) exportImage(ctx context.Context, id string, w io.Writer) error {
	call, cancel := r.client.call(ctx, imageTimeout)
	defer cancel()
	options := new(images.ExportOptions).WithFormat("docker-archive")
	if err := images.Export(call, []string{id}, w, options); err != nil {
		return fmt.Errorf("export image: %w", err)
	}
	return nil
}

func (r *Runtime) removeImage(ctx context.Context, id string) error {
	call, cancel := r.client.call(ctx, createTimeout)
	defer cancel()
	_, errs := images.Remove(call, []string{id}, new(images.RemoveOptions).WithIgnore(true))
	for _, err := range errs {
		if err != nil && !notFound(err) {
			return fmt.Errorf("remove image: %w", errors.Join(errs...))
		}
	}
	return nil
}
