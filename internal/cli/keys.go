package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/client"
)

func (s *session) keysCommand() *cobra.Command {
	return group("keys", "Make, import, list, rotate and revoke the keys of subscriptions",
		s.keysCreateCommand(), s.keysImportCommand(), s.keysListCommand(), s.keysRotateCommand(), s.keysRevokeCommand())
}

// keyWait is how long the commands that change keys wait for the gateways unless they are told otherwise.
const keyWait = "5s"

// arrival are the flags of the commands that change keys.
type arrival struct {
	wait   string
	dryRun bool
}

func (f *arrival) add(c *cobra.Command) {
	c.Flags().StringVar(&f.wait, "wait", keyWait, "how long to wait until the connected gateways know; 0s does not wait")
	dryRunFlag(c, &f.dryRun)
}

func (f *arrival) duration() (v1.Duration, error) {
	d, err := v1.ParseDuration(f.wait)
	if err != nil || d < 0 {
		return 0, withExit(ExitUsage, fmt.Errorf("--wait: %q is not a duration: write it as 5s or 0s", f.wait))
	}
	return d, nil
}

// warn tells, after the change was made and shown, of gateways that do not know of it yet. They will by themselves.
func (f *arrival) warn(s *session, w *v1.WaitResult) {
	if w == nil || w.Complete {
		return
	}
	who := "some gateways do"
	if len(w.Missing) > 0 {
		who = strings.Join(w.Missing, ", ") + " did"
	}
	fmt.Fprintf(s.err, "The change is made, but %s not confirm it within %s: it takes effect there as soon as it arrives.\n", who, f.wait)
}

// keyFlags are the flags of the commands that make a key.
type keyFlags struct {
	arrival
	slot, expires string
}

func (f *keyFlags) add(s *session, c *cobra.Command, slotHelp string) {
	c.Flags().StringVar(&f.slot, "slot", "", slotHelp)
	s.complete(c, "slot", v1.SlotPrimary, v1.SlotSecondary)
	c.Flags().StringVar(&f.expires, "expires", "", "how long the new key is valid, such as 90d (default: for ever)")
	f.arrival.add(c)
}

func (f *keyFlags) request() (v1.KeyRequest, error) {
	r := v1.KeyRequest{Slot: f.slot}
	if f.expires != "" {
		d, err := v1.ParseDuration(f.expires)
		if err != nil || d <= 0 {
			return r, withExit(ExitUsage, fmt.Errorf("--expires: %q is not a duration above 0: write it as 90d or 12h", f.expires))
		}
		r.ExpiresAt = time.Now().Add(d.Std()).UTC().Truncate(time.Second)
	}
	return r, nil
}

func (s *session) keysCreateCommand() *cobra.Command {
	var flags keyFlags
	c := &cobra.Command{
		Use:   "create SUBSCRIPTION",
		Short: "Make a key and show it, once",
		Long: `Create makes a key of 256 random bits in one of the two slots of a subscription. The key is shown now and never again:
only its hash is kept. It works on the connected gateways when the command returns; of those that did not confirm it in
time the command warns.`,
		Example:           "  hansa keys create shop-gold\n  hansa keys create shop-gold --slot secondary --expires 90d -o json",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: s.completeNames(v1.KindSubscription),
	}
	flags.add(s, c, "primary or secondary (default: the first that is free)")
	c.RunE = s.run(func(ctx context.Context, _ *cobra.Command, args []string) error {
		r, err := flags.request()
		if err != nil {
			return err
		}
		wait, err := flags.duration()
		if err != nil {
			return err
		}
		return s.call(ctx, callTime+wait.Std(), func(ctx context.Context, c *client.Client) error {
			k, err := tried(c, flags.dryRun).Waiting(wait).CreateKey(ctx, s.org(), args[0], r)
			if err != nil {
				return err
			}
			return s.printKey(k, &flags.arrival)
		})
	})
	return c
}

func (s *session) keysRotateCommand() *cobra.Command {
	var flags keyFlags
	var overlap string
	c := &cobra.Command{
		Use:   "rotate SUBSCRIPTION",
		Short: "Make a new key in the slot of an old one, which stays valid for a while",
		Long: `Rotate makes a new key in a slot. The key that was there stays valid for the overlap, so that the application can change
over without a refused request.`,
		Example:           "  hansa keys rotate shop-gold\n  hansa keys rotate shop-gold --slot secondary --overlap 0s",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: s.completeNames(v1.KindSubscription),
	}
	flags.add(s, c, "primary or secondary (default: primary)")
	c.Flags().StringVar(&overlap, "overlap", "24h", "how long the old key stays valid; 0s ends it at once")
	c.RunE = s.run(func(ctx context.Context, _ *cobra.Command, args []string) error {
		r, err := flags.request()
		if err != nil {
			return err
		}
		d, err := v1.ParseDuration(overlap)
		if err != nil || d < 0 {
			return withExit(ExitUsage, fmt.Errorf("--overlap: %q is not a duration: write it as 24h or 0s", overlap))
		}
		r.Overlap = &d
		wait, err := flags.duration()
		if err != nil {
			return err
		}
		return s.call(ctx, callTime+wait.Std(), func(ctx context.Context, c *client.Client) error {
			k, err := tried(c, flags.dryRun).Waiting(wait).RotateKey(ctx, s.org(), args[0], r)
			if err != nil {
				return err
			}
			return s.printKey(k, &flags.arrival)
		})
	})
	return c
}

// createdKey is a new key as scripts read it.
type createdKey struct {
	Subscription string     `json:"subscription"`
	Slot         string     `json:"slot"`
	Key          string     `json:"key,omitempty"`
	KeyID        string     `json:"keyId"`
	ExpiresAt    *time.Time `json:"expiresAt"` // null: never
}

func asCreated(k v1.SubscriptionKey) createdKey {
	out := createdKey{Subscription: k.Subscription, Slot: k.Slot, Key: k.Key, KeyID: k.KeyID}
	if !k.ExpiresAt.IsZero() {
		out.ExpiresAt = &k.ExpiresAt
	}
	return out
}

func (s *session) printKey(k v1.SubscriptionKey, how *arrival) error {
	err := s.print(asCreated(k), func(w io.Writer) {
		fields(w, "subscription", k.Subscription, "slot", k.Slot, "key", k.Key, "key id", k.KeyID, "expires", when(k.ExpiresAt, "never"))
	})
	if s.output == outputTable && err == nil {
		note := "The key is shown only this once."
		if how.dryRun {
			note = "Only tried: no key was made."
		}
		fmt.Fprintln(s.err, note)
	}
	how.warn(s, k.Wait)
	return err
}

func (s *session) keysListCommand() *cobra.Command {
	c := &cobra.Command{
		Use:               "list SUBSCRIPTION",
		Short:             "Show the keys of a subscription, without their values",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: s.completeNames(v1.KindSubscription),
	}
	c.RunE = s.run(func(ctx context.Context, _ *cobra.Command, args []string) error {
		return s.call(ctx, changeTime, func(ctx context.Context, c *client.Client) error {
			all := v1.KeyList{Items: []v1.SubscriptionKey{}}
			for o := (client.ListOptions{Limit: 5000}); ; {
				page, err := c.Keys(ctx, s.org(), args[0], o)
				if err != nil {
					return err
				}
				all.Items = append(all.Items, page.Items...)
				if o.Continue = page.Continue; o.Continue == "" {
					break
				}
			}
			return s.print(all, func(w io.Writer) {
				var rows [][]string
				for _, k := range all.Items {
					rows = append(rows, []string{k.KeyID, k.Slot, k.State, when(k.CreatedAt, "-"), when(k.ExpiresAt, "never")})
				}
				columns(w, []string{"KEY ID", "SLOT", "STATE", "CREATED", "EXPIRES"}, rows)
			})
		})
	})
	return c
}

func (s *session) keysRevokeCommand() *cobra.Command {
	var how arrival
	c := &cobra.Command{
		Use:   "revoke SUBSCRIPTION KEYID...",
		Short: "End keys for good",
		Long:  "Revoke ends keys: gateways refuse them from now on with 403 revoked. There is no way back.",
		Args:  cobra.MinimumNArgs(2),
		ValidArgsFunction: func(c *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return s.completeNames(v1.KindSubscription)(c, args, prefix)
			}
			var ids []string
			_ = s.call(c.Context(), completeTime, func(ctx context.Context, c *client.Client) error { // completion has no place for errors
				page, err := c.Keys(ctx, s.org(), args[0], client.ListOptions{})
				for _, k := range page.Items {
					ids = append(ids, k.KeyID)
				}
				return err
			})
			return matching(ids, prefix), cobra.ShellCompDirectiveNoFileComp
		},
	}
	how.add(c)
	c.RunE = s.run(func(ctx context.Context, _ *cobra.Command, args []string) error {
		wait, err := how.duration()
		if err != nil {
			return err
		}
		return s.call(ctx, callTime+wait.Std(), func(ctx context.Context, c *client.Client) error {
			done := v1.KeyList{Items: []v1.SubscriptionKey{}}
			var arrived *v1.WaitResult
			for i, id := range args[1:] {
				c := tried(c, how.dryRun)
				if i == len(args)-2 { // who has the last of them has them all
					c = c.Waiting(wait)
				}
				k, err := c.RevokeKey(ctx, s.org(), args[0], id)
				if err != nil {
					return err
				}
				arrived, k.Wait = k.Wait, nil
				done.Items = append(done.Items, k)
			}
			err := s.print(done, func(w io.Writer) {
				for _, k := range done.Items {
					verb := "revoked"
					if how.dryRun {
						verb = "would be revoked"
					}
					fmt.Fprintf(w, "key %s of %s %s\n", k.KeyID, k.Subscription, verb)
				}
			})
			how.warn(s, arrived)
			return err
		})
	})
	return c
}

func (s *session) keysImportCommand() *cobra.Command {
	var how arrival
	c := &cobra.Command{
		Use:   "import [SUBSCRIPTION] FILE",
		Short: "Add keys that exist already",
		Long: `Import adds the keys of a file ("-": standard input) to a subscription. The file has one key a line, or one JSON object a
line with the fields key or sha256, subscription and expiresAt; which of the two it is shows in the first character.
Without SUBSCRIPTION each object names its own.

Keys are hashed on arrival and kept nowhere. An import of many keys is made in several change sets; it can be repeated:
what is there already is not changed.`,
		Example:           "  hansa keys import shop-gold keys.txt\n  hansa keys import keys.ndjson --dry-run",
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: s.completeNames(v1.KindSubscription),
	}
	how.add(c)
	c.RunE = s.run(func(ctx context.Context, _ *cobra.Command, args []string) error {
		subscription, file := "", args[len(args)-1]
		if len(args) == 2 {
			subscription = args[0]
		}
		wait, err := how.duration()
		if err != nil {
			return err
		}
		in, size, err := s.open(file)
		if err != nil {
			return err
		}
		defer in.Close()
		keys := bufio.NewReader(in)
		ctype := keysType(keys)
		if ctype == client.ContentTypeKeyLines && subscription == "" {
			return withExit(ExitUsage, errors.New("a file with one key a line needs the SUBSCRIPTION that they belong to"))
		}
		return s.call(ctx, 0, func(ctx context.Context, c *client.Client) error {
			note := s.progress("importing")
			defer note.end()
			out, err := tried(c, how.dryRun).Waiting(wait).ImportKeys(ctx, s.org(), subscription, ctype, note.reader(keys, size))
			note.end()
			if err != nil {
				return inFile(err, file)
			}
			if out.Imported+out.Unchanged == 0 {
				return withExit(ExitInvalid, fmt.Errorf("there is no key in %s", file))
			}
			err = s.print(importedKeys(out), func(w io.Writer) {
				verb := "imported"
				if out.DryRun {
					verb = "would be imported"
				}
				fmt.Fprintf(w, "%s %s, %d were there already (at %d.%d)\n", count(out.Imported, "key"), verb, out.Unchanged, out.Epoch, out.Seq)
			})
			how.warn(s, out.Wait)
			return err
		})
	})
	return c
}

// importedKeys is the result of an import as scripts read it: that of a single key has its fields as well, as that of
// "keys create" has.
func importedKeys(out v1.ImportResult) any {
	if len(out.Keys) != 1 {
		return out
	}
	return struct {
		createdKey
		v1.ImportResult
	}{asCreated(out.Keys[0]), out}
}

// open opens a file or standard input; size is -1 if it is not known.
func (s *session) open(file string) (io.ReadCloser, int64, error) {
	if file == "-" {
		return io.NopCloser(s.in), -1, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, 0, err
	}
	size := int64(-1)
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
		size = info.Size()
	}
	return f, size, nil
}

// keysType tells lines of keys from lines of JSON by the first character that is not space.
func keysType(r *bufio.Reader) string {
	b, _ := r.Peek(512) // a short file gives what it has
	if bytes.HasPrefix(bytes.TrimSpace(b), []byte("{")) {
		return client.ContentTypeKeyRecords
	}
	return client.ContentTypeKeyLines
}

// inFile names the file in the faults of err.
func inFile(err error, file string) error {
	if file == "-" {
		file = "stdin"
	}
	if e, ok := errors.AsType[*client.Error](err); ok {
		for i := range e.Faults {
			if e.Faults[i].Line > 0 {
				e.Faults[i].File, e.Faults[i].Column = file, max(e.Faults[i].Column, 1)
			}
		}
	}
	return err
}
