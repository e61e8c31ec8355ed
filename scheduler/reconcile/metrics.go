package reconcile

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/boss/demo-multiplexer/api"
)

const metricPrefix = "demo_scheduler_"

// The outcomes of an exchange with an agent, as a label.
const (
	exchangeDone    = "done"
	exchangeRefused = "refused" // the host lives
	exchangeFailed  = "failed"
)

type metrics struct {
	rounds    *prometheus.HistogramVec // by loop
	errors    *prometheus.CounterVec   // by loop
	exchanges *prometheus.HistogramVec // by outcome
	failures  *prometheus.CounterVec   // by reason
}

func newMetrics(r prometheus.Registerer, log Log) (*metrics, error) {
	m := &metrics{
		rounds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: metricPrefix + "loop_duration_seconds", Help: "Time of one round of a leader's loop.",
			Buckets: prometheus.ExponentialBuckets(0.000_1, 4, 9), // 0.1 ms to 6.5 s
		}, []string{"loop"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: metricPrefix + "loop_errors_total", Help: "Rounds of a leader's loop that failed.",
		}, []string{"loop"}),
		exchanges: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: metricPrefix + "node_exchange_duration_seconds", Help: "Time of one exchange with an agent.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 13), // 1 ms to 4 s
		}, []string{"outcome"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: metricPrefix + "instance_failures_total",
			Help: "Instances that failed: at their start, after it (died), started anew by their node (restart), or not done in time (timeout).",
		}, []string{"reason"}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.rounds, m.errors, m.exchanges, m.failures, viewCollector{log}} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics of reconcile: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) round(loop string, took time.Duration, err error) {
	m.rounds.WithLabelValues(loop).Observe(took.Seconds())
	if err != nil {
		m.errors.WithLabelValues(loop).Inc()
	}
}

func (m *metrics) exchanged(took time.Duration, err error) {
	outcome := exchangeDone
	switch {
	case err != nil && hostLives(err):
		outcome = exchangeRefused
	case err != nil:
		outcome = exchangeFailed
	}
	m.exchanges.WithLabelValues(outcome).Observe(took.Seconds())
}

var (
	targetDesc = prometheus.NewDesc(metricPrefix+"pool_target_instances",
		"Instances of a template that should be warm.", []string{"template"}, nil)
	instancesDesc = prometheus.NewDesc(metricPrefix+"pool_instances",
		"Instances of a template by state.", []string{"template", "state"}, nil)
	nodesDesc = prometheus.NewDesc(metricPrefix+"nodes",
		"Nodes by status.", []string{"status"}, nil)
	leasesDesc = prometheus.NewDesc(metricPrefix+"leases",
		"Leases that have not ended.", nil, nil)
)

// viewCollector counts what the view of this server holds when it is asked.
type viewCollector struct{ log Log }

// Describe implements prometheus.Collector.
func (c viewCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{targetDesc, instancesDesc, nodesDesc, leasesDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c viewCollector) Collect(ch chan<- prometheus.Metric) {
	v := c.log.View()
	gauge := func(d *prometheus.Desc, value int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(value), labels...)
	}
	for t := range v.Templates() {
		name, n := string(t.Spec.Name), v.TemplateCounts(t.Spec.Name)
		gauge(targetDesc, t.Spec.Pool.Warm, name)
		for s, count := range map[api.InstanceState]int{
			api.InstancePending: n.Pending, api.InstanceWarm: n.Warm, api.InstanceLeased: n.Leased,
			api.InstanceEnding: n.Ending, api.InstanceFailed: n.Failed,
		} {
			gauge(instancesDesc, count, name, string(s))
		}
	}
	nodes := map[api.NodeState]int{api.NodeUp: 0, api.NodeDown: 0}
	for n := range v.Nodes() {
		nodes[n.Status]++
	}
	for status, count := range nodes {
		gauge(nodesDesc, count, string(status))
	}
	gauge(leasesDesc, v.ActiveLeases())
}
