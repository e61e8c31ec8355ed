package session

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The calls, as metrics name them.
const (
	callLimit = "limit"
	callPut   = "put"
	callGet   = "get"
)

type metrics struct {
	calls     *prometheus.HistogramVec
	fallbacks *prometheus.CounterVec
	dropped   prometheus.Counter
	queued    prometheus.Gauge
	up        prometheus.Gauge
}

// newMetrics works without a registerer: the figures are then shown nowhere.
func newMetrics(reg prometheus.Registerer) metrics {
	m := metrics{
		calls: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "demo_store_call_seconds", Help: "Time of calls to Valkey, by call and result.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .5},
		}, []string{"call", "result"}),
		fallbacks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "demo_store_fallbacks_total", Help: "Rate limit decisions made without Valkey, by policy.",
		}, []string{"policy"}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "demo_store_records_dropped_total", Help: "Session records that were not written.",
		}),
		queued: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "demo_store_records_queued", Help: "Session records waiting to be written.",
		}),
		up: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "demo_store_up", Help: "Whether Valkey answers.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.calls, m.fallbacks, m.dropped, m.queued, m.up)
	}
	return m
}

func (m metrics) observe(call string, start time.Time, err error) {
	result := "ok"
	if err != nil {
		result = "error"
	}
	m.calls.WithLabelValues(call, result).Observe(time.Since(start).Seconds())
}
