package cli

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/internal/bundle"
	"hansa.dev/hansa/internal/bundle/build"
	"hansa.dev/hansa/internal/keys"
	"hansa.dev/hansa/internal/resource"
	"hansa.dev/hansa/internal/vault"
	"hansa.dev/hansa/internal/x/durable"
	"hansa.dev/hansa/internal/x/secret"
)

func (s *session) bundleCommand() *cobra.Command {
	return group("bundle", "Make and read bundles: configurations for gateways without control plane",
		s.bundleBuildCommand(), s.bundleExportCommand(), s.bundleInspectCommand())
}

func (s *session) bundleBuildCommand() *cobra.Command {
	var (
		paths                                      []string
		out, groupName, keysFile, rootFile, phrase string
		seq                                        uint64
		dryRun                                     bool
	)
	c := &cobra.Command{
		Use:   "build",
		Short: "Make a bundle of files, without a control plane",
		Long: `Build checks and compiles resources as apply does and signs the result. The root key is made beside the bundle at the first
time and used again after that: a gateway takes later bundles only from the same root, and only with a higher number.`,
		Example: "  hansa bundle build -f ./config -o shop.bundle\n  hansa bundle build -f ./config --keys keys.ndjson --root-key shop.root -o shop.bundle",
		Args:    cobra.NoArgs,
	}
	fileFlag(c, &paths)
	outputFileFlag(c, &out, "file to write, in place of an older one,")
	f := c.Flags()
	f.StringVar(&groupName, "group", "", "gateway group (default: the only one)")
	f.StringVar(&keysFile, "keys", "", `file with keys of consumers, one JSON object a line: {"subscription", "key" or "sha256", "expiresAt"}`)
	f.StringVar(&rootFile, "root-key", "", "file of the root key (default: the bundle's name and .root); made if there is none")
	f.StringVar(&phrase, "passphrase-file", "", "file with a passphrase to seal the bundle with")
	f.Uint64Var(&seq, "seq", 0, "number of the bundle (default: seconds since 1970)")
	f.BoolVar(&dryRun, "dry-run", false, "check and compile only")
	c.RunE = s.run(func(ctx context.Context, _ *cobra.Command, _ []string) error {
		if out == "-" && rootFile == "" && !dryRun {
			return withExit(ExitUsage, errors.New("a bundle on standard output needs --root-key"))
		}
		docs, err := s.readDocuments(paths)
		if err != nil {
			return err
		}
		passphrase, err := secretFile(phrase)
		if err != nil {
			return err
		}
		decode := resource.Options{Organization: s.env(s.organization, "HANSA_ORGANIZATION")}
		objects, faults := resource.Decode("", docs.data, decode)
		if len(faults) > 0 {
			return docs.refuse(faults)
		}
		o := build.Options{Objects: objects, Organization: decode.Organization, Group: groupName, Seq: seq, Now: time.Now()}
		if keysFile != "" {
			in, err := os.Open(keysFile)
			if err != nil {
				return err
			}
			defer in.Close()
			o.Keys, o.KeysFile = in, keysFile
		}
		if rootFile == "" {
			rootFile = out + ".root"
		}
		var fresh bool
		if o.Root, fresh, err = rootKey(rootFile); err != nil {
			return err
		}
		b, err := build.Build(o)
		if faults := resource.FaultsOf(err); len(faults) > 0 {
			resource.Locate("", docs.data, faults, decode)
			return docs.refuse(faults)
		}
		if err != nil {
			return withExit(ExitInvalid, err)
		}
		if !dryRun {
			if fresh {
				if err := o.Root.Save(rootFile, nil); err != nil {
					return err
				}
			}
			if err := s.writeBundle(out, b, passphrase); err != nil {
				return err
			}
			if fresh {
				fmt.Fprintf(s.err, "The root key is new: keep %s, since gateways that start from this bundle take later ones only from it.\n", rootFile)
			}
		}
		return s.showBundle(out, b)
	})
	return c
}

// refuse returns the faults as an error, with the lines of the files instead of those of the stream.
func (d documents) refuse(faults []v1.Fault) error {
	for i := range faults {
		d.placeFault(&faults[i])
	}
	return resource.AsError(faults)
}

// rootKey reads the root key, or makes one, which is nowhere yet, and tells so.
func rootKey(file string) (root *keys.Root, fresh bool, err error) {
	root, err = keys.LoadRoot(file, nil)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return root, false, err
	}
	root, err = keys.GenerateRoot()
	return root, true, err
}

// writeBundle writes a bundle to a file, in place of an older one, whole or not at all, or to standard output.
func (s *session) writeBundle(file string, b *bundle.Bundle, passphrase secret.Bytes) error {
	if file == "-" {
		return wrapOutput(bundle.Write(s.out, b, passphrase))
	}
	return durable.WriteFile(file, 0o600, func(w io.Writer) error { return bundle.Write(w, b, passphrase) })
}

func (s *session) bundleExportCommand() *cobra.Command {
	var (
		out, groupName, phrase string
		slots                  int
		expires                string
		control                []string
	)
	c := &cobra.Command{
		Use:   "export",
		Short: "Write what a gateway group runs as a bundle",
		Long: `Export gets what a gateway group runs from the control node. With --slots the bundle also holds join tokens: a gateway that
started from it spends one as soon as it reaches the control plane. Such a bundle must be sealed with a passphrase. A sealed
bundle also holds the keys of the group, without which a gateway cannot open its secrets, such as the private keys of
certificates.`,
		Example: "  hansa bundle export --group eu -o eu.bundle\n  hansa bundle export --group eu --slots 3 --control control.example.com:8091 --passphrase-file pass.txt -o eu.bundle",
		Args:    cobra.NoArgs,
	}
	outputFileFlag(c, &out, "file to write, in place of an older one,")
	f := c.Flags()
	f.StringVar(&groupName, "group", "", "gateway group")
	f.IntVar(&slots, "slots", 0, "number of join tokens to put in")
	f.StringVar(&expires, "slots-expire", "30d", "how long the join tokens are good")
	f.StringSliceVar(&control, "control", nil, "link address (host:port) of a control node to put in; may be repeated")
	f.StringVar(&phrase, "passphrase-file", "", "file with a passphrase to seal the bundle with")
	_ = c.MarkFlagRequired("group")
	c.RunE = s.run(func(ctx context.Context, _ *cobra.Command, _ []string) error {
		passphrase, err := secretFile(phrase)
		if err != nil {
			return err
		}
		life, err := v1.ParseDuration(expires)
		if err != nil {
			return withExit(ExitUsage, fmt.Errorf("--slots-expire: %w", err))
		}
		if slots > 0 && passphrase.Len() == 0 {
			return withExit(ExitUsage, errors.New("a bundle with join tokens must be sealed: --passphrase-file"))
		}
		return s.call(ctx, 0, func(ctx context.Context, c *client.Client) error {
			organization := s.org()
			defer s.progress("exporting").end()
			var plain bytes.Buffer
			if _, err := c.ExportBundle(ctx, organization, groupName, &plain); err != nil {
				return err
			}
			b, err := bundle.Read(&plain, secret.Bytes{}, nil)
			if err != nil {
				return err
			}
			if len(control) > 0 {
				b.Control = control
			}
			for range slots {
				token, err := c.CreateJoinToken(ctx, organization, v1.JoinTokenRequest{GatewayGroup: groupName, Expires: life})
				if err != nil {
					return err
				}
				b.JoinTokens = append(b.JoinTokens, token.Token)
			}
			if passphrase.Len() > 0 {
				if b.GroupKeys, err = groupKeys(ctx, c, organization, groupName); err != nil {
					return err
				}
			}
			s.endProgress()
			if err := s.writeBundle(out, b, passphrase); err != nil {
				return err
			}
			if slots > 0 && len(b.Control) == 0 {
				fmt.Fprintln(s.err, "The bundle names no control node: give --control here, or to the gateways, so that they can join.")
			}
			return s.showBundle(out, b)
		})
	})
	return c
}

// groupKeys gets the keys of a gateway group, sealed on the way to a key of this call's.
func groupKeys(ctx context.Context, c *client.Client, organization, group string) (keys.GroupKeys, error) {
	recipient, err := keys.GenerateGroupKey()
	if err != nil {
		return keys.GroupKeys{}, err
	}
	answer, err := c.GroupKeys(ctx, organization, group, base64.StdEncoding.EncodeToString(recipient.Public()))
	if err != nil {
		return keys.GroupKeys{}, err
	}
	sealed, err := base64.StdEncoding.DecodeString(answer.Sealed)
	if err != nil {
		return keys.GroupKeys{}, fmt.Errorf("keys of gateway group %s: %w", group, err)
	}
	text, err := recipient.Open(vault.ExportContext(organization, group), sealed)
	if err != nil {
		return keys.GroupKeys{}, fmt.Errorf("keys of gateway group %s: %w", group, err)
	}
	return keys.ParseGroupKeys(text)
}

func (s *session) bundleInspectCommand() *cobra.Command {
	var phrase string
	var entries bool
	c := &cobra.Command{
		Use:     "inspect FILE",
		Short:   "Check a bundle and show what is in it",
		Example: "  hansa bundle inspect shop.bundle\n  hansa bundle inspect shop.bundle --entries -o json",
		Args:    cobra.ExactArgs(1),
	}
	c.Flags().StringVar(&phrase, "passphrase-file", "", "file with the passphrase of the bundle")
	c.Flags().BoolVar(&entries, "entries", false, "list the keys of all entries")
	c.RunE = s.run(func(_ context.Context, _ *cobra.Command, args []string) error {
		passphrase, err := secretFile(phrase)
		if err != nil {
			return err
		}
		f, err := os.Open(args[0])
		if err != nil {
			return err
		}
		defer f.Close()
		b, err := bundle.Read(f, passphrase, nil)
		if err != nil {
			return withExit(ExitInvalid, fmt.Errorf("%s: %w", args[0], err))
		}
		if !entries {
			return s.showBundle(args[0], b)
		}
		list := []string{}
		for e := range b.Set.All() {
			list = append(list, e.Key)
		}
		slices.Sort(list)
		return s.print(list, func(w io.Writer) {
			for _, key := range list {
				fmt.Fprintln(w, key)
			}
		})
	})
	return c
}

// bundleSummary is what is shown of a bundle.
type bundleSummary struct {
	File        string    `json:"file"`
	Cluster     string    `json:"cluster"`
	Root        string    `json:"root"`
	View        string    `json:"view"`
	Epoch       uint64    `json:"epoch"`
	Seq         uint64    `json:"seq"`
	Digest      string    `json:"digest"`
	Entries     int       `json:"entries"`
	Credentials int       `json:"credentials"`
	JoinTokens  int       `json:"joinTokens"`
	Control     []string  `json:"control,omitempty"`
	GroupKeys   int       `json:"groupKeys"`
	CreatedAt   time.Time `json:"createdAt"`
}

func (s *session) showBundle(file string, b *bundle.Bundle) error {
	if file == "-" {
		return nil
	}
	v := bundleSummary{
		File: file, Cluster: b.Trust.Cluster, Root: b.Trust.Fingerprint().String(), View: b.Config.View, Epoch: b.Config.Epoch, Seq: b.Config.Seq,
		Digest: b.Config.Root.String(), Entries: b.Set.Len(), Credentials: b.Credentials.Len(), JoinTokens: len(b.JoinTokens), GroupKeys: b.GroupKeys.Len(),
		Control: b.Control, CreatedAt: b.CreatedAt,
	}
	// The flag -o of the commands that write a bundle names the file.
	return s.print(v, func(w io.Writer) {
		t := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
		for _, row := range [][2]any{
			{"file", v.File},
			{"cluster", v.Cluster},
			{"root", v.Root},
			{"view", v.View},
			{"version", fmt.Sprintf("%d.%d", v.Epoch, v.Seq)},
			{"digest", v.Digest},
			{"entries", v.Entries},
			{"credentials", v.Credentials},
			{"join tokens", v.JoinTokens},
			{"control", dash(strings.Join(v.Control, ", "))},
			{"group keys", v.GroupKeys},
			{"created", v.CreatedAt.Format(time.RFC3339)},
		} {
			fmt.Fprintf(t, "%v\t%v\n", row[0], row[1])
		}
		t.Flush() // a failed write shows where the lines above do
	})
}
