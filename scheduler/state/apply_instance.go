package state

import "github.com/boss/demo-multiplexer/api"

func (c CreateInstance) apply(x *tx) Result {
	if !validKey(string(c.ID)) || !validKey(c.Host) {
		return invalid("the instance has no usable ID or host name")
	}
	if refusal, ok := x.current(c.Template); !ok {
		return refusal
	}
	if _, known := x.nodes.Get([]byte(c.Node)); !known {
		return notFound("there is no node %s", c.Node)
	}
	if !x.nodeUp(c.Node) {
		return conflict("node %s is down", c.Node)
	}
	if _, taken := x.instances.Get([]byte(c.ID)); taken {
		return conflict("instance %s exists already", c.ID)
	}
	if other, taken := x.byHost.Get([]byte(c.Host)); taken {
		return conflict("the host name %s belongs to instance %s", c.Host, other)
	}
	i := &Instance{
		ID: c.ID, Template: c.Template, Node: c.Node, Checkpoint: c.Checkpoint, Host: c.Host,
		State: api.InstancePending, Revision: 1, CreatedAt: x.now, ChangedAt: x.now,
	}
	x.putInstance(i)
	return Result{Instance: i}
}

// instance returns an instance in the revision that the proposer saw.
func (x *tx) instance(id api.InstanceID, revision uint64) (*Instance, Result, bool) {
	i, ok := x.instances.Get([]byte(id))
	if !ok {
		return nil, notFound("there is no instance %s", id), false
	}
	if i.Revision != revision {
		return nil, conflict("instance %s has changed since; look again", id), false
	}
	return i, Result{}, true
}

func (c WarmInstance) apply(x *tx) Result {
	if c.Address == "" {
		return invalid("a warm instance needs an address")
	}
	i, ok := x.instances.Get([]byte(c.ID))
	if !ok {
		return notFound("there is no instance %s", c.ID)
	}
	if i.State != api.InstancePending {
		return conflict("instance %s is %s, not pending", c.ID, i.State)
	}
	return Result{Instance: x.changeInstance(i, func(n *Instance) {
		n.State, n.Address, n.Credentials, n.Stages = api.InstanceWarm, c.Address, c.Credentials, c.Stages
	})}
}

func (c FailInstance) apply(x *tx) Result {
	i, refusal, ok := x.instance(c.ID, c.Revision)
	if !ok {
		return refusal
	}
	if i.State == api.InstanceEnding || i.State == api.InstanceFailed {
		return conflict("instance %s is already %s", c.ID, i.State)
	}
	return Result{Instance: x.changeInstance(i, func(n *Instance) {
		n.State, n.Reason = api.InstanceFailed, c.Reason
	})}
}

func (c EndInstance) apply(x *tx) Result {
	i, refusal, ok := x.instance(c.ID, c.Revision)
	if !ok {
		return refusal
	}
	switch i.State {
	case api.InstanceLeased:
		return conflict("instance %s is leased; release its lease instead", c.ID)
	case api.InstanceEnding, api.InstanceFailed:
		return conflict("instance %s is already %s", c.ID, i.State)
	}
	return Result{Instance: x.changeInstance(i, func(n *Instance) {
		n.State, n.Reason = api.InstanceEnding, c.Reason
	})}
}

func (c RemoveInstance) apply(x *tx) Result {
	i, ok := x.instances.Get([]byte(c.ID))
	if !ok {
		return notFound("there is no instance %s", c.ID)
	}
	if i.State != api.InstanceEnding && i.State != api.InstanceFailed {
		return conflict("instance %s is %s; end it first", c.ID, i.State)
	}
	x.deleteInstance(i)
	return Result{}
}
