package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/boss/demo-multiplexer/api"
)

// group makes a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	g := &cobra.Command{
		Use: use, Short: short,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return &usageError{fmt.Errorf("there is no command %q; see %s --help", args[0], cmd.CommandPath())}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	g.AddCommand(commands...)
	return g
}

func (c *command) node() *cobra.Command {
	return group("node", "Show nodes", &cobra.Command{
		Use: "list", Short: "List the nodes", Args: noArguments,
		RunE: c.does(func(ctx context.Context, client *api.Client, _ []string) error {
			nodes, err := client.Nodes(ctx)
			if err != nil {
				return err
			}
			return c.print(nodes, func(w io.Writer) {
				row(w, "NODE", "STATUS", "RESTORES", "INSTANCES", "LEASED", "CAPACITY", "CRIU", "KERNEL", "REASON")
				for _, n := range nodes {
					row(w, n.ID, n.Status, word(n.Restores, "yes", "no"), n.Instances, n.Leased, n.Capacity, n.Versions.CRIU, n.Versions.Kernel, n.Reason)
				}
			})
		}),
	})
}

func (c *command) instance() *cobra.Command {
	return group("instance", "Show instances", &cobra.Command{
		Use: "list", Short: "List the instances on all nodes", Args: noArguments,
		RunE: c.does(func(ctx context.Context, client *api.Client, _ []string) error {
			instances, err := client.Instances(ctx)
			if err != nil {
				return err
			}
			return c.print(instances, func(w io.Writer) {
				row(w, "INSTANCE", "TEMPLATE", "NODE", "STATE", "MADE BY", "READY IN", "ADDRESS", "REASON")
				for _, i := range instances {
					made := "cold boot"
					if i.Checkpoint != "" {
						made = fmt.Sprintf("restore of %.8s", i.Checkpoint)
					}
					row(w, i.ID, fmt.Sprintf("%s/%d", i.Template.Name, i.Template.Revision), i.Node, i.State, made, total(i.Stages), i.Address, i.Reason)
				}
			})
		}),
	})
}

// total adds up stages.
func total(stages []api.Stage) string {
	var sum time.Duration
	for _, s := range stages {
		sum += s.Took.D()
	}
	if sum == 0 {
		return ""
	}
	return sum.Round(time.Millisecond).String()
}

func (c *command) lease() *cobra.Command {
	return group("lease", "Show leases", &cobra.Command{
		Use: "list", Short: "List the leases, active and lately ended", Args: noArguments,
		RunE: c.does(func(ctx context.Context, client *api.Client, _ []string) error {
			leases, err := client.Leases(ctx)
			if err != nil {
				return err
			}
			return c.print(leases, func(w io.Writer) {
				row(w, "LEASE", "STATE", "TEMPLATE", "NODE", "EPOCH", "ENDS", "HOST")
				for _, l := range leases {
					row(w, l.ID, l.State, l.Template, l.Node, l.Epoch, until(l.ExpiresAt), l.Host)
				}
			})
		}),
	})
}
