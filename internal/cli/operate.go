package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"hansa.dev/hansa/internal/gateway"
	"hansa.dev/hansa/internal/operate"
)

// nodeFlags are those of commands about the gateway on this machine.
type nodeFlags struct {
	data   string
	dryRun bool
}

// devGatewayFolder is where "hansa dev" has the data of its gateway, in the folder that it was started in.
func devGatewayFolder() string { return filepath.Join(".hansa", "gateway") }

func (f *nodeFlags) register(c *cobra.Command, change bool) {
	c.Flags().StringVar(&f.data, "data", "", "data folder of the gateway (HANSA_DATA; default: the one of ./.hansa/gateway)")
	_ = c.MarkFlagDirname("data")
	if change {
		dryRunFlag(c, &f.dryRun)
	}
}

// client returns a client of the gateway that the flags mean.
func (s *session) operate(f *nodeFlags) (*operate.Client, error) {
	data := s.env(f.data, "HANSA_DATA")
	if data == "" {
		if data = devGatewayFolder(); !exists(data) {
			return nil, withExit(ExitUsage, errors.New("the data folder of the gateway is not named: --data, or HANSA_DATA"))
		}
	}
	c := operate.NewClient(data)
	if f.dryRun {
		c = c.DryRun()
	}
	return c, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// operated makes one call about the gateway and shows how it does afterwards.
func (s *session) operated(ctx context.Context, c *operate.Client, do func(*operate.Client, context.Context) (operate.Status, error)) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	defer s.progress("waiting for the gateway").end()
	st, err := do(c, ctx)
	if err != nil {
		return err
	}
	return s.print(st, func(w io.Writer) { ownTable(w, st) })
}

func ownTable(w io.Writer, st operate.Status) {
	state := "serves"
	switch {
	case st.Drained:
		state = "drained"
	case st.Draining:
		state = "draining"
	case st.Maintenance:
		state = "under maintenance"
	case st.Generation == 0:
		state = "has no configuration"
	}
	var addresses []string
	for _, name := range slices.Sorted(maps.Keys(st.Addresses)) {
		addresses = append(addresses, name+" "+st.Addresses[name])
	}
	fields(w,
		"gateway", state,
		"version", fmt.Sprintf("%s, process %d, since %s", st.Version, st.PID, when(st.StartedAt, "-")),
		"configuration", fmt.Sprintf("epoch %d, seq %d, %s", st.Epoch, st.Seq, count(st.APIs, "API")),
		"credentials", strconv.Itoa(st.Credentials),
		"traffic", fmt.Sprintf("%s, %s", count(st.Connections, "connection"), count(st.Streams, "stream")),
		"listeners", strings.Join(addresses, ", "),
		"log level", dash(st.LogLevel),
	)
	for _, c := range st.Checks {
		if !c.OK {
			fmt.Fprintf(w, "%s: %s\n", c.Name, c.Error)
		}
	}
}

// nodeCommand makes a command that makes one change of the gateway.
func (s *session) nodeCommand(c *cobra.Command, do func(c *operate.Client, ctx context.Context, args []string) (operate.Status, error)) *cobra.Command {
	f := new(nodeFlags)
	f.register(c, true)
	c.RunE = s.run(func(ctx context.Context, _ *cobra.Command, args []string) error {
		client, err := s.operate(f)
		if err != nil {
			return err
		}
		return s.operated(ctx, client, func(c *operate.Client, ctx context.Context) (operate.Status, error) { return do(c, ctx, args) })
	})
	return c
}

func (s *session) drainCommand() *cobra.Command {
	f := new(nodeFlags)
	var wait time.Duration
	c := &cobra.Command{
		Use:   "drain",
		Short: "Take the gateway on this machine out of service, without a request that fails",
		Long: `Drain has the health checks say "draining", so that load balancers send nothing more, and every response end its
connection; after --drain-delay of the gateway idle connections are closed too. Who still comes is served. The process goes
on: end it, or take drain back with "hansa undrain".`,
		Example: "  hansa drain --data /var/lib/hansa-gateway --wait\n  hansa drain --wait=5m && systemctl stop hansa-gateway",
		Args:    cobra.NoArgs,
	}
	f.register(c, true)
	c.Flags().DurationVar(&wait, "wait", 0, "wait until no connection is left, this long at most (10m without a value)")
	c.Flags().Lookup("wait").NoOptDefVal = "10m"
	c.RunE = s.run(func(ctx context.Context, _ *cobra.Command, _ []string) error {
		client, err := s.operate(f)
		if err != nil {
			return err
		}
		return s.operated(ctx, client, func(c *operate.Client, ctx context.Context) (operate.Status, error) {
			st, err := c.Drain(ctx)
			if err != nil || wait <= 0 || f.dryRun {
				return st, err
			}
			return awaitDrained(context.WithoutCancel(ctx), c, wait)
		})
	})
	return c
}

// awaitDrained asks until the gateway has no connection left.
func awaitDrained(ctx context.Context, c *operate.Client, limit time.Duration) (operate.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		st, err := c.Status(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			return st, err
		case err == nil && st.Drained:
			return st, nil
		case err == nil && !st.Draining:
			return st, withExit(ExitConflict, errors.New("somebody has taken drain back"))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return st, withExit(ExitUnreachable, fmt.Errorf("after %v there are still %s, of which %s",
				limit, count(st.Connections, "connection"), count(st.Streams, "stream")))
		}
	}
}

func (s *session) undrainCommand() *cobra.Command {
	return s.nodeCommand(&cobra.Command{
		Use: "undrain", Short: `Take "hansa drain" back`, Args: cobra.NoArgs,
		Example: "  hansa undrain --data /var/lib/hansa-gateway",
	}, func(c *operate.Client, ctx context.Context, _ []string) (operate.Status, error) {
		return c.Undrain(ctx)
	})
}

func (s *session) maintenanceCommand() *cobra.Command {
	return s.nodeCommand(&cobra.Command{
		Use:   "maintenance on|off",
		Short: "Ask load balancers to send the gateway on this machine no traffic, or some again",
		Long: `Maintenance has /healthchecklb answer 503 "under maintenance"; all else is served as before. It outlives a restart of the
gateway.`,
		Example:   "  hansa maintenance on --data /var/lib/hansa-gateway\n  hansa maintenance off",
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"on", "off"},
	}, func(c *operate.Client, ctx context.Context, args []string) (operate.Status, error) {
		return c.SetMaintenance(ctx, args[0] == "on")
	})
}

func (s *session) logLevelCommand() *cobra.Command {
	return s.nodeCommand(&cobra.Command{
		Use:       "log-level LEVEL",
		Short:     "Change what the gateway on this machine logs: debug, info, warn or error",
		Long:      "Log-level changes the least level of the log of a running gateway, until it is restarted.",
		Example:   "  hansa log-level debug --data /var/lib/hansa-gateway",
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"debug", "info", "warn", "error"},
	}, func(c *operate.Client, ctx context.Context, args []string) (operate.Status, error) {
		return c.SetLogLevel(ctx, args[0])
	})
}

func (s *session) reloadCommand() *cobra.Command {
	return s.nodeCommand(&cobra.Command{
		Use:   "reload",
		Short: "Have the gateway on this machine read its settings again",
		Long: `Reload has the gateway read listeners and log level from the file of --config again and open its access log anew, as SIGHUP
does. A listener that stays the same is left alone; the connections of one that is changed or gone finish.`,
		Example: "  hansa reload --data /var/lib/hansa-gateway",
		Args:    cobra.NoArgs,
	}, func(c *operate.Client, ctx context.Context, _ []string) (operate.Status, error) { return c.Reload(ctx) })
}

func (s *session) upgradeCommand() *cobra.Command {
	f := new(nodeFlags)
	var u operate.Upgrade
	c := &cobra.Command{
		Use:   "upgrade",
		Short: "Have the gateway on this machine hand over to a new process of the program",
		Long: `Upgrade starts the program anew, with the same command line and environment, and has it take over the listening sockets,
the data folder and the counts of quotas. When it serves, the old process takes no more connections and ends with its last
one. No request fails, streams go on. If the new process does not come up, the old one goes on as if nothing had been.`,
		Example: "  hansa upgrade --data /var/lib/hansa-gateway\n  hansa upgrade --program /opt/hansa/2.0/hansa",
		Args:    cobra.NoArgs,
	}
	f.register(c, true)
	c.Flags().StringVar(&u.Program, "program", "", "the new program (default: the path that the running one was started from)")
	c.Flags().DurationVar(&u.Timeout, "timeout", time.Minute, "how long the new process may take until it serves")
	_ = c.MarkFlagFilename("program")
	c.RunE = s.run(func(ctx context.Context, _ *cobra.Command, _ []string) error {
		client, err := s.operate(f)
		if err != nil {
			return err
		}
		if u.Program != "" {
			if u.Program, err = filepath.Abs(u.Program); err != nil {
				return err
			}
		}
		ctx, cancel := context.WithTimeout(ctx, u.Timeout+callTime)
		defer cancel()
		out, err := client.Upgrade(ctx, u)
		if err != nil {
			return err
		}
		return s.print(out, func(w io.Writer) {
			if f.dryRun {
				fmt.Fprintf(w, "Process %d (version %s) would hand over.\n", out.OldPID, out.Version)
				return
			}
			fmt.Fprintf(w, "Process %d (version %s) serves; process %d finishes its connections.\n", out.PID, out.Version, out.OldPID)
		})
	})
	return c
}

func (s *session) listenersCommand() *cobra.Command {
	return group("listeners", "List, add and remove listeners of the gateway on this machine",
		s.listenersListCommand(), s.listenersAddCommand(), s.listenersRemoveCommand())
}

// listenersCommandOf makes one of the commands about listeners.
func (s *session) listenersCommandOf(c *cobra.Command, change bool, do func(c *operate.Client, ctx context.Context, args []string) (operate.Listeners, error)) *cobra.Command {
	f := new(nodeFlags)
	f.register(c, change)
	c.RunE = s.run(func(ctx context.Context, _ *cobra.Command, args []string) error {
		client, err := s.operate(f)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, callTime)
		defer cancel()
		out, err := do(client, ctx, args)
		if err != nil {
			return err
		}
		return s.print(out, func(w io.Writer) { listenersTable(w, out) })
	})
	return c
}

func listenersTable(w io.Writer, all operate.Listeners) {
	var rows [][]string
	for _, l := range all.Items {
		certificate, conns := "-", "-"
		if l.CertFile != "" {
			certificate = l.CertFile
		}
		if l.MaxConns > 0 {
			conns = strconv.Itoa(l.MaxConns)
		}
		rows = append(rows, []string{l.Name, l.Address, l.Bound, certificate, conns})
	}
	columns(w, []string{"NAME", "ADDRESS", "BOUND", "CERTIFICATE", "MAX CONNECTIONS"}, rows)
}

func (s *session) listenersListCommand() *cobra.Command {
	return s.listenersCommandOf(&cobra.Command{Use: "list", Short: "Show the listeners", Args: cobra.NoArgs}, false,
		func(c *operate.Client, ctx context.Context, _ []string) (operate.Listeners, error) {
			return c.Listeners(ctx)
		})
}

func (s *session) listenersAddCommand() *cobra.Command {
	return s.listenersCommandOf(&cobra.Command{
		Use:   "add name=NAME,address=HOST:PORT[,...]",
		Short: "Open a listener",
		Long: `Add opens a listener; the fields are those of the flag --listener of "hansa gateway". It stays until it is removed or the
gateway is stopped, also over an upgrade. What should outlive a restart belongs in the file of --config.`,
		Example: "  hansa listeners add name=partner,address=:9443,tls-cert-file=/etc/hansa/p.pem,tls-key-file=/etc/hansa/p.key",
		Args:    cobra.ExactArgs(1),
	}, true, func(c *operate.Client, ctx context.Context, args []string) (operate.Listeners, error) {
		l, err := parseListener(args[0])
		if err != nil {
			return operate.Listeners{}, withExit(ExitUsage, err)
		}
		return c.AddListener(ctx, l)
	})
}

func (s *session) listenersRemoveCommand() *cobra.Command {
	c := s.listenersCommandOf(&cobra.Command{
		Use:     "remove NAME",
		Short:   "Close a listener; its connections finish",
		Example: "  hansa listeners remove partner",
		Args:    cobra.ExactArgs(1),
	}, true, func(c *operate.Client, ctx context.Context, args []string) (operate.Listeners, error) {
		return c.RemoveListener(ctx, args[0])
	})
	c.ValidArgsFunction = func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		data, _ := c.Flags().GetString("data") // the flag is there
		client, err := s.operate(&nodeFlags{data: data})
		if err != nil || len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(c.Context(), completeTime)
		defer cancel()
		all, _ := client.Listeners(ctx) // completion has no place for errors
		var names []string
		for _, l := range all.Items {
			names = append(names, l.Name)
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
	return c
}

// parseListener reads name=value,name=value.
func parseListener(text string) (l gateway.Listener, err error) {
	var trusted, proxies []string
	for part := range strings.SplitSeq(text, ",") {
		name, value, ok := strings.Cut(part, "=")
		if !ok {
			return l, fmt.Errorf("%q in listener %q must be name=value", part, text)
		}
		switch name {
		case "name":
			l.Name = value
		case "address":
			l.Address = value
		case "tls":
			l.TLS, err = strconv.ParseBool(value)
		case "http3":
			l.HTTP3, err = strconv.ParseBool(value)
		case "tls-cert-file":
			l.CertFile, err = filepath.Abs(value)
		case "tls-key-file":
			l.KeyFile, err = filepath.Abs(value)
		case "tls-min-version":
			l.TLSMinVersion = value
		case "tls-cipher":
			l.TLSCiphers = append(l.TLSCiphers, value)
		case "max-conns":
			l.MaxConns, err = strconv.Atoi(value)
		case "trusted-proxy":
			trusted = append(trusted, value)
		case "proxy-protocol":
			proxies = append(proxies, value)
		default:
			return l, fmt.Errorf("listener %q has no field %q: name, address, tls, http3, tls-cert-file, tls-key-file, tls-min-version, tls-cipher, max-conns, trusted-proxy, proxy-protocol", text, name)
		}
		if err != nil {
			return l, fmt.Errorf("%s of listener %q: %w", name, text, err)
		}
	}
	if l.Trusted, err = prefixes("listener", trusted); err != nil {
		return l, err
	}
	if l.Proxies, err = prefixes("listener", proxies); err != nil {
		return l, err
	}
	return l, l.Validate()
}
