package edge

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/boss/demo-multiplexer/api"
)

// metrics are those of one edge. Without a registerer they are kept but shown
// nowhere.
type metrics struct {
	duration *prometheus.HistogramVec
	failures *prometheus.CounterVec
	refused  prometheus.Counter
	repairs  prometheus.Counter
	routes   prometheus.Gauge
	skipped  prometheus.Gauge
}

func newMetrics(id api.EdgeID, reg prometheus.Registerer) metrics {
	m := metrics{
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "demo_edge_push_seconds", Help: "Time of a push of routes to an edge, by kind.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}, []string{"kind"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "demo_edge_push_failures_total", Help: "Pushes that failed, by reason: changed by somebody else, or error.",
		}, []string{"reason"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "demo_edge_refused_tables_total", Help: "Tables older than what the edge held.",
		}),
		repairs: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "demo_edge_repairs_total", Help: "Times an edge had lost or changed its routes.",
		}),
		routes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "demo_edge_routes", Help: "Routes that the edge serves.",
		}),
		skipped: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "demo_edge_skipped_routes", Help: "Routes of the last table that no edge can serve.",
		}),
	}
	if reg != nil {
		reg = prometheus.WrapRegistererWith(prometheus.Labels{"edge": string(id)}, reg)
		reg.MustRegister(m.duration, m.failures, m.refused, m.repairs, m.routes, m.skipped)
	}
	return m
}

func (m metrics) pushed(kind string, took time.Duration) {
	m.duration.WithLabelValues(kind).Observe(took.Seconds())
}

func (m metrics) failed(err error) {
	reason := "error"
	if errors.Is(err, errChanged) {
		reason = "changed"
	}
	m.failures.WithLabelValues(reason).Inc()
}
