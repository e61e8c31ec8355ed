package pool

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode"

	"github.com/boss/demo-multiplexer/api"
)

// failedStage returns the stage that an error of the runtime names.
func failedStage(err error, otherwise string) string {
	var staged interface{ Stage() string }
	if errors.As(err, &staged) {
		return staged.Stage()
	}
	return otherwise
}

// maxReason bounds what the leader is told, because parts of it may come from
// inside a container.
const maxReason = 500

// reason spells an error for the leader: one printable line.
func reason(err error) string {
	line := []rune(strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return !unicode.IsPrint(r) }), " "))
	if len(line) > maxReason {
		return string(line[:maxReason]) + "..."
	}
	return string(line)
}

// usedPorts returns the ports that instances and builds hold.
func (p *Pool) usedPorts() map[int]bool {
	used := map[int]bool{}
	for _, i := range p.actual.Instances {
		used[i.Port] = true
	}
	for _, port := range p.portsOf {
		used[port] = true
	}
	return used
}

func (p *Pool) start(ctx context.Context, a Action, now time.Time) bool {
	var want api.DesiredInstance
	for _, w := range p.desired.Instances {
		if w.ID == a.Instance {
			want = w
		}
	}
	t, err := p.template(want.Template)
	var port int
	if err == nil {
		port, err = p.ports.take(p.usedPorts())
	}
	if err != nil {
		p.opts.Recorder.Failure("start")
		p.fail(Action{Instance: a.Instance, Reason: reason(err)})
		return true
	}
	p.set(Instance{
		ObservedInstance: api.ObservedInstance{ID: want.ID, State: api.InstanceRestoring, Port: port},
		Exists:           true, Busy: true, Named: true,
	})
	timeout := restoreTimeout
	if want.Checkpoint == "" {
		timeout += t.Template.Health.Timeout.D()
	}
	var started api.ObservedInstance
	p.cancels[want.ID] = p.work(ctx, Start, timeout, func(ctx context.Context) (err error) {
		started, err = p.opts.Runtime.Start(ctx, t, want, port)
		return err
	}, func(err error, now time.Time) {
		delete(p.cancels, want.ID)
		p.started(want, started, err)
	})
	return true
}

// started applies the result of a start.
func (p *Pool) started(want api.DesiredInstance, started api.ObservedInstance, err error) {
	i := p.actual.Instances[want.ID]
	port := i.Port
	i.Busy = false
	if err == nil {
		started.ID, started.State, started.Port = want.ID, api.InstanceWarm, port
		i.ObservedInstance = started
		// Without its record on disk a restarted agent could not vouch for it.
		if err = p.journal.saveInstance(started); err != nil {
			i.State, i.Reason, i.Credentials = api.InstanceFailed, reason(err), nil
		}
	} else {
		i.State, i.Reason, i.Exists, i.Port = api.InstanceFailed, reason(err), false, 0
		p.removed[want.ID] = p.lists
	}
	p.set(i)
	switch {
	case err == nil:
		for _, s := range started.Stages {
			p.opts.Recorder.Stage(s.Name, s.Took.D())
		}
		p.opts.Logger.Info("instance warm", "instance", want.ID, "template", want.Template.Name, "port", port, "stages", started.Stages)
	case i.Cancelled:
		p.opts.Logger.Info("start cancelled", "instance", want.ID)
	default:
		p.opts.Recorder.Failure(failedStage(err, "start"))
		p.opts.Logger.Warn("instance failed", "instance", want.ID, "template", want.Template.Name, "stage", failedStage(err, "start"), "err", err)
	}
}

func (p *Pool) build(ctx context.Context, a Action, now time.Time) {
	record := Build{ObservedBuild: api.ObservedBuild{Build: a.Build, State: api.CheckpointBuilding}, Busy: true}
	t, err := p.template(a.Build.Template)
	var port int
	switch {
	case err != nil:
	case !p.actual.Restores:
		err = errors.New("this node does not restore: " + p.actual.Reason)
	default:
		port, err = p.ports.take(p.usedPorts())
	}
	if err != nil {
		p.actual.Builds[a.Build.Template] = record
		p.built(a.Build, api.ObservedBuild{}, err)
		return
	}
	p.actual.Builds[a.Build.Template] = record
	p.portsOf[a.Build.Template] = port
	p.opts.Logger.Info("building a checkpoint", "template", a.Build.Template.Name, "revision", a.Build.Template.Revision, "attempt", a.Build.Attempt)
	var made api.ObservedBuild
	p.work(ctx, Make, buildTimeout+t.Template.Health.Timeout.D(), func(ctx context.Context) (err error) {
		made, err = p.opts.Runtime.Build(ctx, t, port)
		return err
	}, func(err error, now time.Time) {
		delete(p.portsOf, a.Build.Template)
		p.built(a.Build, made, err)
	})
}

// built applies the result of a build.
func (p *Pool) built(b api.Build, made api.ObservedBuild, err error) {
	made.Build = b
	if err != nil {
		made.State, made.Reason = api.CheckpointFailed, reason(err)
		p.opts.Recorder.Failure(failedStage(err, "build"))
		p.opts.Logger.Warn("build failed", "template", b.Template.Name, "revision", b.Template.Revision, "stage", failedStage(err, "build"), "err", err)
	} else {
		made.State = api.CheckpointReady
		p.actual.Checkpoints[made.Digest] = Checkpoint{State: api.CheckpointReady}
		for _, s := range made.Stages {
			p.opts.Recorder.Stage(s.Name, s.Took.D())
		}
		p.opts.Logger.Info("checkpoint built", "template", b.Template.Name, "revision", b.Template.Revision, "checkpoint", made.Digest, "stages", made.Stages)
	}
	p.actual.Builds[b.Template] = Build{ObservedBuild: made}
	p.saveBuilds()
}

func (p *Pool) saveBuilds() {
	if err := p.journal.saveBuilds(p.actual.Builds); err != nil {
		// A restarted agent then builds again, which is slow and not wrong.
		p.opts.Logger.Error("cannot store the builds", "err", err)
	}
}
