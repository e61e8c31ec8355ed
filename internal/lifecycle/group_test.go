package lifecycle

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestStopsInReverseOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []string // written by one part at a time: each stops before the next is told to
		g := New(slog.New(slog.DiscardHandler), time.Minute)
		for _, name := range []string{"a", "b", "c"} {
			g.Add(name, func(ctx context.Context) error {
				<-ctx.Done()
				time.Sleep(time.Second)
				order = append(order, name)
				return ctx.Err()
			})
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if err := g.Run(ctx); err != nil {
			t.Errorf("orderly stop: got %v, want no error", err)
		}
		if diff := cmp.Diff(order, []string{"c", "b", "a"}); diff != "" {
			t.Errorf("order of stops (-got +want):\n%s", diff)
		}
	})
}

func TestOneEndsAll(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		name string
		err  error
		want string
	}{{"with an error", broken, "second: broken"}, {"without one", nil, "second: ended without being asked"}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				stopped := false
				g := New(slog.New(slog.DiscardHandler), time.Minute)
				g.Add("first", func(ctx context.Context) error { <-ctx.Done(); stopped = true; return nil })
				g.Add("second", func(context.Context) error { return c.err })
				err := g.Run(t.Context())
				if err == nil || err.Error() != c.want || !stopped {
					t.Errorf("got %v, first stopped %v; want %q, true", err, stopped, c.want)
				}
			})
		})
	}
}

func TestAllErrorsAreJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(slog.New(slog.DiscardHandler), time.Minute)
		one, two := errors.New("one"), errors.New("two")
		g.Add("first", func(ctx context.Context) error { <-ctx.Done(); return one })
		g.Add("second", func(context.Context) error { return two })
		if err := g.Run(t.Context()); !errors.Is(err, one) || !errors.Is(err, two) {
			t.Errorf("got %v, want both errors", err)
		}
	})
}

func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		told := false
		g := New(slog.New(slog.DiscardHandler), 10*time.Second)
		g.Add("behind", func(ctx context.Context) error { <-ctx.Done(); told = true; return nil })
		g.Add("stuck", func(context.Context) error { <-release; return nil })
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		start := time.Now()
		err := g.Run(ctx)
		if err == nil || !strings.Contains(err.Error(), "stuck did not stop within 10s") || time.Since(start) != 10*time.Second {
			t.Errorf("got %v after %s", err, time.Since(start))
		}
		synctest.Wait()
		if !told {
			t.Error("the part behind the stuck one was never told to stop")
		}
		close(release)
	})
}
