package pool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

// Runtime starts, finds and removes instances on this node.
type Runtime interface {
	// List returns every instance that has a container here: warm when the
	// container runs, otherwise failed with the reason.
	List(ctx context.Context) ([]api.ObservedInstance, error)
	// Start boots or restores an instance and returns it warm: rekeyed, probed
	// and serving on port. After an error nothing of it is left.
	Start(ctx context.Context, t api.TemplateRevision, want api.DesiredInstance, port int) (api.ObservedInstance, error)
	// Remove removes the container and everything that belongs to it. It is
	// no error if there is none.
	Remove(ctx context.Context, id api.InstanceID) error
	// Build makes a checkpoint of a template, ready to be restored here, and
	// returns its digest, size and stages. After an error nothing is left.
	Build(ctx context.Context, t api.TemplateRevision, port int) (api.ObservedBuild, error)
}

// Checkpoints keeps the checkpoints of this node.
type Checkpoints interface {
	// List returns the checkpoints that lie on disk.
	List(ctx context.Context) ([]api.Digest, error)
	// Ensure makes a checkpoint ready to be restored: fetched, verified, loaded.
	Ensure(ctx context.Context, src api.CheckpointSource) error
	// Remove removes a checkpoint and its warm image.
	Remove(ctx context.Context, digest api.Digest) error
}

// Host tells what is left of the node's resources.
type Host interface {
	Available() (memory, disk api.Bytes)
}

// Recorder is told what happened, for metrics.
type Recorder interface {
	// Stage says that one stage of a start, a build or a fetch took so long.
	Stage(stage string, took time.Duration)
	// Failure says in which stage something failed.
	Failure(stage string)
}

// Options configure a pool.
type Options struct {
	Dir         string       // where the pool keeps its records
	Node        api.NodeInfo // what the preflight found
	Ports       PortRange
	PortFree    func(port int) bool // whether nobody listens there
	Starts      int                 // starts at the same time
	Runtime     Runtime
	Checkpoints Checkpoints
	Host        Host
	Recorder    Recorder
	Logger      *slog.Logger
}

func (o *Options) validate() error {
	var errs []error
	check := func(ok bool, what string) {
		if !ok {
			errs = append(errs, errors.New(what))
		}
	}
	check(o.Dir != "", "pool needs a directory")
	check(o.Starts > 0, "pool needs at least one start at a time")
	check(o.Node.Capacity > 0, "pool needs a capacity above 0")
	check(o.Runtime != nil && o.Checkpoints != nil && o.Host != nil && o.Recorder != nil && o.Logger != nil && o.PortFree != nil,
		"pool needs all of its parts")
	return errors.Join(append(errs, o.Ports.Validate())...)
}

const (
	// planPeriod bounds how late a deadline or a backoff is noticed.
	planPeriod = 200 * time.Millisecond
	// listPeriod bounds how late the death of a container is noticed.
	listPeriod = 5 * time.Second
)

// Pool is the owner of the local instances.
type Pool struct {
	opts    Options
	boot    string
	journal *journal
	ports   ports

	accepts chan acceptRequest
	results chan func(now time.Time) // what workers have to say, run by the owner

	// Below: the owner goroutine only.
	desired Desired
	actual  Actual
	records map[api.InstanceID]api.ObservedInstance // from before this process, until the first list
	listed  bool                                    // the first list has come
	listing bool
	lists   uint64 // sequence number of changes and lists
	removed map[api.InstanceID]uint64
	cancels map[api.InstanceID]context.CancelFunc
	running map[ActionKind]int
	portsOf map[api.TemplateRef]int // ports of builds
	workers sync.WaitGroup

	mu       sync.Mutex // guards the fields below
	snapshot api.Observed
	changed  chan struct{} // closed when snapshot is replaced
}

// New reads what an earlier process left in o.Dir. It starts nothing.
func New(o Options) (*Pool, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	j, err := openJournal(o.Dir)
	if err != nil {
		return nil, err
	}
	desired, err := j.loadDesired(time.Now())
	if err != nil {
		return nil, err
	}
	builds, err := j.loadBuilds()
	if err != nil {
		return nil, err
	}
	records, err := j.loadInstances()
	if err != nil {
		return nil, err
	}
	p := &Pool{
		opts: o, boot: api.NewRequestID(), journal: j,
		ports:   ports{rng: o.Ports, free: o.PortFree},
		accepts: make(chan acceptRequest),
		results: make(chan func(time.Time)),
		desired: desired,
		actual: Actual{
			Restores: o.Node.Restores, Reason: o.Node.Reason, Capacity: o.Node.Capacity,
			Instances: map[api.InstanceID]Instance{}, Checkpoints: map[api.Digest]Checkpoint{}, Builds: builds,
		},
		records: records,
		removed: map[api.InstanceID]uint64{},
		cancels: map[api.InstanceID]context.CancelFunc{},
		running: map[ActionKind]int{},
		portsOf: map[api.TemplateRef]int{},
		changed: make(chan struct{}),
	}
	return p, nil
}

// Run owns the instances until ctx ends. Starts and builds under way are then
// cancelled and cleaned up; running containers stay.
func (p *Pool) Run(ctx context.Context) error {
	work, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	tick := time.NewTicker(planPeriod)
	defer tick.Stop()
	list := time.NewTicker(listPeriod)
	defer list.Stop()

	p.list(work)
	for {
		select {
		case <-ctx.Done():
			cancel(errors.New("the agent is stopping"))
			p.drain()
			return nil
		case r := <-p.accepts:
			r.reply <- p.take(work, r.desired, time.Now())
			continue
		case apply := <-p.results:
			apply(time.Now())
		case <-list.C:
			p.list(work)
		case <-tick.C:
		}
		p.advance(work, time.Now())
		p.publish()
	}
}

// take accepts d and acts on it.
func (p *Pool) take(ctx context.Context, d api.Desired, now time.Time) acceptReply {
	if !p.listed {
		return acceptReply{err: errNotListed}
	}
	err := p.accept(d, now)
	p.advance(ctx, now)
	return acceptReply{observed: p.publish(), err: err}
}

// errNotListed is said until the first list: an answer without the containers
// of an earlier process would look as if they were gone.
var errNotListed = &api.Error{
	Code: api.CodeUnavailable, Message: "the agent has not seen this node's containers yet", RetryAfter: time.Second,
}

// drain applies the results of the workers that were just cancelled.
func (p *Pool) drain() {
	done := make(chan struct{})
	go func() {
		p.workers.Wait()
		close(done)
	}()
	for {
		select {
		case apply := <-p.results:
			apply(time.Now())
		case <-done:
			return
		}
	}
}

// advance plans and executes until nothing more can be done at once.
func (p *Pool) advance(ctx context.Context, now time.Time) {
	if !p.listed {
		return // what exists is not known yet
	}
	p.noteUnneeded(now)
	for again := true; again; {
		again = false
		for _, a := range Plan(p.desired, p.actual, now) {
			if p.execute(ctx, a, now) {
				again = true // a record changed: what follows from it is planned now
			}
		}
	}
}

// noteUnneeded keeps track of since when checkpoints are not needed.
func (p *Pool) noteUnneeded(now time.Time) {
	needed := p.desired.neededCheckpoints(p.actual.Builds)
	for digest, c := range p.actual.Checkpoints {
		switch {
		case needed[digest]:
			c.UnneededSince = time.Time{}
		case c.UnneededSince.IsZero():
			c.UnneededSince = now
		default:
			continue
		}
		p.actual.Checkpoints[digest] = c
	}
}

// Templates are looked up in the last Desired, which was validated.
func (p *Pool) template(ref api.TemplateRef) (api.TemplateRevision, error) {
	for _, t := range p.desired.Templates {
		if t.Ref() == ref {
			return t, nil
		}
	}
	return api.TemplateRevision{}, fmt.Errorf("template %s revision %d was not sent", ref.Name, ref.Revision)
}
