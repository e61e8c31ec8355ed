package main

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestLoadCountsAndMeasures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		got, err := load(4, 100, func() error { time.Sleep(10 * time.Millisecond); return nil })
		if err != nil {
			t.Fatal(err)
		}
		if len(got.latencies) != 100 || got.quantile(0.5) != 10*time.Millisecond || got.quantile(1) != 10*time.Millisecond {
			t.Errorf("got %d calls, median %s; want 100 of 10ms", len(got.latencies), got.quantile(0.5))
		}
		if got.elapsed != 250*time.Millisecond || got.rate() != 400 {
			t.Errorf("got %s and %.0f/s, want 250ms and 400/s: four at a time", got.elapsed, got.rate())
		}
	})
}

func TestLoadStopsAtTheFirstError(t *testing.T) {
	calls, broken := 0, errors.New("broken")
	_, err := load(1, 100, func() error {
		calls++
		if calls == 3 {
			return broken
		}
		return nil
	})
	if !errors.Is(err, broken) || calls != 3 {
		t.Errorf("got error %v after %d calls, want %v after 3", err, calls, broken)
	}
}
