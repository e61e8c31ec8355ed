package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestResults(t *testing.T) {
	ms := func(n ...int) (s sample) {
		for _, i := range n {
			s.latencies = append(s.latencies, time.Duration(i)*time.Millisecond)
			s.elapsed += time.Duration(i) * time.Millisecond
		}
		return s
	}
	floor := ms(1, 1).with(ms(1, 1))
	got := append(latencyResults("acquire", ms(3, 1).with(ms(2, 2)), floor), latencyResults("floor", floor, sample{})...)
	got = append(got, newResult("agent.resident", "bytes", 50e6, 0, 2))
	want := []result{
		{Name: "acquire.p50", Value: 0.002, Unit: "seconds", Floor: 0.001, Ratio: 2, Runs: 4},
		{Name: "acquire.p99", Value: 0.003, Unit: "seconds", Floor: 0.001, Ratio: 3, Runs: 4},
		{Name: "acquire.rate", Value: 500, Unit: "per second", Floor: 1000, Ratio: 0.5, Runs: 4},
		{Name: "floor.p50", Value: 0.001, Unit: "seconds", Runs: 4},
		{Name: "floor.p99", Value: 0.001, Unit: "seconds", Runs: 4},
		{Name: "floor.rate", Value: 1000, Unit: "per second", Runs: 4},
		{Name: "agent.resident", Value: 50e6, Unit: "bytes", Runs: 2},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("results (-want +got):\n%s", diff)
	}

	var table strings.Builder
	if err := printTable(&table, got); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"2.00 ms     2.00x     4", "500 /s     0.50x     4", "50.0 MB"} {
		if !strings.Contains(table.String(), text) {
			t.Errorf("the table lacks %q:\n%s", text, &table)
		}
	}

	file := filepath.Join(t.TempDir(), "results", "bench.json")
	if err := writeResults(file, got); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var back []map[string]any
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	first := map[string]any{"name": "acquire.p50", "value": 0.002, "unit": "seconds", "floor": 0.001, "ratio": 2.0, "runs": 4.0}
	if diff := cmp.Diff(first, back[0]); diff != "" {
		t.Errorf("file (-want +got):\n%s", diff)
	}
}
