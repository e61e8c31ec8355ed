package state

import (
	"bytes"
	"encoding/json"

	"github.com/boss/demo-multiplexer/api"
)

func (c PutTemplate) apply(x *tx) Result {
	if !validKey(string(c.Spec.Name)) {
		return invalid("the template has no usable name")
	}
	old, known := x.templates.Get([]byte(c.Spec.Name))
	if known && same(old.Spec, c.Spec) {
		return Result{Template: old}
	}
	t := &Template{Spec: c.Spec, Revision: 1, AppliedAt: x.now}
	if known {
		t.Revision = old.Revision + 1
	}
	x.putTemplate(t)
	return Result{Template: t}
}

// same compares what would be written: an empty list equals a missing one, as
// it does after a snapshot.
func same[T any](a, b T) bool {
	return bytes.Equal(mustJSON(a), mustJSON(b))
}

// mustJSON encodes a record. Records hold nothing that JSON refuses but floats
// that are no numbers, which cannot come out of a log.
func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("state: a record cannot be encoded: " + err.Error())
	}
	return b
}

// current refuses a template reference that is unknown or outdated.
func (x *tx) current(ref api.TemplateRef) (Result, bool) {
	t, ok := x.templates.Get([]byte(ref.Name))
	if !ok {
		return notFound("there is no template %s", ref.Name), false
	}
	if t.Revision != ref.Revision {
		return conflict("revision %d of template %s is not the current one, which is %d", ref.Revision, ref.Name, t.Revision), false
	}
	return Result{}, true
}

func (c StartBuild) apply(x *tx) Result {
	if !validKey(string(c.Key.HostClass)) {
		return invalid("the build names no usable host class")
	}
	if refusal, ok := x.current(c.Key.Template); !ok {
		return refusal
	}
	builder, ok := x.nodes.Get([]byte(c.Builder))
	switch {
	case !ok:
		return notFound("there is no node %s to build on", c.Builder)
	case builder.Status != api.NodeUp:
		return conflict("node %s is down and cannot build", c.Builder)
	case builder.HostClass != c.Key.HostClass:
		return conflict("node %s is of host class %s and cannot build for %s", c.Builder, builder.HostClass, c.Key.HostClass)
	}
	attempt := uint64(1)
	if old, known := x.checkpoints.Get(c.Key.bytes()); known {
		if old.State == api.CheckpointReady || old.State == api.CheckpointBuilding && x.nodeUp(old.Builder) {
			return conflict("the checkpoint of revision %d of template %s for host class %s is already %s",
				c.Key.Template.Revision, c.Key.Template.Name, c.Key.HostClass, old.State)
		}
		attempt = old.Attempt + 1
	}
	if c.Attempt != attempt {
		return conflict("the next attempt of this build is %d, not %d", attempt, c.Attempt)
	}
	x.putCheckpoint(&Checkpoint{
		Key: c.Key, State: api.CheckpointBuilding, Builder: c.Builder, Attempt: c.Attempt, ChangedAt: x.now,
	})
	return Result{}
}

func (c FinishBuild) apply(x *tx) Result {
	old, ok := x.checkpoints.Get(c.Key.bytes())
	switch {
	case !ok:
		return notFound("there is no such build")
	case old.Attempt != c.Attempt:
		return conflict("attempt %d of this build is over; attempt %d counts", c.Attempt, old.Attempt)
	case old.State != api.CheckpointBuilding:
		return conflict("this build is already %s", old.State)
	}
	done := *old
	done.ChangedAt = x.now
	done.Stages = c.Stages
	if c.Digest != "" {
		done.State, done.Digest, done.Size = api.CheckpointReady, c.Digest, c.Size
	} else {
		done.State, done.Reason = api.CheckpointFailed, c.Reason
	}
	x.putCheckpoint(&done)
	return Result{}
}

func (c RemoveCheckpoint) apply(x *tx) Result {
	old, ok := x.checkpoints.Get(c.Key.bytes())
	if !ok {
		return notFound("there is no such checkpoint")
	}
	if t, known := x.templates.Get([]byte(c.Key.Template.Name)); known && t.Revision == c.Key.Template.Revision {
		return conflict("the checkpoint belongs to the current revision of template %s", c.Key.Template.Name)
	}
	// A scan of the template's instances: the command is proposed once per
	// template revision and host class, so an index would cost more than it saves.
	it := x.byTemplate.Root().Iterator()
	it.SeekPrefix(append([]byte(c.Key.Template.Name), 0))
	for _, i, more := it.Next(); more; _, i, more = it.Next() {
		if old.Digest != "" && i.Checkpoint == old.Digest {
			return conflict("instance %s still uses the checkpoint", i.ID)
		}
	}
	x.deleteCheckpoint(c.Key)
	return Result{}
}
