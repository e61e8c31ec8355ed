package cluster

import (
	"bytes"
	"log/slog"

	"github.com/hashicorp/memberlist"
	"github.com/prometheus/client_golang/prometheus"
)

// The library calls these with its own locks held: they only copy and hand
// off.

// delegate answers what this member says of itself.
type delegate struct{ g *Gossip }

// NodeMeta implements memberlist.Delegate.
func (d *delegate) NodeMeta(int) []byte { return d.g.ownMeta() }

// NotifyMsg implements memberlist.Delegate: there are no messages.
func (d *delegate) NotifyMsg([]byte) {}

// GetBroadcasts implements memberlist.Delegate.
func (d *delegate) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState implements memberlist.Delegate.
func (d *delegate) LocalState(bool) []byte { return nil }

// MergeRemoteState implements memberlist.Delegate.
func (d *delegate) MergeRemoteState([]byte, bool) {}

type events struct{ g *Gossip }

// NotifyJoin implements memberlist.EventDelegate.
func (e events) NotifyJoin(n *memberlist.Node) { e.g.table.seen(n.Name, bytes.Clone(n.Meta)) }

// NotifyUpdate implements memberlist.EventDelegate.
func (e events) NotifyUpdate(n *memberlist.Node) { e.g.table.seen(n.Name, bytes.Clone(n.Meta)) }

// NotifyLeave implements memberlist.EventDelegate.
func (e events) NotifyLeave(n *memberlist.Node) { e.g.table.gone(n.Name) }

// NotifyConflict implements memberlist.ConflictDelegate.
func (e events) NotifyConflict(existing, other *memberlist.Node) {
	e.g.logger.Warn("two members have one name; give each its own id", "name", existing.Name,
		"address", existing.Address(), "other", other.Address())
}

// logWriter hands the library's lines to slog.
type logWriter struct{ logger *slog.Logger }

// Write implements io.Writer. All of it is for debugging: members come and go
// and strangers knock, and what matters shows in the table.
func (w logWriter) Write(line []byte) (int, error) {
	w.logger.Debug("memberlist", "line", string(bytes.TrimSpace(line)))
	return len(line), nil
}

func register(r prometheus.Registerer, t *table) error {
	return r.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "demo_gossip_members", Help: "Members that gossip sees alive, this one included.",
	}, func() float64 { return float64(t.alive()) }))
}
