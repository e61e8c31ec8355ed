package consensus

import (
	"cmp"
	"log/slog"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/boss/demo-multiplexer/api"
)

// Options configure a node. ID, Logger and, unless all stores and the
// transport are given, DataDir and Bind are required.
type Options struct {
	ID        api.ServerID
	DataDir   string // of the log and the snapshots; of one process only
	Bind      string // address and port to listen on
	Advertise string // address and port at which the others reach this node; default: Bind

	Timing    Timing
	Snapshots Snapshots
	// QueueDepth is how many proposals may wait for a log entry before further
	// ones are shed; default 4096.
	QueueDepth int

	Logger     *slog.Logger
	Registerer prometheus.Registerer // nil: no metrics

	// StreamLayer replaces plain TCP, for example by mutual TLS. It is closed
	// with the node.
	StreamLayer raft.StreamLayer

	// The parts below replace network and disk in tests.
	Transport     raft.Transport // must also know pre-votes, as all of the library do
	LogStore      raft.LogStore
	StableStore   raft.StableStore
	SnapshotStore raft.SnapshotStore
}

// Timing says how fast a lost leader is replaced. The defaults of 300 ms each
// gave the next successful write 0.66 s after a kill, without false elections
// on a busy machine; shorter ones flap.
type Timing struct {
	Heartbeat time.Duration // a follower that hears nothing for so long stands for election
	Election  time.Duration // a candidate that was not elected for so long tries again
	Lease     time.Duration // a leader that reaches no majority for so long steps down
}

// Snapshots say when the log is replaced by a snapshot.
type Snapshots struct {
	Interval  time.Duration // how often to look, with jitter up to twice as long
	Threshold uint64        // log entries since the last snapshot that call for the next
	Trailing  uint64        // log entries kept behind a snapshot, for followers that lag
	Retain    int           // snapshots kept on disk
}

const (
	defaultTiming     = 300 * time.Millisecond
	defaultQueueDepth = 4096

	// A snapshot while requests run triples their slowest percentile, so they
	// are rare; replaying this many entries takes a few seconds.
	defaultSnapshotInterval  = 2 * time.Minute
	defaultSnapshotThreshold = 65_536
	defaultSnapshotTrailing  = 16_384
	defaultSnapshotRetain    = 2
)

func (o Options) withDefaults() Options {
	o.Timing.Heartbeat = cmp.Or(o.Timing.Heartbeat, defaultTiming)
	o.Timing.Election = cmp.Or(o.Timing.Election, defaultTiming)
	o.Timing.Lease = cmp.Or(o.Timing.Lease, defaultTiming)
	o.Snapshots.Interval = cmp.Or(o.Snapshots.Interval, defaultSnapshotInterval)
	o.Snapshots.Threshold = cmp.Or(o.Snapshots.Threshold, defaultSnapshotThreshold)
	o.Snapshots.Trailing = cmp.Or(o.Snapshots.Trailing, defaultSnapshotTrailing)
	o.Snapshots.Retain = cmp.Or(o.Snapshots.Retain, defaultSnapshotRetain)
	o.QueueDepth = cmp.Or(o.QueueDepth, defaultQueueDepth)
	return o
}

// onDisk reports whether the node keeps anything in DataDir.
func (o Options) onDisk() bool {
	return o.LogStore == nil || o.StableStore == nil || o.SnapshotStore == nil
}

func (o Options) validate() error {
	var fields []api.FieldError
	check := func(ok bool, field, reason string) {
		if !ok {
			fields = append(fields, api.FieldError{Field: field, Reason: reason})
		}
	}
	check(api.ValidName(string(o.ID)), "id", "must be a lower-case DNS label such as s1")
	check(o.Logger != nil, "logger", "must be given")
	check(!o.onDisk() || o.DataDir != "", "data_dir", "must name a directory")
	check(o.Transport != nil || o.StreamLayer != nil || o.Bind != "", "bind", "must be an address and port to listen on")
	check(o.QueueDepth > 0, "queue_depth", "must be above 0")
	if err := raft.ValidateConfig(o.raftConfig()); err != nil {
		check(false, "timing", err.Error())
	}
	return api.InvalidFields("the options of consensus are not valid", fields)
}

const (
	// maxAppendEntries is how many entries go to a follower, and to the FSM, at
	// once. Measured best together with shared entries.
	maxAppendEntries = 256
	// commitTimeout is how long an idle leader waits at most, twice at worst,
	// before it tells followers what is committed. Reads of followers lag by it.
	commitTimeout = 50 * time.Millisecond
)

func (o Options) raftConfig() *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(o.ID)
	c.HeartbeatTimeout = o.Timing.Heartbeat
	c.ElectionTimeout = o.Timing.Election
	c.LeaderLeaseTimeout = o.Timing.Lease
	c.CommitTimeout = commitTimeout
	c.MaxAppendEntries = maxAppendEntries
	c.SnapshotInterval = o.Snapshots.Interval
	c.SnapshotThreshold = o.Snapshots.Threshold
	c.TrailingLogs = o.Snapshots.Trailing
	c.NoLegacyTelemetry = true
	// A removed server must not elect itself alone; it waits until an operator
	// stops it or adds it again.
	c.ShutdownOnRemove = false
	return c
}
