package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/internal/resource"
)

func (s *session) getCommand() *cobra.Command {
	var selector string
	c := &cobra.Command{
		Use:     "get KIND [NAME]",
		Short:   "Show resources",
		Long:    "Get shows the resources of a kind, or one of them. With -o yaml or -o json it shows all of each resource; what it shows\ncan be changed and applied again, and is then refused if the resource has changed meanwhile (metadata.seq).",
		Example: "  hansa get apis\n  hansa get api catalog -o yaml\n  hansa get apis --selector tier=gold,!legacy\n  hansa get gateways",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("name a kind: " + strings.Join(plurals(), ", "))
			}
			return cobra.MaximumNArgs(2)(c, args)
		},
		ValidArgsFunction: s.completeKindAndName,
	}
	c.Flags().StringVarP(&selector, "selector", "l", "", "only resources with these labels: key=value, key!=value, key, !key")
	c.RunE = s.run(func(ctx context.Context, _ *cobra.Command, args []string) error {
		info, err := shownKind(args[0])
		if err != nil {
			return err
		}
		name := ""
		if len(args) == 2 {
			name = args[1]
		}
		switch info.Kind {
		case v1.KindGateway:
			return s.showGateways(ctx, name)
		case v1.KindJoinToken:
			return s.showJoinTokens(ctx, name)
		}
		return s.call(ctx, callTime, func(ctx context.Context, c *client.Client) error {
			if name != "" {
				o, err := c.Get(ctx, s.key(info, name))
				if err != nil {
					return err
				}
				return s.print(o, func(w io.Writer) { resourceTable(w, info.Kind, []*v1.Object{o}) })
			}
			list := v1.List{Items: []*v1.Object{}}
			for o, err := range c.All(ctx, info.Kind, s.org(), client.ListOptions{Selector: selector}) {
				if err != nil {
					return err
				}
				list.Items = append(list.Items, o)
			}
			return s.print(itemList{Kind: "List", Items: list.Items}, func(w io.Writer) {
				if len(list.Items) == 0 {
					fmt.Fprintf(s.err, "no %s%s\n", info.Plural, s.inOrganization(info))
					return
				}
				resourceTable(w, info.Kind, list.Items)
			})
		})
	})
	return c
}

// itemList is a list of resources as "apply" reads it again.
type itemList struct {
	Kind  string       `json:"kind"`
	Items []*v1.Object `json:"items"`
}

func (s *session) inOrganization(info v1.KindInfo) string {
	if info.Global {
		return ""
	}
	return fmt.Sprintf(" in organization %q", s.org())
}

// resourceTable writes resources of one kind for people.
func resourceTable(w io.Writer, kind v1.Kind, items []*v1.Object) {
	header, cells := kindColumns(kind)
	header = append(append([]string{"NAME"}, header...), "SEQ", "LABELS")
	var rows [][]string
	for _, o := range items {
		row := append([]string{o.Metadata.Name}, cells(o)...)
		rows = append(rows, append(row, strconv.FormatUint(o.Metadata.Seq, 10), labels(o.Metadata.Labels)))
	}
	columns(w, header, rows)
}

func labels(m map[string]string) string {
	if len(m) == 0 {
		return "-"
	}
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, k+"="+m[k])
	}
	return strings.Join(out, ",")
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func limit(l *v1.Limit) string {
	if l == nil {
		return "-"
	}
	return fmt.Sprintf("%d per %s", l.Limit, l.Window)
}

// kindColumns returns what a table of a kind shows, beside name, seq and labels.
func kindColumns(kind v1.Kind) ([]string, func(*v1.Object) []string) {
	switch kind {
	case v1.KindSite:
		return []string{"CLOUD", "REGION", "JURISDICTION"}, func(o *v1.Object) []string {
			spec := o.Spec.(*v1.SiteSpec)
			return []string{dash(spec.Cloud), dash(spec.Region), dash(spec.Jurisdiction)}
		}
	case v1.KindGatewayGroup:
		return []string{"SITE"}, func(o *v1.Object) []string { return []string{o.Spec.(*v1.GatewayGroupSpec).Site} }
	case v1.KindEnvironment:
		return []string{"GATEWAY GROUPS"}, func(o *v1.Object) []string {
			var groups []string
			for _, p := range o.Spec.(*v1.EnvironmentSpec).Placements {
				groups = append(groups, p.GatewayGroup)
			}
			return []string{dash(strings.Join(groups, ","))}
		}
	case v1.KindEnvironmentGroup:
		return []string{"HOSTNAMES", "ENVIRONMENTS"}, func(o *v1.Object) []string {
			spec := o.Spec.(*v1.EnvironmentGroupSpec)
			return []string{strings.Join(spec.Hostnames, ","), strings.Join(spec.Environments, ",")}
		}
	case v1.KindCertificate:
		return []string{"HOSTNAMES", "NOT AFTER", "GATEWAY GROUPS", "ACME"}, certificateCells
	case v1.KindBackend:
		return []string{"PROTOCOL", "ENDPOINTS"}, func(o *v1.Object) []string {
			spec := o.Spec.(*v1.BackendSpec)
			var addresses []string
			for _, e := range spec.Endpoints {
				addresses = append(addresses, e.Address)
			}
			if d := spec.Discovery; d != nil {
				addresses = append(addresses, d.Type+":"+d.Name)
			}
			return []string{dash(spec.Protocol), strings.Join(addresses, ",")}
		}
	case v1.KindAPI:
		return []string{"BASE PATH", "BACKEND", "OPERATIONS", "REVISION"}, func(o *v1.Object) []string {
			spec := o.Spec.(*v1.APISpec)
			operations := "all"
			if n := len(spec.Operations); n > 0 {
				operations = strconv.Itoa(n)
			}
			backends := []string{}
			if spec.Backend != "" {
				backends = append(backends, spec.Backend)
			}
			if spec.Split != nil {
				for _, b := range spec.Split.Backends {
					backends = append(backends, fmt.Sprintf("%s:%d", b.Backend, b.Weight))
				}
			}
			return []string{spec.BasePath, dash(strings.Join(backends, ",")), operations, strconv.FormatUint(o.Metadata.Revision, 10)}
		}
	case v1.KindAPIRevision:
		return []string{"API", "REVISION", "BASE PATH"}, func(o *v1.Object) []string {
			spec := o.Spec.(*v1.APIRevisionSpec)
			return []string{spec.API, strconv.FormatUint(spec.Revision, 10), spec.Spec.BasePath}
		}
	case v1.KindDeployment:
		return []string{"API", "ENVIRONMENT", "REVISION"}, func(o *v1.Object) []string {
			spec := o.Spec.(*v1.DeploymentSpec)
			revision := "latest"
			if spec.Revision > 0 {
				revision = strconv.FormatUint(spec.Revision, 10)
			}
			return []string{spec.API, spec.Environment, revision}
		}
	case v1.KindProduct:
		return []string{"APIS", "QUOTA", "RATE LIMIT"}, func(o *v1.Object) []string {
			spec := o.Spec.(*v1.ProductSpec)
			return []string{dash(strings.Join(spec.APIs, ",")), limit(spec.Quota), limit(spec.RateLimit)}
		}
	case v1.KindApplication:
		return []string{"OWNER"}, func(o *v1.Object) []string { return []string{dash(o.Spec.(*v1.ApplicationSpec).Owner)} }
	case v1.KindSubscription:
		return []string{"APPLICATION", "PRODUCT", "STATE"}, func(o *v1.Object) []string {
			spec := o.Spec.(*v1.SubscriptionSpec)
			state := "active"
			if spec.Suspended {
				state = "suspended"
			}
			return []string{spec.Application, spec.Product, state}
		}
	case v1.KindPrincipal:
		return []string{"ROLES"}, func(o *v1.Object) []string {
			return []string{dash(roles(o.Spec.(*v1.PrincipalSpec).Roles))}
		}
	}
	return nil, func(*v1.Object) []string { return nil }
}

func certificateCells(o *v1.Object) []string {
	spec := o.Spec.(*v1.CertificateSpec)
	st := new(v1.CertificateStatus)
	if o.Status != nil && o.Status.Certificate != nil {
		st = o.Status.Certificate
	}
	names := spec.Hostnames
	if len(names) == 0 {
		names = st.Names
	}
	return []string{
		dash(strings.Join(names, ",")), when(st.NotAfter, "-"), dash(strings.Join(st.GatewayGroups, ",")), dash(acmeState(o.Status)),
	}
}

// acmeState returns the reasons of the conditions that matter most: what failed, or else what goes on.
func acmeState(st *v1.Status) string {
	if st == nil {
		return ""
	}
	reasons := map[string]string{}
	for _, c := range st.Conditions {
		if c.Status == "True" || c.Type == "Issued" {
			reasons[c.Type] = c.Reason
		}
	}
	if reason, failed := reasons["Failed"]; failed {
		return "Failed: " + reason
	}
	if reasons["Renewing"] != "" && reasons["Issued"] == "Issued" {
		return "Renewing"
	}
	return reasons["Issued"]
}

func roles(bindings []v1.RoleBinding) string {
	var out []string
	for _, b := range bindings {
		out = append(out, b.Role+"@"+b.Organization)
	}
	return strings.Join(out, ",")
}

func (s *session) exportCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "export [KIND...]",
		Short: "Write resources as files that can be applied again",
		Long: `Export writes the resources of an organization, or those of some kinds, without what Hansa wrote (metadata.seq, revisions
and status), as documents that "hansa apply" takes. Keys and tokens are not part of them: "hansa backup" has everything.`,
		Example: "  hansa export > shop.yaml\n  hansa export apis products -o json",
		ValidArgsFunction: func(_ *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
			return matching(plurals(), prefix), cobra.ShellCompDirectiveNoFileComp
		},
	}
	c.RunE = s.run(func(ctx context.Context, _ *cobra.Command, args []string) error {
		kinds, err := exportedKinds(args)
		if err != nil {
			return err
		}
		return s.call(ctx, changeTime, func(ctx context.Context, c *client.Client) error {
			var all []*v1.Object
			for _, info := range kinds {
				for o, err := range c.All(ctx, info.Kind, s.org(), client.ListOptions{}) {
					if err != nil {
						return err
					}
					all = append(all, resource.Editable(o))
				}
			}
			s.endProgress()
			if s.output == outputJSON {
				return wrapOutput(resource.WriteJSON(s.out, all...))
			}
			return wrapOutput(resource.WriteYAML(s.out, all...))
		})
	})
	return c
}

func exportedKinds(words []string) ([]v1.KindInfo, error) {
	var out []v1.KindInfo
	if len(words) == 0 {
		for _, info := range v1.Kinds() {
			if !info.Global && !info.System {
				out = append(out, info)
			}
		}
		return out, nil
	}
	for _, word := range words {
		info, err := kindOf(word)
		if err != nil {
			return nil, err
		}
		if info.System {
			return nil, withExit(ExitUsage, fmt.Errorf("%s are written by Hansa alone and cannot be applied", info.Plural))
		}
		out = append(out, info)
	}
	return out, nil
}

func (s *session) watchCommand() *cobra.Command {
	var since string
	c := &cobra.Command{
		Use:               "watch KIND",
		Short:             "Show changes of resources as they are made",
		Long:              "Watch writes one line for each change of a resource, with -o json one JSON object, until it is interrupted.",
		Example:           "  hansa watch apis\n  hansa watch deployments -o json --since 1.42",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: s.completeKindAndName,
	}
	c.Flags().StringVar(&since, "since", "", `begin after this version, "EPOCH.SEQ" (default: now)`)
	c.RunE = s.run(func(ctx context.Context, _ *cobra.Command, args []string) error {
		info, err := shownKind(args[0])
		if err != nil {
			return err
		}
		return s.call(ctx, 0, func(ctx context.Context, c *client.Client) error {
			for ev, err := range c.Watch(ctx, info.Kind, s.org(), since) {
				if ctx.Err() != nil {
					return nil // interrupted, which is how a watch ends
				}
				if err != nil {
					return err
				}
				if err := s.printEvent(ev); err != nil {
					return err
				}
			}
			return nil
		})
	})
	return c
}

func (s *session) printEvent(ev v1.WatchEvent) error {
	if s.output == outputJSON {
		return s.printLine(ev)
	}
	switch ev.Type {
	case v1.WatchPut:
		_, err := fmt.Fprintf(s.out, "%d.%d %s %s changed\n", ev.Epoch, ev.Seq, ev.Object.Kind, oneLine(ev.Object.Metadata.Name))
		return wrapOutput(err)
	case v1.WatchDelete:
		_, err := fmt.Fprintf(s.out, "%d.%d %s %s deleted\n", ev.Epoch, ev.Seq, ev.Kind, oneLine(ev.Name))
		return wrapOutput(err)
	}
	return nil
}
