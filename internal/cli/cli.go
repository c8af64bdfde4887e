package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// session is one run of the command line: the streams, the environment and the global flags.
type session struct {
	in       io.Reader
	out, err io.Writer
	getenv   func(string) string
	args     []string

	server, caFile, tokenFile string
	organization              string
	output                    string
	ran                       bool // the command line was understood and a command began
	shown                     *progress
}

// Main runs the command that args (without the name of the program) ask for, and returns its exit code. getenv is
// os.Getenv or something like it. A context that ends stops the command.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, getenv func(string) string) int {
	s := &session{in: stdin, out: stdout, err: stderr, getenv: getenv, args: args}
	root := s.root()
	root.SetArgs(args)
	command, err := root.ExecuteContextC(ctx)
	if err != nil && !s.ran {
		if missing := command.ValidateRequiredFlags(); missing != nil && missing.Error() == err.Error() {
			err = missingFlags(command)
		}
		err = &exitError{code: ExitUsage, err: err}
	}
	if err != nil {
		s.report(command, err)
	}
	return exitCode(err)
}

// The groups of commands in the help text.
const (
	groupResources = "resources"
	groupAccess    = "access"
	groupCluster   = "cluster"
	groupNode      = "node"
	groupOther     = "other"
)

// root returns the command "hansa" with all the others.
func (s *session) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "hansa",
		Short: "Multi-cloud API management: control plane, gateways and command line",
		Long: `Hansa is multi-cloud API management in one program: the control plane, the gateways and this command line.

"hansa dev" starts all of it with a sample on this machine. The commands that talk to a control node find it by the
flags --server, --ca-file and --token-file, by HANSA_SERVER, HANSA_CA_FILE and HANSA_TOKEN_FILE, or by the file
./.hansa/ready.json that "hansa dev" writes; "hansa status" tells which one it is.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 not found, 4 conflict, 5 invalid input, 6 unreachable or timed
out, 10 differences found (diff and plan with --exit-code), 74 storage failed, 78 identity or configuration of the node.`,
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetVersionTemplate("hansa {{.Version}}\n")
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.err)
	root.SetHelpCommandGroupID(groupOther)
	root.SetCompletionCommandGroupID(groupOther)
	root.AddGroup(
		&cobra.Group{ID: groupResources, Title: "Resources:"},
		&cobra.Group{ID: groupAccess, Title: "Keys and tokens:"},
		&cobra.Group{ID: groupCluster, Title: "Nodes and cluster:"},
		&cobra.Group{ID: groupNode, Title: "The gateway on this machine:"},
		&cobra.Group{ID: groupOther, Title: "Help:"},
	)
	flags := root.PersistentFlags()
	flags.StringVar(&s.server, "server", "", "URL of the control API (HANSA_SERVER; default: the one of ./.hansa/ready.json, else https://127.0.0.1:8090)")
	flags.StringVar(&s.caFile, "ca-file", "", "file with the CA certificate of the control API (HANSA_CA_FILE)")
	flags.StringVar(&s.tokenFile, "token-file", "", "file with the bearer token (HANSA_TOKEN_FILE)")
	flags.StringVar(&s.organization, "organization", "", "organization to work in (HANSA_ORGANIZATION; default: default)")
	flags.StringVarP(&s.output, "output", "o", "table", "form of the result: table, json or yaml")
	s.complete(root, "output", "table", "json", "yaml")
	_ = root.RegisterFlagCompletionFunc("organization", s.completeOrganizations)

	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add(groupResources, s.applyCommand(), s.getCommand(), s.deleteCommand(), s.diffCommand(), s.planCommand(), s.exportCommand(), s.importCommand(),
		s.watchCommand(), s.schemaCommand(), s.explainCommand())
	add(groupAccess, s.keysCommand(), s.tokensCommand(), s.joinTokensCommand(), s.groupKeysCommand(), s.gatewaysCommand())
	add(groupCluster, s.devCommand(), s.controlCommand(), s.gatewayCommand(), s.statusCommand(), s.auditCommand(), s.backupCommand(), s.restoreCommand(), s.bundleCommand())
	add(groupNode, s.drainCommand(), s.undrainCommand(), s.maintenanceCommand(), s.logLevelCommand(), s.listenersCommand(), s.reloadCommand(),
		s.upgradeCommand())
	add(groupOther, s.versionCommand())
	checkArguments(root)
	return root
}

// run adapts a command. Whatever fails before it begins is wrong usage.
func (s *session) run(f func(context.Context, *cobra.Command, []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		switch s.output {
		case outputTable, outputJSON, outputYAML:
		default:
			return &exitError{code: ExitUsage, err: errors.New(`--output must be "table", "json" or "yaml", not "` + s.output + `"`)}
		}
		s.ran = true
		return f(c.Context(), c, args)
	}
}

// env returns a flag's value, or that of its environment variable.
func (s *session) env(flag, variable string) string {
	if flag != "" {
		return flag
	}
	return s.getenv(variable)
}

// group returns a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs, RunE: nameOne,
	}
	c.AddCommand(commands...)
	return c
}

// nameOne is what a command does that is only there for those below it.
func nameOne(c *cobra.Command, _ []string) error {
	var names []string
	for _, sub := range c.Commands() {
		names = append(names, sub.Name())
	}
	return fmt.Errorf("name one of its commands: %s", strings.Join(names, ", "))
}

// terminal tells whether a person reads the stream.
func terminal(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
