package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/client"
)

// defaultWait is what --wait without a value stands for.
const defaultWait = "30s"

// changeFlags are the flags of every change of resources.
type changeFlags struct {
	dryRun bool
	wait   string
	reason string
}

func (f *changeFlags) add(c *cobra.Command) {
	dryRunFlag(c, &f.dryRun)
	c.Flags().StringVar(&f.wait, "wait", "", "wait until the connected gateways run the change, at most so long")
	c.Flags().Lookup("wait").NoOptDefVal = defaultWait
	c.Flags().StringVar(&f.reason, "reason", "", "why, for the audit record")
}

func dryRunFlag(c *cobra.Command, dryRun *bool) {
	c.Flags().BoolVar(dryRun, "dry-run", false, "check everything and change nothing")
}

// options returns the options of the change and the time that it may take.
func (f *changeFlags) options(s *session) (client.ApplyOptions, time.Duration, error) {
	o := client.ApplyOptions{Organization: s.org(), Reason: f.reason}
	if f.wait != "" {
		d, err := v1.ParseDuration(f.wait)
		if err != nil || d <= 0 {
			return o, 0, withExit(ExitUsage, fmt.Errorf("--wait: %q is not a duration: write it as 30s or 5m", f.wait))
		}
		o.Wait = d
	}
	return o, changeTime + o.Wait.Std(), nil
}

// tried returns the client, or one that changes nothing.
func tried(c *client.Client, dryRun bool) *client.Client {
	if dryRun {
		return c.Trial()
	}
	return c
}

func (s *session) applyCommand() *cobra.Command {
	var paths []string
	var flags changeFlags
	c := &cobra.Command{
		Use:   "apply -f PATH",
		Short: "Make resources as files describe them, all of them or none",
		Long: `Apply makes the resources of files as they are described there: it creates what is missing, changes what differs and
leaves alone what is equal. All resources of one call are checked together and changed together; if anything is wrong
with any of them, nothing is changed and every fault is shown.

Resources that are in no file stay as they are: "hansa delete" removes them.`,
		Example: "  hansa apply -f shop.yaml\n  hansa apply -f ./config --dry-run\n  cat shop.yaml | hansa apply -f - --wait=1m",
		Args:    cobra.NoArgs,
	}
	fileFlag(c, &paths)
	flags.add(c)
	c.RunE = s.run(func(ctx context.Context, _ *cobra.Command, _ []string) error {
		return s.changeDocuments(ctx, paths, flags, (*client.Client).Apply)
	})
	return c
}

// changeDocuments sends files to a call that changes resources, and prints what it changed.
func (s *session) changeDocuments(ctx context.Context, paths []string, flags changeFlags,
	send func(*client.Client, context.Context, io.Reader, client.ApplyOptions) (v1.ApplyResult, error),
) error {
	o, limit, err := flags.options(s)
	if err != nil {
		return err
	}
	docs, err := s.readDocuments(paths)
	if err != nil {
		return err
	}
	return s.call(ctx, limit, func(ctx context.Context, c *client.Client) error {
		note := s.progress("sending")
		defer note.end()
		out, err := send(tried(c, flags.dryRun), ctx, note.reader(docs.reader(), int64(len(docs.data))), o)
		note.end()
		if err != nil {
			return docs.place(err)
		}
		return s.printChanges(out, o.Wait)
	})
}

// printChanges prints what a change changed. It is an error if the gateways do not run it in time.
func (s *session) printChanges(out v1.ApplyResult, wait v1.Duration) error {
	s.endProgress()
	for _, w := range out.Warnings {
		fmt.Fprintln(s.err, "warning: "+oneLine(w))
	}
	err := s.print(out, func(w io.Writer) {
		would := ""
		if out.DryRun {
			would = "would be "
		}
		for _, ch := range out.Changes {
			fmt.Fprintf(w, "%s %s%s", changeName(ch), would, ch.Action)
			if ch.Revision > 0 {
				fmt.Fprintf(w, ", revision %d", ch.Revision)
			}
			fmt.Fprintln(w)
		}
		switch {
		case out.DryRun:
			fmt.Fprintf(w, "%s would be changed (tried upon %d.%d; nothing was done)\n", count(len(out.Changes), "resource"), out.Epoch, out.Seq)
		case len(out.Changes) == 0:
			fmt.Fprintf(w, "nothing to change (at %d.%d)\n", out.Epoch, out.Seq)
		default:
			fmt.Fprintf(w, "%s changed (now at %d.%d)\n", count(len(out.Changes), "resource"), out.Epoch, out.Seq)
		}
		if out.Wait != nil && out.Wait.Complete {
			fmt.Fprintln(w, "all connected gateways of the affected groups run it")
		}
	})
	if err != nil {
		return err
	}
	return waitError(out, wait)
}

// waitError returns an error if the gateways do not run a change within the time that was asked for.
func waitError(out v1.ApplyResult, wait v1.Duration) error {
	if out.Wait == nil || out.Wait.Complete {
		return nil
	}
	return withExit(ExitUnreachable, fmt.Errorf("the change is made, but not run by all connected gateways within %s: waiting for %s", wait, strings.Join(out.Wait.Missing, ", ")))
}

func changeName(ch v1.Change) string {
	if ch.Organization == "" || ch.Organization == v1.DefaultOrganization {
		return fmt.Sprintf("%s %s", ch.Kind, ch.Name)
	}
	return fmt.Sprintf("%s %s/%s", ch.Kind, ch.Organization, ch.Name)
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func (s *session) deleteCommand() *cobra.Command {
	var paths []string
	var flags changeFlags
	var seq uint64
	c := &cobra.Command{
		Use:   "delete (KIND NAME | -f PATH)",
		Short: "Delete a resource, or all that files name",
		Long: `Delete removes one resource, or those that files name: of the files only kind and metadata count, what does not exist
is passed over, and all is removed together or nothing.

What other resources refer to is not removed; the answer names them. The revisions of an API, the keys of a subscription
and the gateways of a group go with it.`,
		Example: "  hansa delete api catalog\n  hansa delete -f shop.yaml --dry-run",
		Args: func(_ *cobra.Command, args []string) error {
			if (len(paths) > 0) == (len(args) > 0) || len(args) != 0 && len(args) != 2 {
				return errors.New("name a KIND and a NAME, or files with -f")
			}
			return nil
		},
		ValidArgsFunction: s.completeKindAndName,
	}
	c.Flags().StringArrayVarP(&paths, "filename", "f", nil, `file or folder with resources, or "-" for standard input; may be repeated`)
	c.Flags().Uint64Var(&seq, "if-seq", 0, "delete only if metadata.seq of the resource is this number")
	flags.add(c)
	c.RunE = s.run(func(ctx context.Context, _ *cobra.Command, args []string) error {
		if len(paths) > 0 {
			return s.changeDocuments(ctx, paths, flags, (*client.Client).DeleteAll)
		}
		info, err := shownKind(args[0])
		if err != nil {
			return err
		}
		o, limit, err := flags.options(s)
		if err != nil {
			return err
		}
		return s.call(ctx, limit, func(ctx context.Context, c *client.Client) error {
			out, err := tried(c, flags.dryRun).Delete(ctx, s.key(info, args[1]), seq, o)
			if err != nil {
				return err
			}
			return s.printChanges(out, o.Wait)
		})
	})
	return c
}
