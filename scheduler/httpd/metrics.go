package httpd

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/internal/httpx"
)

// metrics work without a registerer: the figures are then shown nowhere.
type metrics struct {
	forwards *prometheus.HistogramVec
	limited  prometheus.Counter
	foreign  prometheus.Counter
	streams  prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) metrics {
	m := metrics{
		forwards: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "demo_http_forward_seconds", Help: "Time of requests sent on to the leader, by result.", Buckets: httpx.Buckets(),
		}, []string{"result"}),
		limited: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "demo_http_limited_total", Help: "Acquires refused because the client had used up its quota.",
		}),
		foreign: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "demo_http_wrong_cluster_tokens_total", Help: "Requests that showed a wrong cluster token. Where it grows with the traffic, schedulers were given different tokens.",
		}),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "demo_http_streams", Help: "Open status streams.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.forwards, m.limited, m.foreign, m.streams)
	}
	return m
}

// forwarded counts one attempt to send a request on.
func (m metrics) forwarded(began time.Time, err error) {
	result := string(api.CodeOf(err))
	if err == nil {
		result = "ok"
	}
	m.forwards.WithLabelValues(result).Observe(time.Since(began).Seconds())
}
