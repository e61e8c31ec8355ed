package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/boss/demo-multiplexer/api"
)

func (c *command) acquire() *cobra.Command {
	var a api.AcquireCall
	var ttl time.Duration
	cmd := &cobra.Command{
		Use: "acquire [TEMPLATE]", Short: "Lease a demo; the template may be left out where there is only one",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return &usageError{fmt.Errorf("%s takes one template at most", cmd.CommandPath())}
			}
			return nil
		},
		ValidArgsFunction: c.completeTemplates,
		RunE: c.does(func(ctx context.Context, client *api.Client, args []string) error {
			if len(args) == 1 {
				a.Template = api.TemplateName(args[0])
			}
			a.TTL = api.Duration(ttl)
			d, err := client.Acquire(ctx, a)
			if err != nil {
				return err
			}
			return c.print(d, func(w io.Writer) { showDemo(w, d) })
		}),
	}
	cmd.Flags().DurationVar(&ttl, "ttl", 0, "how long the lease lasts; default: the template's")
	cmd.Flags().DurationVar(&a.Wait, "wait", 0, "wait in line this long where no demo is ready")
	cmd.Flags().StringVar(&a.IdempotencyKey, "idempotency-key", "", "the same key gives the same demo again")
	return cmd
}

func showDemo(w io.Writer, d api.Demo) {
	row(w, "id", d.ID)
	row(w, "state", d.State)
	row(w, "template", d.Template)
	row(w, "url", d.URL)
	if d.AdminURL != "" {
		row(w, "admin url", d.AdminURL)
	}
	if d.Credentials != nil {
		row(w, "user name", d.Credentials.Username)
		row(w, "password", d.Credentials.Password)
	}
	row(w, "ends", until(d.ExpiresAt))
}

func (c *command) extend() *cobra.Command {
	var ttl time.Duration
	cmd := &cobra.Command{
		Use: "extend ID", Short: "Give a demo more time", Args: exactly(1, "the id of a demo"),
		RunE: c.does(func(ctx context.Context, client *api.Client, args []string) error {
			d, err := client.Extend(ctx, api.LeaseID(args[0]), api.ExtendRequest{TTL: api.Duration(ttl)})
			if err != nil {
				return err
			}
			return c.print(d, func(w io.Writer) { fmt.Fprintf(w, "the demo ends %s\n", until(d.ExpiresAt)) })
		}),
	}
	cmd.Flags().DurationVar(&ttl, "ttl", 0, "from now on; default: the template's")
	return cmd
}

func (c *command) release() *cobra.Command {
	return &cobra.Command{
		Use: "release ID", Short: "End a demo", Args: exactly(1, "the id of a demo"),
		RunE: c.does(func(ctx context.Context, client *api.Client, args []string) error {
			d, err := client.Release(ctx, api.LeaseID(args[0]))
			if err != nil {
				return err
			}
			return c.print(d, func(w io.Writer) { fmt.Fprintf(w, "the demo is %s\n", d.State) })
		}),
	}
}

// watchEvery is how often watch looks.
const watchEvery = time.Second

func (c *command) watch() *cobra.Command {
	return &cobra.Command{
		Use: "watch ID", Short: "Count a demo down until it ends", Args: exactly(1, "the id of a demo"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := c.client(c.endpoints...)
			if err != nil {
				return err
			}
			tick := time.NewTicker(watchEvery)
			defer tick.Stop()
			for {
				d, err := client.Demo(cmd.Context(), api.LeaseID(args[0]))
				if err != nil {
					return err
				}
				fmt.Fprintf(c.out, "%s  %s  ends %s\n", d.State, d.URL, until(d.ExpiresAt))
				if d.State.Ended() {
					return nil
				}
				select {
				case <-tick.C:
				case <-cmd.Context().Done():
					return nil
				}
			}
		},
	}
}
