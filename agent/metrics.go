package agent

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/boss/demo-multiplexer/agent/checkpoint"
	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/internal/version"
)

func newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "demo_agent_build_info", Help: "1, with the version as its label.",
			ConstLabels: prometheus.Labels{"version": version.String()},
		}, func() float64 { return 1 }),
	)
	return r
}

// stageBuckets are dense from one millisecond to one second, where restores
// are, and reach to the minutes of a build or a fetch, in seconds.
func stageBuckets() []float64 {
	return []float64{.001, .002, .004, .008, .016, .032, .064, .096, .128, .192, .256, .384, .512, .768, 1, 2, 4, 8, 16, 32, 64, 128, 512}
}

// recorder implements pool.Recorder.
type recorder struct {
	stages   *prometheus.HistogramVec
	failures *prometheus.CounterVec
}

func newRecorder(registerer prometheus.Registerer) *recorder {
	r := &recorder{
		stages: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "demo_agent_stage_duration_seconds", Help: "Time that one stage of a start, a build or a fetch took.", Buckets: stageBuckets(),
		}, []string{"stage"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "demo_agent_failures_total", Help: "Failures by the stage or the work in which they happened.",
		}, []string{"stage"}),
	}
	registerer.MustRegister(r.stages, r.failures)
	return r
}

// Stage implements pool.Recorder.
func (r *recorder) Stage(stage string, took time.Duration) {
	r.stages.WithLabelValues(stage).Observe(took.Seconds())
}

// Failure implements pool.Recorder.
func (r *recorder) Failure(stage string) { r.failures.WithLabelValues(stage).Inc() }

var (
	instancesDesc  = prometheus.NewDesc("demo_agent_instances", "Instances on this node by state.", []string{"state"}, nil)
	capacityDesc   = prometheus.NewDesc("demo_agent_capacity_instances", "Instances on this node at most.", nil, nil)
	restoresDesc   = prometheus.NewDesc("demo_agent_restores", "1 where this node restores checkpoints, 0 where it only boots cold.", nil, nil)
	checkpointDesc = prometheus.NewDesc("demo_agent_checkpoint_bytes", "Size of the checkpoints in the store.", nil, nil)
	memoryDesc     = prometheus.NewDesc("demo_agent_memory_available_bytes", "Memory that could be used without swapping.", nil, nil)
	diskDesc       = prometheus.NewDesc("demo_agent_disk_available_bytes", "Free disk at the data directory, the reserve included.", nil, nil)
)

// instanceStates are always reported, so that a state with no instance reads
// zero and not nothing.
var instanceStates = []api.InstanceState{
	api.InstanceRestoring, api.InstanceWarm, api.InstanceLeased, api.InstanceEnding, api.InstanceFailed,
}

// gauges reads what there is when it is asked.
type gauges struct {
	gate  *gate
	store *checkpoint.Store
	host  host
}

// Describe implements prometheus.Collector.
func (g *gauges) Describe(to chan<- *prometheus.Desc) { prometheus.DescribeByCollect(g, to) }

// Collect implements prometheus.Collector.
func (g *gauges) Collect(to chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	memory, disk := g.host.Available()
	gauge(memoryDesc, float64(memory))
	gauge(diskDesc, float64(disk))
	gauge(checkpointDesc, float64(g.store.Bytes()))
	b, _ := g.gate.enter()
	if b == nil {
		return
	}
	observed := b.pool.Observed()
	counts := map[api.InstanceState]int{}
	for _, i := range observed.Instances {
		counts[i.State]++
	}
	for _, state := range instanceStates {
		gauge(instancesDesc, float64(counts[state]), string(state))
	}
	gauge(capacityDesc, float64(observed.Node.Capacity))
	restores := 0.0
	if observed.Node.Restores {
		restores = 1
	}
	gauge(restoresDesc, restores)
}
