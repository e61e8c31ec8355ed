package consensus

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const metricPrefix = "demo_scheduler_raft_"

// The outcomes of a proposal, as a label.
const (
	outcomeApplied     = "applied"
	outcomeRefused     = "refused"
	outcomeNotLeader   = "not_leader"
	outcomeUnavailable = "unavailable"
	outcomeUncertain   = "uncertain"
)

type nodeMetrics struct {
	proposals *prometheus.CounterVec   // by outcome
	propose   prometheus.Histogram     // from the call to its outcome
	batch     prometheus.Histogram     // commands per log entry
	apply     prometheus.Histogram     // decoding and applying one entry
	snapshot  *prometheus.HistogramVec // by operation
}

func newMetrics() *nodeMetrics {
	fast := prometheus.ExponentialBuckets(0.000_05, 2, 16) // 50 µs to 1.6 s
	return &nodeMetrics{
		proposals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: metricPrefix + "proposals_total", Help: "Proposed commands by outcome.",
		}, []string{"outcome"}),
		propose: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: metricPrefix + "propose_duration_seconds", Help: "Time from a proposal to its outcome.", Buckets: fast,
		}),
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: metricPrefix + "batch_commands", Help: "Commands per log entry.", Buckets: prometheus.ExponentialBuckets(1, 2, 9),
		}),
		apply: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: metricPrefix + "apply_duration_seconds", Help: "Time to decode and apply one log entry.", Buckets: fast,
		}),
		snapshot: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: metricPrefix + "snapshot_duration_seconds", Help: "Time to write (persist) or read (restore) a snapshot.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 16), // 1 ms to 33 s
		}, []string{"operation"}),
	}
}

func (m *nodeMetrics) snapshotTook(operation string, start time.Time) {
	m.snapshot.WithLabelValues(operation).Observe(time.Since(start).Seconds())
}

// register adds the metrics of n, and gauges that read n when they are asked.
func (m *nodeMetrics) register(r prometheus.Registerer, n *Node) error {
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: metricPrefix + name, Help: help}, value)
	}
	for _, c := range []prometheus.Collector{
		m.proposals, m.propose, m.batch, m.apply, m.snapshot,
		gauge("leader", "1 on the scheduler that leads.", func() float64 {
			if self, _ := n.Leader(); self {
				return 1
			}
			return 0
		}),
		gauge("term", "Current term.", func() float64 { return float64(n.Term()) }),
		gauge("applied_index", "Index of the last applied log entry.", func() float64 { return float64(n.AppliedIndex()) }),
		gauge("queue_commands", "Proposals that wait for a log entry.", func() float64 { return float64(len(n.queue)) }),
		gauge("state_revision", "Commands in the history of the state.", func() float64 { return float64(n.View().Revision()) }),
	} {
		if err := r.Register(c); err != nil {
			return fmt.Errorf("register metrics of consensus: %w", err)
		}
	}
	return nil
}
