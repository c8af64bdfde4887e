package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/internal/resource"
	"hansa.dev/hansa/internal/x/linediff"
)

// planCommands have the same flags: plan tells what would change, diff tells how.
func (s *session) planLike(use, short, long string, show func(v1.ApplyResult) error) *cobra.Command {
	var paths []string
	var exitCode bool
	c := &cobra.Command{Use: use + " -f PATH", Short: short, Long: long, Example: fmt.Sprintf("  hansa %s -f shop.yaml --exit-code", use), Args: cobra.NoArgs}
	fileFlag(c, &paths)
	c.Flags().BoolVar(&exitCode, "exit-code", false, "exit with 10 if there are changes")
	c.RunE = s.run(func(ctx context.Context, _ *cobra.Command, _ []string) error {
		docs, err := s.readDocuments(paths)
		if err != nil {
			return err
		}
		return s.call(ctx, changeTime, func(ctx context.Context, c *client.Client) error {
			out, err := c.Plan(ctx, docs.reader(), client.ApplyOptions{Organization: s.org()})
			if err != nil {
				return docs.place(err)
			}
			if err := show(out); err != nil {
				return err
			}
			if exitCode && len(out.Changes) > 0 {
				return withExit(ExitDifferent, nil)
			}
			return nil
		})
	})
	return c
}

func (s *session) planCommand() *cobra.Command {
	return s.planLike("plan", "Show which resources an apply would change",
		"Plan checks files as apply does and shows what would be created and changed. Nothing is done.", s.printPlan)
}

func (s *session) printPlan(out v1.ApplyResult) error {
	brief := out
	brief.Changes = append([]v1.Change{}, out.Changes...)
	for i := range brief.Changes {
		brief.Changes[i].Before, brief.Changes[i].After = nil, nil
	}
	return s.print(brief, func(w io.Writer) {
		var created, updated int
		for _, ch := range brief.Changes {
			sign := "+"
			if ch.Action == v1.ActionUpdated {
				sign = "~"
				updated++
			} else {
				created++
			}
			fmt.Fprintf(w, "%s %s", sign, changeName(ch))
			if ch.Revision > 0 {
				fmt.Fprintf(w, " (revision %d)", ch.Revision)
			}
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%d to create, %d to change (tried upon %d.%d; nothing was done)\n", created, updated, out.Epoch, out.Seq)
	})
}

func (s *session) diffCommand() *cobra.Command {
	return s.planLike("diff", "Show how resources would differ after an apply",
		"Diff checks files as apply does and shows the lines of each resource that would change, in the unified format. With\n-o json or -o yaml it shows both sides of each change. Nothing is done.", s.printDiff)
}

func (s *session) printDiff(out v1.ApplyResult) error {
	if s.output != outputTable {
		return s.print(out, nil)
	}
	for _, ch := range out.Changes {
		before, err := document(ch.Before)
		if err != nil {
			return err
		}
		after, err := document(ch.After)
		if err != nil {
			return err
		}
		name := changeName(ch)
		if _, err := s.out.Write(linediff.Unified("record: "+name, "files: "+name, before, after)); err != nil {
			return wrapOutput(err)
		}
	}
	return nil
}

// document returns a resource as users write it; nothing for none.
func document(o *v1.Object) ([]byte, error) {
	if o == nil {
		return nil, nil
	}
	var b bytes.Buffer
	if err := resource.WriteYAML(&b, resource.Editable(o)); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
