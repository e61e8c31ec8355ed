package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/boss/demo-multiplexer/api"
	"github.com/boss/demo-multiplexer/internal/config"
)

// maxTemplate bounds a template file, in bytes.
const maxTemplate = 256 << 10

func (c *command) template() *cobra.Command {
	return group("template", "Show and apply templates", c.templateApply(), c.templateList(), c.templateShow())
}

func (c *command) templateApply() *cobra.Command {
	return &cobra.Command{
		Use: "apply FILE", Short: "Make the template in a YAML file current; - reads standard input", Args: exactly(1, "one file"),
		RunE: c.does(func(ctx context.Context, client *api.Client, args []string) error {
			t, err := c.readTemplate(args[0])
			if err != nil {
				return err
			}
			before, err := client.Template(ctx, t.Name)
			if err != nil && api.CodeOf(err) != api.CodeNotFound {
				return err
			}
			after, err := client.ApplyTemplate(ctx, t)
			if err != nil {
				return err
			}
			return c.print(after, func(w io.Writer) {
				change := "is revision"
				if after.Revision == before.Revision {
					change = "did not change: revision"
				}
				fmt.Fprintf(w, "template %s %s %d\n", t.Name, change, after.Revision)
			})
		}),
	}
}

// readTemplate reads and checks a template, so that a mistake shows with its
// line before anything is sent.
func (c *command) readTemplate(file string) (api.Template, error) {
	in := c.in
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return api.Template{}, fmt.Errorf("read the template: %w", err)
		}
		defer func() { _ = f.Close() }() // it was only read
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxTemplate+1))
	if err != nil {
		return api.Template{}, fmt.Errorf("read the template: %w", err)
	}
	if len(data) > maxTemplate {
		return api.Template{}, fmt.Errorf("%s has more than %d bytes and is no template", file, maxTemplate)
	}
	var t api.Template
	if err := config.DecodeStrict(data, &t); err != nil {
		return api.Template{}, fmt.Errorf("%s: %w", file, err)
	}
	t = t.WithDefaults()
	if err := t.Validate(); err != nil {
		return api.Template{}, fmt.Errorf("%s: %w", file, err)
	}
	return t, nil
}

func (c *command) templateList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the templates and their pools", Args: noArguments,
		RunE: c.does(func(ctx context.Context, client *api.Client, _ []string) error {
			templates, err := client.Templates(ctx)
			if err != nil {
				return err
			}
			return c.print(templates, func(w io.Writer) {
				row(w, "TEMPLATE", "REVISION", "WARM", "TARGET", "PENDING", "LEASED", "CHECKPOINTS", "IMAGE")
				for _, t := range templates {
					row(w, t.Template.Name, t.Revision, t.Stats.Warm, t.Stats.WarmTarget, t.Stats.Pending, t.Stats.Leased, checkpoints(t), t.Template.Image)
				}
			})
		}),
	}
}

// checkpoints sums the checkpoints of a template up.
func checkpoints(t api.TemplateStatus) string {
	ready := 0
	for _, k := range t.Checkpoints {
		if k.State == api.CheckpointReady {
			ready++
		}
	}
	return fmt.Sprintf("%d of %d ready", ready, len(t.Checkpoints))
}

func (c *command) templateShow() *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show a template, its pool and its checkpoints", Args: exactly(1, "one name"),
		ValidArgsFunction: c.completeTemplates,
		RunE: c.does(func(ctx context.Context, client *api.Client, args []string) error {
			t, err := client.Template(ctx, api.TemplateName(args[0]))
			if err != nil {
				return err
			}
			return c.print(t, func(w io.Writer) { showTemplate(w, t) })
		}),
	}
}

func showTemplate(w io.Writer, t api.TemplateStatus) {
	row(w, "template", t.Template.Name)
	row(w, "revision", t.Revision)
	row(w, "image", t.Template.Image)
	row(w, "lease", fmt.Sprintf("%s, at most %s", t.Template.TTL.Default, t.Template.TTL.Max))
	row(w, "limits", fmt.Sprintf("memory %s, %g CPUs, %d processes", t.Template.Resources.Memory, t.Template.Resources.CPUs, t.Template.Resources.PIDs))
	row(w, "pool", fmt.Sprintf("%d of %d warm, %d pending, %d leased", t.Stats.Warm, t.Stats.WarmTarget, t.Stats.Pending, t.Stats.Leased))
	fmt.Fprintln(w)
	row(w, "HOST CLASS", "CHECKPOINT", "STATE", "BUILDER", "SIZE", "BUILT IN", "REASON")
	for _, k := range t.Checkpoints {
		row(w, k.HostClass, fmt.Sprintf("%.12s", k.Digest), k.State, k.Builder, fmt.Sprintf("%d MiB", k.Size>>20), total(k.Stages), k.Reason)
	}
}

func (c *command) completeTemplates(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	err := c.does(func(ctx context.Context, client *api.Client, _ []string) error {
		templates, err := client.Templates(ctx)
		for _, t := range templates {
			names = append(names, string(t.Template.Name))
		}
		return err
	})(cmd, nil)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
