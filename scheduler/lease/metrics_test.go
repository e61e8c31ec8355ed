package lease

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

// figures returns the counters, gauges and numbers of observations of r.
func figures(t *testing.T, r prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatalf("Gather: %v", err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := strings.TrimPrefix(f.GetName(), metricPrefix)
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			out[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return out
}

func TestMetrics(t *testing.T) {
	inWorld(t, 2, func(t *testing.T, w *world) {
		r := prometheus.NewRegistry()
		if err := w.metrics.register(r, w.stock, w.watches); err != nil {
			t.Fatalf("register: %v", err)
		}
		if err := w.metrics.register(r, w.stock, w.watches); err == nil {
			t.Error("registering twice gave no error")
		}
		d := w.mustAcquire("key")
		w.mustAcquire("key")
		w.log.fail(overtaken)
		_, _, _ = w.acquire("")
		_, stop := w.Watch(d.ID)
		defer stop()
		q := w.queue(3, maxWait)
		want := map[string]float64{
			"acquires_total leased": 1, "acquires_total replayed": 1, "acquires_total exhausted": 1,
			"acquire_stage_duration_seconds pick": 6, "acquire_stage_duration_seconds propose": 2,
			"line_length": 3, "line_wait_seconds": 0, "watchers": 1,
		}
		if diff := cmp.Diff(want, figures(t, r)); diff != "" {
			t.Errorf("figures (-want +got):\n%s", diff)
		}
		q.done.Wait()
		got := figures(t, r)
		if got["line_length"] != 0 || got["line_wait_seconds"] != 3 {
			t.Errorf("after the wait, line_length = %v and line_wait_seconds counted %v, want 0 and 3", got["line_length"], got["line_wait_seconds"])
		}
	})
}

func TestNewNamesWhatIsMissing(t *testing.T) {
	_, err := New(Options{Log: newFakeLog(), Logger: slog.New(slog.DiscardHandler)})
	for _, what := range []string{"session records", "routes", "nodes", "public URL"} {
		if !strings.Contains(fmt.Sprint(err), "no "+what) {
			t.Errorf("New: %v, want an error about the missing %s", err, what)
		}
	}
}
