// Command dev runs a whole demo-multiplexer in one process, for people who
// integrate its API on a laptop: one scheduler with a Raft group of one, rate
// limits in memory, a built-in edge, and an agent whose instances are pages
// instead of containers. It needs no root and no services, and it keeps
// nothing.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/boss/demo-multiplexer/internal/config"
)

func main() { os.Exit(run()) }

// run returns the exit code: 0 after an orderly stop, 1 after a failure, 2
// for a wrong configuration.
func run() int {
	o := defaults()
	check, err := config.Parse(config.Program{Name: "dev", Args: os.Args[1:], LookupEnv: os.LookupEnv, Output: os.Stdout}, &o)
	switch {
	case errors.Is(err, config.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(os.Stderr, "dev:", err)
		return 2
	case check:
		return 0
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := develop(ctx, o, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "dev:", err)
		return 1
	}
	return 0
}
