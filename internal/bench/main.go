// Command bench measures a real cluster on this machine: three schedulers and
// some agents with built-in pages, as processes, with Raft on disk and a real
// Valkey. Beside each figure stands a floor that the same run measured with the
// same client on servers made of the same parts and nothing else: the HTTP
// handler, then the limit script of Valkey as well, then the Raft commit of a
// claim too.
//
// No instance starts while acquires are measured: the pool is full before, has
// no room to be refilled meanwhile, and is refilled after. What the leader does
// after each claim, telling agents and edges, is part of what is measured; the
// floors have nothing like it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() { os.Exit(run()) }

// run returns the exit code: 0 when everything was measured, 2 for wrong
// arguments, else 1.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var err error
	if len(os.Args) > 1 && os.Args[1] == floorCommand {
		err = serveFloor(ctx, os.Args[2:], os.Stderr)
	} else {
		err = measureAll(ctx, os.Args[1:], os.Stdout, os.Stderr)
	}
	switch {
	case err == nil:
		return 0
	case errors.Is(err, flag.ErrHelp):
		return 2
	}
	fmt.Fprintln(os.Stderr, "bench:", err)
	return 1
}

// settings are what a run is started with.
type settings struct {
	bin      string // directory of the programs
	results  string // file
	work     string // directory for the data of all processes, on a disk
	calls    int    // of one load run
	rounds   int    // load runs of one figure
	agents   int    // among which the instances are spread
	valkey   valkeyAccess
	progress io.Writer
}

// Directories below the work directory.
const (
	floorDir   = "floor"
	clusterDir = "cluster"
)

// valkeyAccess says where Valkey is.
type valkeyAccess struct{ address, passwordFile string }

func parse(args []string, progress io.Writer) (settings, error) {
	s := settings{progress: progress}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(progress)
	f.StringVar(&s.bin, "bin", "build/bin", "directory of the programs")
	f.StringVar(&s.results, "results", "build/results/bench.json", "file for the figures")
	f.StringVar(&s.work, "work", "build/bench", "directory for the processes' data and logs, on a disk")
	f.IntVar(&s.calls, "calls", 500, "calls in one load run")
	f.IntVar(&s.rounds, "rounds", 3, "load runs of each figure")
	f.IntVar(&s.agents, "agents", 2, "agents, among which the instances are spread")
	f.StringVar(&s.valkey.address, "valkey", os.Getenv("VALKEY"), "address of Valkey")
	f.StringVar(&s.valkey.passwordFile, "valkey-password-file", os.Getenv("VALKEY_PASSWORD_FILE"), "file with Valkey's password")
	if err := f.Parse(args); err != nil {
		return settings{}, fmt.Errorf("%w: %w", flag.ErrHelp, err)
	}
	if s.valkey.address == "" {
		return settings{}, errors.New("no Valkey; run it by deploy/demo/bench")
	}
	if s.calls < 1 || s.rounds < 1 || s.agents < 1 {
		return settings{}, errors.New("calls, rounds and agents must be above 0")
	}
	if n := s.poolSize(); n > (lastPort-firstPort+1)/2 {
		return settings{}, fmt.Errorf("%d instances need more ports than there are; make fewer calls in one run", n)
	}
	for _, dir := range []*string{&s.bin, &s.work} {
		var err error
		if *dir, err = filepath.Abs(*dir); err != nil {
			return settings{}, err
		}
	}
	return s, nil
}

// measureAll starts everything, measures it, prints and writes the figures and
// stops everything.
func measureAll(ctx context.Context, args []string, out, progress io.Writer) (err error) {
	s, err := parse(args, progress)
	if err != nil {
		return err
	}
	for _, dir := range []string{floorDir, clusterDir} { // of an earlier run
		if err := os.RemoveAll(filepath.Join(s.work, dir)); err != nil {
			return fmt.Errorf("empty the work directory: %w", err)
		}
	}
	f, err := startFloor(ctx, s)
	if err != nil {
		return fmt.Errorf("the floors: %w", err)
	}
	defer f.stop()
	c, err := startCluster(ctx, s)
	if err != nil {
		return fmt.Errorf("the cluster: %w", err)
	}
	defer c.stop()
	results, err := measure(ctx, s, f, c)
	if err != nil {
		return err
	}
	if err := printTable(out, results); err != nil {
		return err
	}
	return writeResults(s.results, results)
}
