package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/client"
)

func (s *session) joinTokensCommand() *cobra.Command {
	return group("jointokens", "Make, list and take back the tokens that gateways join with",
		s.joinTokensCreateCommand(), s.joinTokensListCommand(), s.joinTokensDeleteCommand())
}

func (s *session) joinTokensCreateCommand() *cobra.Command {
	var expires string
	var dryRun bool
	c := &cobra.Command{
		Use:   "create GATEWAYGROUP",
		Short: "Make a token that one gateway can join a group with",
		Long: `Create makes a token that one new gateway enrols with, once. It carries the fingerprint of the cluster's root, so that the
gateway knows the control plane before it trusts it. The token is shown now and never again.`,
		Example:           "  hansa jointokens create eu > join.token\n  hansa gateway --data ./gw --control control.example.com:8091 --join-token-file join.token",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: s.completeNames(v1.KindGatewayGroup),
	}
	c.Flags().StringVar(&expires, "expires", "", "how long the token can be used, at most 30d (default: 1h)")
	dryRunFlag(c, &dryRun)
	c.RunE = s.run(func(ctx context.Context, _ *cobra.Command, args []string) error {
		d, err := expiresFlag(expires)
		if err != nil {
			return err
		}
		return s.call(ctx, callTime, func(ctx context.Context, c *client.Client) error {
			t, err := tried(c, dryRun).CreateJoinToken(ctx, s.org(), v1.JoinTokenRequest{GatewayGroup: args[0], Expires: d})
			if err != nil {
				return err
			}
			return s.printSecret(t, t.Token, fmt.Sprintf("Join token %s for one gateway of group %s, until %s. It is shown only this once.", t.Name, t.GatewayGroup, when(t.ExpiresAt, "-")))
		})
	})
	return c
}

func (s *session) joinTokensListCommand() *cobra.Command {
	c := &cobra.Command{Use: "list", Short: "Show the join tokens, without their values", Args: cobra.NoArgs}
	c.RunE = s.run(func(ctx context.Context, _ *cobra.Command, _ []string) error { return s.showJoinTokens(ctx, "") })
	return c
}

// showJoinTokens shows the join tokens of the organization, or the one with that name.
func (s *session) showJoinTokens(ctx context.Context, name string) error {
	return s.call(ctx, callTime, func(ctx context.Context, c *client.Client) error {
		list, err := c.JoinTokens(ctx, s.org())
		if err != nil {
			return err
		}
		table := func(items []v1.JoinToken) func(io.Writer) {
			return func(w io.Writer) {
				var rows [][]string
				for _, t := range items {
					rows = append(rows, []string{t.Name, t.GatewayGroup, when(t.ExpiresAt, "-"), dash(t.UsedBy)})
				}
				columns(w, []string{"NAME", "GATEWAY GROUP", "EXPIRES", "USED BY"}, rows)
			}
		}
		if name == "" {
			return s.print(list, table(list.Items))
		}
		for _, t := range list.Items {
			if t.Name == name {
				return s.print(t, table([]v1.JoinToken{t}))
			}
		}
		return withExit(ExitNotFound, fmt.Errorf("there is no join token %q in organization %q", name, s.org()))
	})
}

func (s *session) joinTokensDeleteCommand() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{Use: "delete NAME", Short: "Take a join token back", Args: cobra.ExactArgs(1)}
	dryRunFlag(c, &dryRun)
	c.RunE = s.run(func(ctx context.Context, _ *cobra.Command, args []string) error {
		return s.call(ctx, callTime, func(ctx context.Context, c *client.Client) error {
			if err := tried(c, dryRun).DeleteJoinToken(ctx, s.org(), args[0]); err != nil {
				return err
			}
			return s.printDone("join token "+args[0], "deleted", dryRun)
		})
	})
	return c
}

func (s *session) gatewaysCommand() *cobra.Command {
	list := &cobra.Command{Use: "list", Short: "Show the gateways and what they run", Args: cobra.NoArgs}
	list.RunE = s.run(func(ctx context.Context, _ *cobra.Command, _ []string) error { return s.showGateways(ctx, "") })
	return group("gateways", "Show and revoke gateways", list, s.gatewaysRevokeCommand())
}

// showGateways shows the gateways of the organization, or the one with that name.
func (s *session) showGateways(ctx context.Context, name string) error {
	return s.call(ctx, callTime, func(ctx context.Context, c *client.Client) error {
		if name != "" {
			g, err := c.Gateway(ctx, s.org(), name)
			if err != nil {
				return err
			}
			return s.print(g, func(w io.Writer) { gatewayTable(w, []v1.GatewayStatus{g}) })
		}
		list, err := c.Gateways(ctx, s.org())
		if err != nil {
			return err
		}
		return s.print(list, func(w io.Writer) { gatewayTable(w, list.Items) })
	})
}

func gatewayTable(w io.Writer, items []v1.GatewayStatus) {
	var rows [][]string
	for _, g := range items {
		link := g.Link
		if g.Revoked {
			link = "revoked"
		}
		refusal := "-"
		if g.LastRefusal != nil {
			refusal = g.LastRefusal.Code
		}
		rows = append(rows, []string{g.Name, dash(g.Site), g.Group, dash(g.Version), fmt.Sprintf("%d.%d", g.Epoch, g.Seq), link, age(g.AgeSeconds), refusal})
	}
	columns(w, []string{"NAME", "SITE", "GROUP", "VERSION", "RUNS", "LINK", "SEEN", "LAST REFUSAL"}, rows)
}

func (s *session) gatewaysRevokeCommand() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use:               "revoke NAME",
		Short:             "Refuse a gateway on the link from now on",
		Long:              "Revoke refuses a gateway on the link, whatever its certificate says. It gets no change any more; to stop its traffic stop\nthe process. \"hansa delete gateway NAME\" forgets it afterwards.",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: s.completeNames(v1.KindGateway),
	}
	dryRunFlag(c, &dryRun)
	c.RunE = s.run(func(ctx context.Context, _ *cobra.Command, args []string) error {
		return s.call(ctx, callTime, func(ctx context.Context, c *client.Client) error {
			out, err := tried(c, dryRun).RevokeGateway(ctx, s.org(), args[0])
			if err != nil {
				return err
			}
			return s.printChanges(out, 0)
		})
	})
	return c
}
