package cli

import (
	"bytes"
	"context"
	"strings"

	"github.com/spf13/cobra"

	"hansa.dev/hansa/internal/resource"
)

func (s *session) schemaCommand() *cobra.Command {
	c := &cobra.Command{
		Use:               "schema KIND",
		Short:             "Show the JSON Schema of a kind",
		Long:              "Schema writes the JSON Schema of a kind, for editors and validators. It is the one of this program; no server is asked.",
		Example:           "  hansa schema API > api.schema.json",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: s.completeKinds,
	}
	c.RunE = s.run(func(_ context.Context, _ *cobra.Command, args []string) error {
		info, err := kindOf(args[0])
		if err != nil {
			return err
		}
		schema, err := resource.Schema(info)
		if err != nil {
			return err
		}
		if s.output == outputTable {
			s.output = outputJSON // it has no other form for people
		}
		return s.print(schema, nil)
	})
	return c
}

func (s *session) explainCommand() *cobra.Command {
	c := &cobra.Command{
		Use:               "explain KIND[.FIELD]",
		Short:             "Show the documentation of a kind or of one of its fields",
		Example:           "  hansa explain api\n  hansa explain API.operations.path",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: s.completeFields,
	}
	c.RunE = s.run(func(_ context.Context, _ *cobra.Command, args []string) error {
		kind, path, _ := strings.Cut(args[0], ".")
		info, err := kindOf(kind)
		if err != nil {
			return err
		}
		var text bytes.Buffer
		if err := resource.Explain(&text, info, path); err != nil {
			return withExit(ExitNotFound, err)
		}
		_, err = text.WriteTo(s.out)
		return wrapOutput(err)
	})
	return c
}

// completeFields completes the only argument with the kinds, and after a dot with the fields there.
func (s *session) completeFields(c *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	dot := strings.LastIndex(prefix, ".")
	if dot < 0 || len(args) > 0 {
		return s.completeKinds(c, args, prefix)
	}
	kind, path, _ := strings.Cut(prefix[:dot], ".")
	info, err := kindOf(kind)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, name := range resource.FieldNames(info, path) {
		out = append(out, prefix[:dot+1]+name)
	}
	return matching(out, prefix), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

// completeKinds completes the only argument with the kinds.
func (s *session) completeKinds(_ *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return matching(plurals(), prefix), cobra.ShellCompDirectiveNoFileComp
}
