package pool

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/boss/demo-multiplexer/api"
)

type acceptRequest struct {
	desired api.Desired
	reply   chan acceptReply // room for one, so a departed caller cannot stop the owner
}

type acceptReply struct {
	observed api.Observed
	err      error
}

// Accept takes what the leader desires and returns what is observed right
// after. The error has code conflict for a term or generation older than what
// was accepted, invalid for a Desired that contradicts itself, and unavailable
// where it could not be stored.
func (p *Pool) Accept(ctx context.Context, d api.Desired) (api.Observed, error) {
	if err := validate(d); err != nil {
		return api.Observed{}, err
	}
	r := acceptRequest{desired: d, reply: make(chan acceptReply, 1)}
	select {
	case p.accepts <- r:
	case <-ctx.Done():
		return api.Observed{}, api.Errorf(api.CodeUnavailable, "the agent is busy or stopping: %w", context.Cause(ctx))
	}
	select {
	case reply := <-r.reply:
		return reply.observed, reply.err
	case <-ctx.Done():
		return api.Observed{}, api.Errorf(api.CodeUncertain, "the agent did not answer in time: %w", context.Cause(ctx))
	}
}

// accept fences, stores and adopts d.
func (p *Pool) accept(d api.Desired, now time.Time) error {
	if d.Term < p.desired.Term || d.Term == p.desired.Term && d.Generation < p.desired.Generation {
		return api.Errorf(api.CodeConflict, "term %d generation %d is older than term %d generation %d, which this node has accepted",
			d.Term, d.Generation, p.desired.Term, p.desired.Generation)
	}
	next := Desired{Desired: d, Heard: p.desired.Heard, Deadlines: map[api.InstanceID]time.Time{}}
	if next.Heard.IsZero() {
		next.Heard = now
	}
	same := d.Term == p.desired.Term && d.Generation == p.desired.Generation
	for _, want := range d.Instances {
		if deadline, ok := p.deadline(want, same, now); ok {
			next.Deadlines[want.ID] = deadline
		}
	}
	if !same || p.desired.Heard.IsZero() {
		if err := p.journal.saveDesired(next, now); err != nil {
			p.opts.Logger.Error("cannot store what the leader desires", "err", err)
			return &api.Error{Code: api.CodeUnavailable, Message: "this node cannot store what it was told; look at its disk", Err: err}
		}
		p.opts.Logger.Debug("desired state accepted", "term", d.Term, "generation", d.Generation, "instances", len(d.Instances))
	}
	if d.Term != p.desired.Term || p.desired.Heard.IsZero() {
		p.opts.Logger.Info("following the leader", "term", d.Term, "generation", d.Generation)
	}
	p.desired = next
	for _, want := range d.Instances {
		if i, ok := p.actual.Instances[want.ID]; ok && !i.Named {
			i.Named = true
			p.actual.Instances[want.ID] = i
		}
	}
	return nil
}

// deadline returns when the lease of want ends on our clock.
func (p *Pool) deadline(want api.DesiredInstance, same bool, now time.Time) (time.Time, bool) {
	old, had := p.desired.Deadlines[want.ID]
	if i, ok := p.actual.Instances[want.ID]; ok && i.Epoch > want.Epoch {
		p.opts.Logger.Warn("an older epoch was refused", "instance", want.ID, "epoch", want.Epoch, "have", i.Epoch)
		return old, had
	}
	if want.State != api.InstanceLeased {
		return time.Time{}, false
	}
	deadline := now.Add(want.ExpiresIn.D())
	if same && had && old.Before(deadline) {
		return old, true // the same word again, later on its way, gives no more time
	}
	return deadline, true
}

// validate refuses a Desired that contradicts itself or whose names could not
// be used as file, container or host names.
func validate(d api.Desired) error {
	var fields []api.FieldError
	check := func(ok bool, reason, format string, args ...any) {
		if !ok {
			fields = append(fields, api.FieldError{Field: fmt.Sprintf(format, args...), Reason: reason})
		}
	}
	templates := map[api.TemplateRef]bool{}
	for n, t := range d.Templates {
		check(t.Template.Validate() == nil, "is not a valid template", "templates[%d]", n)
		templates[t.Ref()] = true
	}
	for n, b := range d.Builds {
		check(templates[b.Template], "names a template that was not sent", "builds[%d].template", n)
	}
	for n, c := range d.Checkpoints {
		_, err := api.ParseDigest(string(c.Digest))
		check(err == nil, "is not a SHA-256", "checkpoints[%d].digest", n)
		for _, s := range c.Sources {
			u, err := url.Parse(s)
			check(err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "", "is not a base URL", "checkpoints[%d].sources", n)
		}
	}
	seen := map[api.InstanceID]bool{}
	for n, i := range d.Instances {
		check(api.ValidName(string(i.ID)) && !seen[i.ID], "must be a lower-case DNS label that comes once", "instances[%d].id", n)
		seen[i.ID] = true
		check(templates[i.Template], "names a template that was not sent", "instances[%d].template", n)
		check(i.State == api.InstanceWarm || i.State == api.InstanceLeased, "must be warm or leased", "instances[%d].state", n)
		if i.Checkpoint != "" {
			_, err := api.ParseDigest(string(i.Checkpoint))
			check(err == nil, "is not a SHA-256", "instances[%d].checkpoint", n)
		}
		u, err := url.Parse(i.URL)
		check(err == nil && u.Hostname() == i.Host && i.Host != "", "must be a URL with the instance's host", "instances[%d].url", n)
		check(i.State == api.InstanceWarm || i.ExpiresIn > 0, "must say how long the lease lasts", "instances[%d].expires_in", n)
	}
	return api.InvalidFields("the desired state is not valid", fields)
}
