package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	v1 "hansa.dev/hansa/api/v1"
	"hansa.dev/hansa/client"
	"hansa.dev/hansa/internal/resource"
)

// kindOf finds a kind by its name or its plural, in any case.
func kindOf(word string) (v1.KindInfo, error) {
	info, err := resource.KindOf(word)
	if err != nil {
		return info, withExit(ExitUsage, err)
	}
	return info, nil
}

// shownKind is kindOf for a kind whose resources are asked for.
func shownKind(word string) (v1.KindInfo, error) {
	info, err := kindOf(word)
	if err == nil && info.Private {
		err = withExit(ExitUsage, fmt.Errorf("%s are what Hansa works with, and are not shown", info.Plural))
	}
	return info, err
}

// plurals returns the kinds whose resources can be asked for.
func plurals() []string {
	var out []string
	for _, info := range v1.Kinds() {
		if !info.Private {
			out = append(out, info.Plural)
		}
	}
	return out
}

// key identifies a resource in the organization to work in.
func (s *session) key(info v1.KindInfo, name string) v1.Key {
	k := v1.Key{Kind: info.Kind, Name: name}
	if !info.Global {
		k.Organization = s.org()
	}
	return k
}

// completeTime bounds what completion asks the server for: nobody waits for it longer.
const completeTime = 2 * time.Second

// complete makes fixed values the completions of a flag.
func (*session) complete(c *cobra.Command, flag string, values ...string) {
	_ = c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

func (s *session) completeKindAndName(c *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	switch len(args) {
	case 0:
		return matching(plurals(), prefix), cobra.ShellCompDirectiveNoFileComp
	case 1:
		if info, err := kindOf(args[0]); err == nil {
			return s.names(c.Context(), info, prefix), cobra.ShellCompDirectiveNoFileComp
		}
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// completeNames completes the first argument with the names of a kind.
func (s *session) completeNames(kind v1.Kind) func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return func(c *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if info, ok := v1.Lookup(kind); ok && len(args) == 0 {
			return s.names(c.Context(), info, prefix), cobra.ShellCompDirectiveNoFileComp
		}
		return nil, cobra.ShellCompDirectiveDefault
	}
}

func (s *session) completeOrganizations(c *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	info, _ := v1.Lookup(v1.KindOrganization)
	return s.names(c.Context(), info, prefix), cobra.ShellCompDirectiveNoFileComp
}

// names returns the names of a kind that begin with prefix; none if the server does not answer.
func (s *session) names(ctx context.Context, info v1.KindInfo, prefix string) []string {
	var out []string
	_ = s.call(ctx, completeTime, func(ctx context.Context, c *client.Client) error { // completion has no place for errors
		if info.Kind == v1.KindGateway {
			list, err := c.Gateways(ctx, s.org())
			for _, g := range list.Items {
				out = append(out, g.Name)
			}
			return err
		}
		list, err := c.List(ctx, info.Kind, s.org(), client.ListOptions{})
		for _, o := range list.Items {
			out = append(out, o.Metadata.Name)
		}
		return err
	})
	return matching(out, prefix)
}

func matching(words []string, prefix string) []string {
	var out []string
	for _, w := range words {
		if strings.HasPrefix(w, prefix) {
			out = append(out, w)
		}
	}
	return out
}
