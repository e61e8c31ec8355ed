package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Group runs the parts of a process. Use one goroutine to build it and to
// call Run, once.
type Group struct {
	logger   *slog.Logger
	deadline time.Duration
	parts    []part
}

type part struct {
	name string
	run  func(context.Context) error
}

// New returns a group whose orderly stop may take deadline in all.
func New(logger *slog.Logger, deadline time.Duration) *Group {
	return &Group{logger: logger, deadline: deadline}
}

// Add appends a part. Its run blocks until its context ends; returning earlier,
// with or without an error, stops the whole group. Parts are stopped in reverse
// order, each before the one it was added after.
func (g *Group) Add(name string, run func(context.Context) error) {
	g.parts = append(g.parts, part{name, run})
}

// running is a part with what stops it.
type running struct {
	part
	cancel context.CancelCauseFunc
	done   chan error
}

// errStopping is the cause of the parts' contexts in an orderly stop.
var errStopping = errors.New("stopping in order")

// Run runs all parts until ctx ends or one of them returns, then stops them.
// It returns nil after an orderly stop, and the joined errors otherwise.
func (g *Group) Run(ctx context.Context) error {
	ended := make(chan string, len(g.parts))
	parts := make([]running, 0, len(g.parts))
	for _, p := range g.parts {
		partCtx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
		r := running{part: p, cancel: cancel, done: make(chan error, 1)}
		parts = append(parts, r)
		go func() {
			r.done <- p.run(partCtx)
			ended <- p.name
		}()
	}
	var early string
	select {
	case <-ctx.Done():
	case early = <-ended:
	}
	return g.stop(parts, early)
}

func (g *Group) stop(parts []running, early string) error {
	var errs []error
	if early == "" {
		g.logger.Info("stopping")
	} else {
		g.logger.Error("a part ended, stopping all", "part", early)
	}
	timer := time.NewTimer(g.deadline)
	defer timer.Stop()
	for i := len(parts) - 1; i >= 0; i-- {
		p := parts[i]
		p.cancel(errStopping)
		select {
		case err := <-p.done:
			switch {
			case err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, errStopping):
				errs = append(errs, fmt.Errorf("%s: %w", p.name, err))
			case p.name == early:
				errs = append(errs, fmt.Errorf("%s: ended without being asked", p.name))
			}
		case <-timer.C:
			// The rest is told to stop and not waited for.
			for _, rest := range parts[:i] {
				rest.cancel(errStopping)
			}
			return errors.Join(append(errs, fmt.Errorf("%s did not stop within %s", p.name, g.deadline))...)
		}
	}
	return errors.Join(errs...)
}
