package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/internal/operate"
)

func (s *session) statusCommand() *cobra.Command {
	var data string
	c := &cobra.Command{
		Use:   "status",
		Short: "Show the control node, who asks, and what there is; or the gateway on this machine",
		Long: `Status shows the control node. With --data it shows the gateway that runs on that data folder of this machine, which needs
no control node.`,
		Example: "  hansa status\n  hansa status --data /var/lib/hansa-gateway",
		Args:    cobra.NoArgs,
	}
	c.Flags().StringVar(&data, "data", "", "data folder of a gateway on this machine")
	_ = c.MarkFlagDirname("data")
	c.RunE = s.run(func(ctx context.Context, _ *cobra.Command, _ []string) error {
		if data != "" {
			return s.operated(ctx, operate.NewClient(data), (*operate.Client).Status)
		}
		t, err := s.target()
		if err != nil {
			return err
		}
		return s.call(ctx, callTime, func(ctx context.Context, c *client.Client) error {
			st, err := c.Status(ctx)
			if err != nil {
				return err
			}
			out := struct {
				v1.ControlStatus
				Target target `json:"target"`
			}{st, t}
			return s.print(out, func(w io.Writer) { statusTable(w, st, t) })
		})
	})
	return c
}

func statusTable(w io.Writer, st v1.ControlStatus, t target) {
	fields(w,
		"server", fmt.Sprintf("%s (found by %s)", t.Server, t.FoundBy),
		"version", st.Version,
		"cluster", st.Cluster,
		"record", fmt.Sprintf("epoch %d, seq %d", st.Epoch, st.Seq),
		"you are", fmt.Sprintf("%s (%s)", st.Principal, roles(st.Roles)),
	)
	var rows [][]string
	for _, o := range st.Organizations {
		var kinds []string
		for _, k := range slices.Sorted(maps.Keys(o.Resources)) {
			kinds = append(kinds, fmt.Sprintf("%s %d", k, o.Resources[k]))
		}
		row := []string{o.Name, fmt.Sprintf("%d up, %d down", o.GatewaysUp, o.GatewaysDown), "-"}
		for line := range slices.Chunk(kinds, 4) { // as many as fit beside the rest
			row[2] = strings.Join(line, ", ")
			rows = append(rows, row)
			row = []string{"", "", ""}
		}
		if len(kinds) == 0 {
			rows = append(rows, row)
		}
	}
	fmt.Fprintln(w)
	columns(w, []string{"ORGANIZATION", "GATEWAYS", "RESOURCES"}, rows)
}

func (s *session) auditCommand() *cobra.Command {
	var limit int
	var all bool
	c := &cobra.Command{
		Use:   "audit",
		Short: "Show who changed what, newest first",
		Long:  "Audit shows the change sets of the organization, newest first; with --all those of all organizations and of what belongs\nto none, which needs the role admin in all.",
		Args:  cobra.NoArgs,
	}
	c.Flags().IntVar(&limit, "limit", 50, "how many change sets to show")
	c.Flags().BoolVar(&all, "all", false, "of all organizations")
	c.RunE = s.run(func(ctx context.Context, _ *cobra.Command, _ []string) error {
		o := client.AuditOptions{Organization: s.org(), Limit: limit}
		if all {
			o.Organization = ""
		}
		return s.call(ctx, callTime, func(ctx context.Context, c *client.Client) error {
			list, err := c.Audit(ctx, o)
			if err != nil {
				return err
			}
			return s.print(list, func(w io.Writer) {
				var rows [][]string
				for _, r := range list.Items {
					rows = append(rows, []string{fmt.Sprintf("%d.%d", r.Epoch, r.Seq), when(r.At, "-"), r.Principal, auditChanges(r), dash(r.Reason)})
				}
				columns(w, []string{"VERSION", "AT", "PRINCIPAL", "CHANGES", "REASON"}, rows)
			})
		})
	})
	return c
}

// auditChanges names the first changes of a change set.
func auditChanges(r v1.AuditRecord) string {
	const shown = 3
	var out []string
	for i, ch := range r.Changes {
		if i == shown {
			out = append(out, fmt.Sprintf("and %d more", len(r.Changes)-shown+r.Omitted))
			break
		}
		out = append(out, fmt.Sprintf("%s %s %s", ch.Kind, ch.Name, ch.Action))
	}
	if r.Credentials > 0 {
		out = append(out, count(r.Credentials, "key"))
	}
	return dash(strings.Join(out, ", "))
}

// version is the version of this binary: the one of its module, or of the commit that it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	revision, modified := "", ""
	for _, setting := range info.Settings {
		switch setting.Key {
		case "vcs.revision":
			revision = setting.Value
		case "vcs.modified":
			if setting.Value == "true" {
				modified = "+changes"
			}
		}
	}
	if revision == "" {
		return "devel"
	}
	return revision[:min(len(revision), 12)] + modified
}

func (s *session) versionCommand() *cobra.Command {
	c := &cobra.Command{Use: "version", Short: "Show the version of this program", Args: cobra.NoArgs}
	c.RunE = s.run(func(context.Context, *cobra.Command, []string) error {
		out := struct {
			Version  string `json:"version"`
			Go       string `json:"go"`
			Platform string `json:"platform"`
		}{version(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
		return s.print(out, func(w io.Writer) { fmt.Fprintf(w, "hansa %s (%s, %s)\n", out.Version, out.Go, out.Platform) })
	})
	return c
}

// printLine writes v as JSON on one line.
func (s *session) printLine(v any) error {
	enc := json.NewEncoder(s.out)
	enc.SetEscapeHTML(false)
	return wrapOutput(enc.Encode(v))
}
