package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Reference returns the reference page docs/reference/cli.md.
func Reference() []byte {
	root := (&session{getenv: func(string) string { return "" }}).root()
	root.InitDefaultCompletionCmd()
	var b strings.Builder
	b.WriteString(`# Command line

<!-- Generated from internal/cli by "go test ./internal/cli -run TestReference -update". -->

`)
	b.WriteString(strings.TrimSpace(root.Long) + "\n\n## Flags of every command\n\n")
	flagTable(&b, root.PersistentFlags())
	for _, g := range root.Groups() {
		for _, c := range root.Commands() {
			if c.GroupID == g.ID && c.IsAvailableCommand() {
				commandSection(&b, c)
			}
		}
	}
	return []byte(b.String())
}

func commandSection(b *strings.Builder, c *cobra.Command) {
	if !c.HasSubCommands() {
		fmt.Fprintf(b, "\n## %s\n\n%s.\n\n```text\n%s\n```\n", c.CommandPath(), c.Short, c.UseLine())
		if c.Long != "" {
			fmt.Fprintf(b, "\n%s\n", strings.TrimSpace(dropIndent(c.Long)))
		}
		if c.Example != "" {
			fmt.Fprintf(b, "\n```sh\n%s\n```\n", dropIndent(c.Example))
		}
		if c.LocalNonPersistentFlags().HasAvailableFlags() {
			b.WriteString("\n")
			flagTable(b, c.LocalNonPersistentFlags())
		}
	}
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			commandSection(b, sub)
		}
	}
}

// dropIndent takes away the two blanks that help texts begin their lines with.
func dropIndent(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = strings.TrimPrefix(l, "  ")
	}
	return strings.Join(lines, "\n")
}

func flagTable(b *strings.Builder, flags *pflag.FlagSet) {
	b.WriteString("| flag | default | what |\n|---|---|---|\n")
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		name := "`--" + f.Name + "`"
		if f.Shorthand != "" {
			name += ", `-" + f.Shorthand + "`"
		}
		def := f.DefValue
		if def == "" || def == "[]" || def == "false" {
			def = "-"
		} else {
			def = "`" + def + "`"
		}
		fmt.Fprintf(b, "| %s | %s | %s |\n", name, def, strings.ReplaceAll(f.Usage, "|", "\\|"))
	})
}
