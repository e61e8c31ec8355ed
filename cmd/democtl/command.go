package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/internal/version"
)

const (
	defaultEndpoint = "http://127.0.0.1:8080"
	defaultTimeout  = 30 * time.Second
)

// The exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// command is one call of the program.
type command struct {
	in        io.Reader
	out, err  io.Writer
	lookupEnv func(string) (string, bool)

	endpoints []string
	tokenFile string
	json      bool
	timeout   time.Duration
}

// run executes args and returns the exit code.
func (c *command) run(ctx context.Context, args []string) int {
	root := c.root() //nolint:contextcheck // cobra hands the context to the commands
	root.SetArgs(args)
	root.SetIn(c.in)
	root.SetOut(c.out)
	root.SetErr(c.err)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return exitFailed // somebody pressed Ctrl-C and knows
	}
	fmt.Fprintln(c.err, "democtl:", explain(err))
	var usage *usageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	return exitFailed
}

// usageError is a call that makes no sense.
type usageError struct{ error }

func (c *command) root() *cobra.Command {
	root := &cobra.Command{
		Use: "democtl", Short: "Show and change a demo-multiplexer cluster", Version: version.String(),
		SilenceUsage: true, SilenceErrors: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return &usageError{fmt.Errorf("there is no command %q; see democtl --help", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &usageError{fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())}
	})
	flags := root.PersistentFlags()
	flags.StringSliceVar(&c.endpoints, "endpoints", c.defaultEndpoints(), "base URLs of schedulers, tried in turn (DEMOCTL_ENDPOINTS)")
	flags.StringVar(&c.tokenFile, "token-file", c.env("DEMOCTL_TOKEN_FILE"), "file with the operators' token (DEMOCTL_TOKEN_FILE)")
	flags.BoolVar(&c.json, "json", false, "print what the API answers, as JSON")
	flags.DurationVar(&c.timeout, "timeout", defaultTimeout, "give up after this time")
	root.AddCommand(
		c.status(), c.template(), c.node(), c.instance(), c.lease(),
		c.acquire(), c.extend(), c.release(), c.watch(),
	)
	return root
}

func (c *command) env(name string) string {
	value, _ := c.lookupEnv(name)
	return value
}

func (c *command) defaultEndpoints() []string {
	return strings.Split(cmp.Or(c.env("DEMOCTL_ENDPOINTS"), defaultEndpoint), ",")
}

// token reads the operators' token; without a file there is none.
func (c *command) token() (string, error) {
	if c.tokenFile == "" {
		return "", nil
	}
	data, err := os.ReadFile(c.tokenFile)
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}

// client returns a client of the given endpoints.
func (c *command) client(endpoints ...string) (*api.Client, error) {
	token, err := c.token()
	if err != nil {
		return nil, err
	}
	return api.NewClient(api.ClientOptions{Endpoints: endpoints, Token: token})
}

// action is what a command does with a client, within the time limit.
type action func(ctx context.Context, client *api.Client, args []string) error

// does adapts an action for cobra.
func (c *command) does(do action) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		client, err := c.client(c.endpoints...)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeoutCause(cmd.Context(), c.timeout, fmt.Errorf("no answer within %s", c.timeout))
		defer cancel()
		return do(ctx, client, args)
	}
}

// exactly accepts n arguments, and says what they are otherwise.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return &usageError{fmt.Errorf("%s takes %s; see %s --help", cmd.CommandPath(), what, cmd.CommandPath())}
		}
		return nil
	}
}

var noArguments = exactly(0, "no arguments")

// print writes v as JSON where that was asked for, and otherwise lets text
// write it.
func (c *command) print(v any, text func(w io.Writer)) error {
	if c.json {
		e := json.NewEncoder(c.out)
		e.SetIndent("", "  ")
		return e.Encode(v)
	}
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	text(w)
	return w.Flush()
}

// row writes one line of a table.
func row(w io.Writer, cells ...any) {
	for i, cell := range cells {
		if i > 0 {
			fmt.Fprint(w, "\t")
		}
		if text := fmt.Sprint(cell); text != "" {
			fmt.Fprint(w, text)
		} else {
			fmt.Fprint(w, "-")
		}
	}
	fmt.Fprintln(w)
}

// until spells how long it is until t.
func until(t time.Time) string {
	if left := time.Until(t).Round(time.Second); left > 0 {
		return "in " + left.String()
	}
	return time.Since(t).Round(time.Second).String() + " ago"
}
