package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/boss/demo-multiplexer/agent"
	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/internal/lifecycle"
	"github.com/boss/demo-multiplexer/scheduler"
)

// options configure development mode. Everything listens on loopback.
type options struct {
	APIPort  int    `json:"api_port" help:"port of the API"`
	ShopPort int    `json:"shop_port" help:"port in the visitors' URLs"`
	Warm     int    `json:"warm" help:"demos that are kept ready"`
	LogLevel string `json:"log_level" help:"debug, info, warn or error"`
}

func defaults() options { return options{APIPort: 8089, ShopPort: 8088, Warm: 4, LogLevel: "warn"} }

// Validate reports what is wrong with o.
func (o *options) Validate() error {
	var fields []api.FieldError
	check := func(ok bool, field, reason string) {
		if !ok {
			fields = append(fields, api.FieldError{Field: field, Reason: reason})
		}
	}
	port := func(p int) bool { return p > 0 && p < 65536 }
	check(port(o.APIPort) && o.APIPort != o.ShopPort, "api_port", "must be a port of its own")
	check(port(o.ShopPort), "shop_port", "must be a port")
	check(o.Warm > 0 && o.Warm <= capacity, "warm", fmt.Sprintf("must be from 1 to %d", capacity))
	return api.InvalidFields("the options are not valid", fields)
}

const (
	loopback = "127.0.0.1"
	// capacity is how many pages the one agent serves.
	capacity = 512
	// stopDeadline bounds the stop of the whole process.
	stopDeadline = 15 * time.Second
	// startDeadline bounds the wait for the first warm page.
	startDeadline = 30 * time.Second
)

// paths are the files of one run.
type paths struct{ dir, cluster, admin string }

// develop runs everything until ctx ends. What it tells people goes to out,
// the programs' logs go to log.
func develop(ctx context.Context, o options, out, log io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "demo-multiplexer-dev-")
	if err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	p := paths{dir: dir, cluster: filepath.Join(dir, "cluster.token"), admin: filepath.Join(dir, "admin.token")}
	admin := rand.Text()
	for file, secret := range map[string]string{p.cluster: rand.Text(), p.admin: admin} {
		if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
			return fmt.Errorf("write a token: %w", err)
		}
	}
	inner, err := freePorts(4)
	if err != nil {
		return err
	}
	schedulerOptions, agentOptions := configure(o, p, inner)
	if err := errors.Join(schedulerOptions.Validate(), agentOptions.Validate()); err != nil {
		return err
	}
	g := lifecycle.New(slog.New(slog.DiscardHandler), stopDeadline)
	g.Add("agent", func(ctx context.Context) error { return agent.Run(ctx, agentOptions, log) })
	g.Add("scheduler", func(ctx context.Context) error { return scheduler.Run(ctx, schedulerOptions, log) })
	g.Add("welcome", func(ctx context.Context) error {
		if err := welcome(ctx, o, admin, out); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	})
	return g.Run(ctx)
}

// configure returns the options of the two programs: loopback only.
func configure(o options, p paths, inner []string) (scheduler.Options, agent.Options) {
	s := scheduler.DefaultOptions()
	s.ID, s.DataDir = "dev", filepath.Join(p.dir, "scheduler")
	s.HTTP.Listen = net.JoinHostPort(loopback, strconv.Itoa(o.APIPort))
	s.HTTP.Advertise = s.HTTP.Listen
	s.HTTP.CORSOrigins = []string{"http://localhost:3000", "http://localhost:5173", "http://localhost:8000"}
	s.Raft.Listen, s.Raft.Advertise, s.Raft.BootstrapExpect = inner[0], inner[0], 1
	s.Gossip.Listen, s.Gossip.Advertise = inner[1], inner[1]
	s.Tokens.ClusterFile, s.Tokens.AdminFile = p.cluster, p.admin
	s.Store.Kind = scheduler.StoreEmbedded
	s.Public.Port = o.ShopPort
	s.Edges = []scheduler.EdgeOptions{{
		ID: "builtin", Kind: scheduler.EdgeBuiltin, Listen: []string{net.JoinHostPort(loopback, strconv.Itoa(o.ShopPort))},
	}}
	s.Log.Level = o.LogLevel

	a := agent.DefaultOptions()
	a.ID, a.DataDir, a.Runtime, a.Capacity = "laptop", filepath.Join(p.dir, "agent"), agent.RuntimePage, capacity
	a.TokenFile = p.cluster
	a.HTTP.Listen, a.HTTP.Advertise = inner[2], inner[2]
	a.Gossip.Listen, a.Gossip.Advertise, a.Gossip.Join = inner[3], inner[3], []string{inner[1]}
	a.Log.Level = o.LogLevel
	return s, a
}

// freePorts returns n loopback addresses that nobody listens on right now.
func freePorts(n int) ([]string, error) {
	var addresses []string
	for range n {
		l, err := net.Listen("tcp", net.JoinHostPort(loopback, "0"))
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		defer l.Close() // only once all are chosen, so that none comes twice
		addresses = append(addresses, l.Addr().String())
	}
	return addresses, nil
}

// welcome applies a template, waits until it is warm and says how to go on.
func welcome(ctx context.Context, o options, admin string, out io.Writer) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startDeadline, fmt.Errorf("no page was ready within %s; run again with --log-level info", startDeadline))
	defer cancel()
	endpoint := fmt.Sprintf("http://%s:%d", loopback, o.APIPort)
	client, err := api.NewClient(api.ClientOptions{Endpoints: []string{endpoint}, Token: admin})
	if err != nil {
		return err
	}
	template := api.Template{
		Name: "shop", Image: "localhost/development:page", Port: 8080, AdminPath: "/admin", Pool: api.Pool{Warm: o.Warm},
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for applied := false; ; {
		if !applied {
			_, err = client.ApplyTemplate(ctx, template)
			applied = err == nil
		}
		if applied {
			var stats api.PoolStats
			if stats, err = client.PoolStats(ctx); err == nil && len(stats.Templates) == 1 && stats.Templates[0].Warm > 0 {
				break
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
				return errors.Join(cause, err)
			}
			return nil
		}
	}
	_, err = fmt.Fprintf(out, banner, endpoint, o.ShopPort)
	return err
}

const banner = `
  ####################################################################
  #  DEVELOPMENT MODE. Demos are built-in pages: no containers, no   #
  #  isolation, no encryption, and nothing is kept. Never for guests. #
  ####################################################################

  lease a demo   curl -X POST %[1]s/api/v1/demo/acquire
  countdown      curl -N %[1]s/api/v1/demo/ID/status
  extend         curl -X POST %[1]s/api/v1/demo/ID/extend
  end it         curl -X DELETE %[1]s/api/v1/demo/ID
  the pool       curl %[1]s/api/v1/pool/stats

  The demos' pages are at http://d-....demo.localhost:%[2]d; browsers and curl
  find names below localhost by themselves. Stop with Ctrl-C.

`
