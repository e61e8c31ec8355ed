package state

import "github.com/boss/demo-multiplexer/api"

func (c PutNode) apply(x *tx) Result {
	n := c.Node
	if !validKey(string(n.ID)) {
		return invalid("the node has no usable ID")
	}
	n.Status, n.ChangedAt = api.NodeUp, x.now
	if old, known := x.nodes.Get([]byte(n.ID)); known {
		unchanged := n
		unchanged.ChangedAt = old.ChangedAt
		if unchanged == *old {
			return Result{}
		}
	}
	x.putNode(&n)
	return Result{}
}

func (c SetNodeStatus) apply(x *tx) Result {
	if c.Status != api.NodeUp && c.Status != api.NodeDown {
		return invalid("%q is not a status of a node; use up or down", c.Status)
	}
	old, ok := x.nodes.Get([]byte(c.Node))
	if !ok {
		return notFound("there is no node %s", c.Node)
	}
	if old.Status == c.Status && old.Reason == c.Reason {
		return Result{}
	}
	n := *old
	n.Status, n.Reason, n.ChangedAt = c.Status, c.Reason, x.now
	x.putNode(&n)
	return Result{}
}

func (c SetClusterVersion) apply(x *tx) Result {
	if c.Version < x.clusterVersion {
		return conflict("the cluster version is %d and never goes down", x.clusterVersion)
	}
	x.clusterVersion = c.Version
	return Result{}
}
