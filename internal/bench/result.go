package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"
)

// result is one figure, in base units.
type result struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	Floor float64 `json:"floor,omitempty"` // of the same run; none where nothing compares
	Ratio float64 `json:"ratio,omitempty"` // value over floor
	Runs  int     `json:"runs"`
}

func newResult(name, unit string, value, floor float64, runs int) result {
	r := result{Name: name, Value: value, Unit: unit, Floor: floor, Runs: runs}
	if floor > 0 {
		r.Ratio = value / floor
	}
	return r
}

// latencyResults turns a load into its figures beside those of a floor; the
// zero floor is none.
func latencyResults(name string, s, floor sample) []result {
	n := len(s.latencies)
	return []result{
		newResult(name+".p50", "seconds", s.quantile(0.50).Seconds(), floor.quantile(0.50).Seconds(), n),
		newResult(name+".p99", "seconds", s.quantile(0.99).Seconds(), floor.quantile(0.99).Seconds(), n),
		newResult(name+".rate", "per second", s.rate(), floor.rate(), n),
	}
}

func (r result) text() string {
	switch r.Unit {
	case "seconds":
		return fmt.Sprintf("%.2f ms", r.Value*1e3)
	case "bytes":
		return fmt.Sprintf("%.1f MB", r.Value/1e6)
	default:
		return fmt.Sprintf("%.0f /s", r.Value)
	}
}

// printTable writes the figures for people.
func printTable(w io.Writer, results []result) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(t, "figure\tvalue\tof floor\truns\t")
	for _, r := range results {
		ratio := ""
		if r.Ratio > 0 {
			ratio = fmt.Sprintf("%.2fx", r.Ratio)
		}
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\t%d\t\n", r.Name, r.text(), ratio, r.Runs)
	}
	return t.Flush()
}

// writeResults writes the figures for programs.
func writeResults(file string, results []result) error {
	data, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return fmt.Errorf("encode results: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("make directory for results: %w", err)
	}
	if err := os.WriteFile(file, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("write results: %w", err)
	}
	return nil
}
