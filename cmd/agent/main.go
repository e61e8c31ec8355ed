// Command agent runs the agent of one node of a demo-multiplexer cluster.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/boss/demo-multiplexer/agent"
	"github.com/boss/demo-multiplexer/internal/config"
)

func main() { os.Exit(run()) }

// run returns the exit code: 0 after an orderly stop, 1 after a failure, 2
// for a wrong configuration.
func run() int {
	options := agent.DefaultOptions()
	check, err := config.Parse(config.Program{
		Name: "agent", Args: os.Args[1:], LookupEnv: os.LookupEnv, Output: os.Stdout,
	}, &options)
	switch {
	case errors.Is(err, config.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(os.Stderr, "agent:", err)
		return 2
	case check:
		return 0
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := agent.Run(ctx, options, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		return 1
	}
	return 0
}
