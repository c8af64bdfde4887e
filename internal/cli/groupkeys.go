package cli

import (
	"context"

	"github.com/spf13/cobra"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/client"
)

func (s *session) groupKeysCommand() *cobra.Command {
	return group("groupkeys", "Replace the keys that the secrets of gateway groups are sealed to", s.groupKeysRotateCommand())
}

func (s *session) groupKeysRotateCommand() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use:   "rotate GATEWAYGROUP",
		Short: "Make a new key for a gateway group and seal its secrets to it",
		Long: `Rotate makes a new key for a gateway group and seals the secrets of the group to it, in one change. The gateways fetch the
key before they run what is sealed to it; nothing is interrupted. Do so after a gateway of the group was stolen or
revoked: it has the old key, and is not given the new one. Replace the secrets themselves as well, which it has seen.`,
		Example:           "  hansa groupkeys rotate eu",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: s.completeNames(v1.KindGatewayGroup),
	}
	dryRunFlag(c, &dryRun)
	c.RunE = s.run(func(ctx context.Context, _ *cobra.Command, args []string) error {
		return s.call(ctx, changeTime, func(ctx context.Context, c *client.Client) error {
			out, err := tried(c, dryRun).RotateGroupKey(ctx, s.org(), args[0])
			if err != nil {
				return err
			}
			return s.printChanges(out, 0)
		})
	})
	return c
}
