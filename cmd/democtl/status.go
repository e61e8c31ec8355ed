package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/boss/demo-multiplexer/api"
)

// answer is what one endpoint said.
type answer struct {
	endpoint string
	status   api.ClusterStatus
	err      error
	took     time.Duration
}

func (c *command) status() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Ask every endpoint who leads and how the parts do", Args: noArguments,
		Long: "Asks every endpoint, and prints the answer of the leader, or of any where there is none.\nExits with 1 where nobody leads.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), c.timeout)
			defer cancel()
			return c.showStatus(c.askAll(ctx))
		},
	}
}

// askAll asks all endpoints at the same time.
func (c *command) askAll(ctx context.Context) []answer {
	answers := make([]answer, len(c.endpoints))
	var all sync.WaitGroup
	for i, endpoint := range c.endpoints {
		all.Go(func() {
			began := time.Now()
			a := answer{endpoint: endpoint}
			client, err := c.client(endpoint)
			if err == nil {
				a.status, err = client.Cluster(ctx)
			}
			a.err, a.took = err, time.Since(began)
			answers[i] = a
		})
	}
	all.Wait()
	return answers
}

// best returns the answer of the leader, else any.
func best(answers []answer) (api.ClusterStatus, error) {
	var found *api.ClusterStatus
	var errs []error
	for i, a := range answers {
		switch {
		case a.err != nil:
			errs = append(errs, a.err)
		case a.status.Leader != "" && a.status.Leader == a.status.Server:
			return a.status, nil
		case found == nil || found.Leader == "":
			found = &answers[i].status
		}
	}
	if found == nil {
		return api.ClusterStatus{}, errors.Join(errs...)
	}
	return *found, nil
}

var errNoLeader = errors.New("no scheduler leads: start the missing ones, a majority must run; leases go on meanwhile")

func (c *command) showStatus(answers []answer) error {
	s, err := best(answers)
	if err != nil {
		return err
	}
	err = c.print(s, func(w io.Writer) {
		row(w, "ENDPOINT", "SERVER", "ANSWER")
		for _, a := range answers {
			if a.err != nil {
				row(w, a.endpoint, "", explain(a.err))
				continue
			}
			row(w, a.endpoint, a.status.Server, fmt.Sprintf("in %s", a.took.Round(100*time.Microsecond)))
		}
		statusTables(w, s)
	})
	if err == nil && s.Leader == "" {
		return errNoLeader
	}
	return err
}

func statusTables(w io.Writer, s api.ClusterStatus) {
	fmt.Fprintln(w)
	row(w, "SCHEDULER", "ROLE", "GOSSIP", "RAFT")
	for _, server := range s.Servers {
		role := "follower"
		switch {
		case server.Leader:
			role = "leader"
		case !server.Voter:
			role = "observer"
		}
		row(w, server.ID, role, word(server.Alive, "alive", "dead"), server.Address)
	}
	fmt.Fprintln(w)
	row(w, "EDGE", "STATE", "ROUTES", "REASON")
	for _, e := range s.Edges {
		row(w, e.ID, word(e.Healthy, "serves", "unreachable"), e.Routes, e.Reason)
	}
	if len(s.Edges) == 0 {
		row(w, "(the leader knows)", "", "", "")
	}
	fmt.Fprintln(w)
	row(w, "STORE", "STATE", "REASON")
	row(w, s.Store.Kind, word(s.Store.Healthy, "answers", "down"), s.Store.Reason)
	fmt.Fprintf(w, "\nterm %d, entry %d, version %s\n", s.Term, s.Applied, s.Version)
}

func word(ok bool, yes, no string) string {
	if ok {
		return yes
	}
	return no
}
