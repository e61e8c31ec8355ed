package lease

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/boss/demo-multiplexer/api"
)

const metricPrefix = "demo_scheduler_lease_"

// The outcomes of an acquire that are no error code, as a label.
const (
	outcomeLeased   = "leased"
	outcomeReplayed = "replayed"
)

// The stages of an acquire, as a label.
const (
	stagePick    = "pick"    // until an instance was found, or none
	stagePropose = "propose" // until the claim was applied
)

type metrics struct {
	acquires *prometheus.CounterVec   // by outcome
	stages   *prometheus.HistogramVec // by stage
	line     prometheus.Histogram     // of those who had to wait
}

func newMetrics() *metrics {
	return &metrics{
		acquires: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: metricPrefix + "acquires_total", Help: "Acquires by outcome: leased, replayed or an error code.",
		}, []string{"outcome"}),
		stages: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: metricPrefix + "acquire_stage_duration_seconds", Help: "Time of the stages of an acquire.",
			Buckets: []float64{.00005, .0001, .00025, .0005, .001, .002, .003, .005, .0075, .01, .015, .025, .05, .1, .25, .5, 1, 2.5},
		}, []string{"stage"}),
		line: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: metricPrefix + "line_wait_seconds", Help: "Time that acquires stood in line, whether or not they got an instance.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20, 30, 45, 60},
		}),
	}
}

func (m *metrics) acquired(replayed bool, err error) {
	outcome := outcomeLeased
	switch {
	case err != nil:
		outcome = string(api.CodeOf(err))
	case replayed:
		outcome = outcomeReplayed
	}
	m.acquires.WithLabelValues(outcome).Inc()
}

func (m *metrics) stage(name string, start time.Time) {
	m.stages.WithLabelValues(name).Observe(time.Since(start).Seconds())
}

func (m *metrics) waited(d time.Duration) { m.line.Observe(d.Seconds()) }

// register adds the metrics, and gauges that read s and w when they are asked.
func (m *metrics) register(r prometheus.Registerer, s *stock, w *watches) error {
	for _, c := range []prometheus.Collector{
		m.acquires, m.stages, m.line,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: metricPrefix + "line_length", Help: "Acquires that stand in line.",
		}, func() float64 { return float64(s.waiting()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: metricPrefix + "watchers", Help: "Streams that watch a lease.",
		}, func() float64 { return float64(w.count()) }),
	} {
		if err := r.Register(c); err != nil {
			return fmt.Errorf("register metrics of leases: %w", err)
		}
	}
	return nil
}
