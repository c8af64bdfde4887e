package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/client"
)

func (s *session) tokensCommand() *cobra.Command {
	return group("tokens", "Make, list and revoke the bearer tokens of principals",
		s.tokensCreateCommand(), s.tokensListCommand(), s.tokensRevokeCommand())
}

// expiresFlag reads a duration flag; "" is 0.
func expiresFlag(value string) (v1.Duration, error) {
	if value == "" {
		return 0, nil
	}
	d, err := v1.ParseDuration(value)
	if err != nil || d <= 0 {
		return 0, withExit(ExitUsage, fmt.Errorf("--expires: %q is not a duration: write it as 90d or 12h", value))
	}
	return d, nil
}

func (s *session) tokensCreateCommand() *cobra.Command {
	var expires string
	var dryRun bool
	c := &cobra.Command{
		Use:               "create PRINCIPAL",
		Short:             "Make a bearer token and show it, once",
		Example:           "  hansa tokens create ci --expires 90d > ci.token",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: s.completeNames(v1.KindPrincipal),
	}
	c.Flags().StringVar(&expires, "expires", "", "how long the token is valid, such as 90d (default: for ever)")
	dryRunFlag(c, &dryRun)
	c.RunE = s.run(func(ctx context.Context, _ *cobra.Command, args []string) error {
		d, err := expiresFlag(expires)
		if err != nil {
			return err
		}
		return s.call(ctx, callTime, func(ctx context.Context, c *client.Client) error {
			t, err := tried(c, dryRun).CreateToken(ctx, args[0], v1.TokenRequest{Expires: d})
			if err != nil {
				return err
			}
			return s.printSecret(t, t.Token, fmt.Sprintf("Token %s of principal %s, expires %s. It is shown only this once.", t.ID, t.Principal, when(t.ExpiresAt, "never")))
		})
	})
	return c
}

// printSecret prints v, or for people the secret alone on standard output, so that it can be sent to a file, and what
// it is on standard error.
func (s *session) printSecret(v any, secret, note string) error {
	if s.output != outputTable {
		return s.print(v, nil)
	}
	if secret == "" {
		note = "Only tried: nothing was made."
	} else if _, err := fmt.Fprintln(s.out, secret); err != nil {
		return wrapOutput(err)
	}
	fmt.Fprintln(s.err, note)
	return nil
}

func (s *session) tokensListCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "list PRINCIPAL", Short: "Show the bearer tokens of a principal, without their values",
		Args: cobra.ExactArgs(1), ValidArgsFunction: s.completeNames(v1.KindPrincipal),
	}
	c.RunE = s.run(func(ctx context.Context, _ *cobra.Command, args []string) error {
		return s.call(ctx, callTime, func(ctx context.Context, c *client.Client) error {
			list, err := c.Tokens(ctx, args[0])
			if err != nil {
				return err
			}
			return s.print(list, func(w io.Writer) {
				var rows [][]string
				for _, t := range list.Items {
					rows = append(rows, []string{t.ID, when(t.ExpiresAt, "never")})
				}
				columns(w, []string{"ID", "EXPIRES"}, rows)
			})
		})
	})
	return c
}

func (s *session) tokensRevokeCommand() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use: "revoke PRINCIPAL ID", Short: "End a bearer token",
		Args: cobra.ExactArgs(2), ValidArgsFunction: s.completeNames(v1.KindPrincipal),
	}
	dryRunFlag(c, &dryRun)
	c.RunE = s.run(func(ctx context.Context, _ *cobra.Command, args []string) error {
		return s.call(ctx, callTime, func(ctx context.Context, c *client.Client) error {
			if err := tried(c, dryRun).RevokeToken(ctx, args[0], args[1]); err != nil {
				return err
			}
			return s.printDone("token "+args[1], "revoked", dryRun)
		})
	})
	return c
}

// printDone prints that something was done, or would be.
func (s *session) printDone(what, verb string, dryRun bool) error {
	result := struct {
		Name   string `json:"name"`
		Action string `json:"action"`
		DryRun bool   `json:"dryRun,omitempty"`
	}{what, verb, dryRun}
	return s.print(result, func(w io.Writer) {
		if dryRun {
			verb = "would be " + verb
		}
		fmt.Fprintf(w, "%s %s\n", what, verb)
	})
}
