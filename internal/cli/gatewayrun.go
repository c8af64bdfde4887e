package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"slices"

	"github.com/spf13/cobra"

	"hansa.dev/hansa/internal/app"
	"hansa.dev/hansa/internal/gateway"
)

// defaultHTTPS is where traffic over TLS comes in if there are certificates for it.
const defaultHTTPS = ":8443"

// gatewayFlags are the settings of a gateway as the command line has them.
type gatewayFlags struct {
	node
	options                       app.GatewayOptions
	atRest                        atRest
	joinTokenFile, passphraseFile string
	trusted, proxies, listeners   []string
}

func (g *gatewayFlags) register(c *cobra.Command) {
	g.flags(c, "")
	f, o := c.Flags(), &g.options
	f.StringVar(&o.HTTPAddr, "http-addr", ":8080", "traffic")
	f.StringVar(&o.HTTPSAddr, "https-addr", "", "traffic over TLS (default: "+defaultHTTPS+" if --tls-cert-file or --tls-cert-dir is given, else none)")
	f.BoolVar(&o.HTTP3, "http3", true, "take HTTP/3 on the UDP port of --https-addr as well, and tell clients of it")
	f.StringVar(&o.CertFile, "tls-cert-file", "", "default certificate of --https-addr, in PEM; it may be replaced while the gateway runs")
	f.StringVar(&o.KeyFile, "tls-key-file", "", "private key of the default certificate, in PEM")
	tlsFlags(f, &o.TLS)
	f.StringArrayVar(&g.listeners, "listener", nil, "one more listener: name=partner,address=:9443 and, if wanted, tls=true, http3=true, tls-cert-file, tls-key-file, tls-min-version, tls-cipher, max-conns, trusted-proxy, proxy-protocol; may be repeated")
	f.StringSliceVar(&g.trusted, "trusted-proxy", nil, "address or range (10.0.0.0/8) of proxies whose X-Forwarded fields are believed; may be repeated")
	f.StringSliceVar(&g.proxies, "proxy-protocol", nil, "address or range of load balancers whose connections begin with a PROXY header (version 1 or 2); may be repeated")
	clientFlags(f, o)
	f.StringVar(&o.AdminAddr, "admin-addr", "127.0.0.1:8085", "health and metrics")
	f.StringVar(&o.Name, "name", "", "name that the gateway joins with (default: the name of the host)")
	f.StringSliceVar(&o.Control, "control", nil, "link address (host:port) of a control node; may be repeated")
	f.StringVar(&g.joinTokenFile, "join-token-file", "", "file with the join token; needed only to join")
	f.StringVar(&o.Bundle, "bundle", "", "bundle to start from")
	f.StringVar(&g.passphraseFile, "passphrase-file", "", "file with the passphrase of the bundle")
	g.atRest.flags(c, "file with the key that seals the data folder (default: <data>.key, made at the first start)")
	f.StringVar(&o.AccessLog, "access-log", "-", `file of the access log, "-" for standard output, "off" for none`)
	f.DurationVar(&o.DrainDelay, "drain-delay", 0, "how long the health checks say draining before connections are no longer taken")
	f.DurationVar(&o.RetireLimit, "retire-limit", 0, "how long connections may go on after their listener was removed or the process handed over (default: 1h)")
	f.BoolVar(&o.Adopt, "adopt-data", false, "accept a data folder that was copied or moved; the original must be gone for good")
}

func (s *session) gatewayCommand() *cobra.Command {
	g := new(gatewayFlags)
	c := &cobra.Command{
		Use:   "gateway",
		Short: "Run a gateway",
		Long: `Gateway runs a gateway. It joins a control node with a join token and follows it from then on, or starts from a bundle, or
from what its data folder holds; it goes on serving when the control node is away.

SIGHUP reads listeners and log level from --config again and reopens the access log. SIGUSR2 hands over to a new process
of the program, as "hansa upgrade" does.`,
		Example: "  hansa gateway --data /var/lib/hansa-gateway --control control.example.com:8091 --join-token-file join.token\n" +
			"  hansa gateway --data /var/lib/hansa-gateway --bundle shop.bundle",
		Args: cobra.NoArgs,
	}
	g.register(c)
	c.RunE = s.run(func(ctx context.Context, c *cobra.Command, _ []string) error {
		return s.serve(ctx, c, &g.node, func(ctx context.Context, log *slog.Logger) (running, error) {
			if err := s.finishGateway(g, log); err != nil {
				return nil, err
			}
			return started(app.StartGateway(ctx, g.options))
		})
	})
	return c
}

// finishGateway makes options of the flags, and of what is around.
func (s *session) finishGateway(g *gatewayFlags, log *slog.Logger) (err error) {
	o := &g.options
	o.Data, o.ReadyFile, o.Version, o.Log, o.Level = g.data, g.readyFile, version(), log, &g.level
	if o.JoinToken, err = secretFile(g.joinTokenFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // a token that was deleted once it was spent is no fault
	}
	if g.joinTokenFile != "" && o.JoinToken.Len() == 0 {
		log.Info("the file of --join-token-file is empty or missing, which matters only to a gateway that has not joined yet", "file", g.joinTokenFile)
	}
	if o.Passphrase, err = secretFile(g.passphraseFile); err != nil {
		return err
	}
	if err := g.traffic(); err != nil {
		return withExit(ExitUsage, err)
	}
	o.Keys = g.atRest.provider(s, g.data)
	if o.Predecessor, err = app.Predecessor(s.getenv); err != nil {
		return err
	}
	o.Reload = s.settingsAgain
	o.Successor = s.successor
	return nil
}

// traffic makes options of the flags about listeners.
func (g *gatewayFlags) traffic() (err error) {
	if g.options.Trusted, err = prefixes("trusted-proxy", g.trusted); err != nil {
		return err
	}
	if g.options.Proxies, err = prefixes("proxy-protocol", g.proxies); err != nil {
		return err
	}
	if err := checkClientFlags(&g.options); err != nil {
		return err
	}
	if (g.options.CertFile == "") != (g.options.KeyFile == "") {
		return errors.New("--tls-cert-file and --tls-key-file must be given together")
	}
	g.options.Listeners = nil
	for _, text := range g.listeners {
		l, err := parseListener(text)
		if err != nil {
			return fmt.Errorf("--listener: %w", err)
		}
		g.options.Listeners = append(g.options.Listeners, l)
	}
	// The certificates of a folder may be meant for other listeners alone; that of --tls-cert-file never is.
	folder := g.options.TLS.CertDir != "" && !slices.ContainsFunc(g.options.Listeners, func(l gateway.Listener) bool { return l.TLS })
	if g.options.HTTPSAddr == "" && (g.options.CertFile != "" || folder) {
		g.options.HTTPSAddr = defaultHTTPS
	}
	return nil
}

// settingsAgain reads the command line and the configuration file again.
func (s *session) settingsAgain() (app.Settings, error) {
	g, c := new(gatewayFlags), new(cobra.Command)
	g.register(c)
	c.FParseErrWhitelist.UnknownFlags = true // those that all commands have
	if err := c.ParseFlags(s.args); err != nil {
		return app.Settings{}, err
	}
	if err := g.readConfig(c.Flags()); err != nil {
		return app.Settings{}, err
	}
	level, err := app.ParseLevel(g.logLevel)
	if err == nil {
		err = g.traffic()
	}
	o := &g.options
	return app.Settings{
		HTTPAddr: o.HTTPAddr, HTTPSAddr: o.HTTPSAddr, CertFile: o.CertFile, KeyFile: o.KeyFile, HTTP3: o.HTTP3,
		Listeners: o.Listeners, LogLevel: level,
	}, err
}

// successor makes the command that starts a program as this one was started: with its arguments, environment and streams,
// in the same folder. The path is what it was at the start, so that a program put in its place is found.
func (s *session) successor(program string) (*exec.Cmd, error) {
	if program == "" {
		program = os.Args[0]
	}
	program, err := exec.LookPath(program)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program, s.args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd, nil
}
