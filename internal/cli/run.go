package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"hansa.dev/hansa/internal/app"
	"hansa.dev/hansa/internal/bundle"
	"hansa.dev/hansa/internal/gateway"
	"hansa.dev/hansa/internal/identity"
	"hansa.dev/hansa/internal/keys"
	"hansa.dev/hansa/internal/operate"
	"hansa.dev/hansa/internal/store"
	"hansa.dev/hansa/internal/store/etcd"
	"hansa.dev/hansa/internal/telemetry"
	"hansa.dev/hansa/internal/x/durable"
	"hansa.dev/hansa/internal/x/sdnotify"
	"hansa.dev/hansa/internal/x/secret"
)

const (
	// stopTime bounds the whole of stopping a node.
	stopTime = 60 * time.Second
	// maxSecretFile bounds files with a token, a passphrase or settings.
	maxSecretFile = 64 << 10
)

// node holds the flags that all processes share.
type node struct {
	data, readyFile, logLevel, config string
	logJSON                           bool
	level                             slog.LevelVar // of the log, as it is at present
}

func (n *node) flags(c *cobra.Command, data string) {
	f := c.Flags()
	f.StringVar(&n.data, "data", data, "data folder; made at the first start")
	f.StringVar(&n.readyFile, "ready-file", "", "file to write when the process is ready: JSON with pid, addresses, caFile, tokenFile")
	f.StringVar(&n.logLevel, "log-level", "info", "least level of the log: debug, info, warn or error")
	f.BoolVar(&n.logJSON, "log-json", false, "log as JSON")
	f.StringVar(&n.config, "config", "", "YAML file with values for the flags of this command, by their names; the command line wins")
	_ = c.MarkFlagFilename("config", "yaml", "yml")
	_ = c.MarkFlagDirname("data")
	if data == "" {
		c.Long += "\n\nThe data folder is needed: name it with --data."
	}
}

// running is a process that was started.
type running interface {
	Wait(context.Context) error
	Stop(context.Context) error
}

// serve starts a process, runs it until a signal or a failure ends it, and stops it. A second signal ends it at once.
func (s *session) serve(ctx context.Context, c *cobra.Command, n *node, start func(context.Context, *slog.Logger) (running, error)) error {
	if err := n.readConfig(c.Flags()); err != nil {
		return withExit(ExitConfig, err)
	}
	if n.data == "" {
		return withExit(ExitUsage, errors.New("the data folder is not named: --data"))
	}
	level, err := app.ParseLevel(n.logLevel)
	if err != nil {
		return withExit(ExitUsage, fmt.Errorf("--log-level: %w", err))
	}
	if err := checkAddresses(c.Flags()); err != nil {
		return withExit(ExitUsage, err)
	}
	n.level.Set(level)
	log := telemetry.NewLogger(s.err, &n.level, n.logJSON)
	ctx, restore := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer restore()
	p, err := start(ctx, log)
	if err != nil {
		return nodeError(err)
	}
	if g, ok := p.(*app.Gateway); ok {
		defer s.obeySignals(ctx, log, g)()
	}
	if err := sdnotify.Ready(s.getenv); err != nil {
		log.Warn("the service manager is not told that the process is ready", "err", err)
	}
	err = p.Wait(ctx)
	restore() // from here on a signal has its usual effect
	log.Info("stopping")
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	return nodeError(errors.Join(err, p.Stop(stopCtx)))
}

// addressSuffix ends the names of the flags that say where a listener is.
const addressSuffix = "-addr"

// checkAddresses tells which of the flags that say where a listener is do not.
func checkAddresses(flags *pflag.FlagSet) error {
	var faults []error
	flags.VisitAll(func(f *pflag.Flag) {
		text := f.Value.String()
		if !strings.HasSuffix(f.Name, addressSuffix) || text == "" && f.DefValue == "" {
			return
		}
		_, port, err := net.SplitHostPort(text)
		if err == nil {
			_, err = net.LookupPort("tcp", port)
		}
		if err != nil || port == "" {
			faults = append(faults, fmt.Errorf("--%s: %q is not an address to listen on: write HOST:PORT, or :PORT for every interface; port 0 takes any that is free", f.Name, text))
		}
	})
	return errors.Join(faults...)
}

// obeySignals does what signals ask of a gateway until the returned function is called: SIGHUP reads the settings again
// and opens the access log anew, SIGUSR2 hands over to a new process.
func (s *session) obeySignals(ctx context.Context, log *slog.Logger, g *app.Gateway) func() {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, append(upgradeSignals(), syscall.SIGHUP)...)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			case sig := <-asked:
				if sig != syscall.SIGHUP {
					_, _ = g.Upgrade(context.WithoutCancel(ctx), operate.Upgrade{}) // it logs
				} else if err := g.Reload(ctx); err != nil {
					log.Error("cannot reload", "err", err)
				}
			}
		}
	}()
	return func() {
		signal.Stop(asked)
		close(done)
		<-ended
	}
}

// nodeError gives the failure of a node its exit code.
func nodeError(err error) error {
	if err == nil {
		return nil
	}
	for _, sentinel := range []error{
		identity.ErrClone, identity.ErrNoRoot, identity.ErrBadToken, durable.ErrLocked, etcd.ErrLocked, keys.ErrUnseal, keys.ErrForeignRoot,
		bundle.ErrNotBundle, bundle.ErrDamaged, bundle.ErrNeedsPassphrase, app.ErrForeign, app.ErrSetting,
	} {
		if errors.Is(err, sentinel) {
			return withExit(ExitConfig, err)
		}
	}
	if errors.Is(err, store.ErrFailed) || errors.Is(err, etcd.ErrCorrupt) || durable.IsFull(err) {
		return withExit(ExitStorage, err)
	}
	return err
}

// readConfig sets the flags that the command line does not from the file that --config names.
func (n *node) readConfig(flags *pflag.FlagSet) error {
	if n.config == "" {
		return nil
	}
	b, err := readSmall(n.config)
	if err != nil {
		return err
	}
	var values map[string]any
	if err := yaml.Unmarshal(b, &values); err != nil {
		return fmt.Errorf("%s: %w", n.config, err)
	}
	var faults []error
	for _, name := range slices.Sorted(maps.Keys(values)) {
		value := values[name]
		f := flags.Lookup(name)
		if f == nil || name == "config" {
			faults = append(faults, fmt.Errorf("%s: there is no setting %q: see the flags of the command", n.config, name))
			continue
		}
		if f.Changed {
			continue
		}
		list, ok := value.([]any)
		if !ok {
			list = []any{value}
		}
		for _, v := range list {
			if fields, ok := v.(map[string]any); ok {
				v = joinFields(fields)
			}
			if err := flags.Set(name, fmt.Sprint(v)); err != nil {
				faults = append(faults, fmt.Errorf("%s: %s: %w", n.config, name, err))
			}
		}
	}
	return errors.Join(faults...)
}

// joinFields writes an entry of the configuration file with several fields as the flag has it: name=value,name=value.
func joinFields(fields map[string]any) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		values, ok := fields[name].([]any)
		if !ok {
			values = []any{fields[name]}
		}
		for _, v := range values {
			parts = append(parts, fmt.Sprintf("%s=%v", name, v))
		}
	}
	return strings.Join(parts, ",")
}

func readSmall(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(b) > maxSecretFile {
		return nil, fmt.Errorf("%s: %d bytes, at most %d", path, len(b), maxSecretFile)
	}
	return b, nil
}

// secretFile reads a file that holds one secret; no file, no secret.
func secretFile(path string) (secret.Bytes, error) {
	if path == "" {
		return secret.Bytes{}, nil
	}
	b, err := readSmall(path)
	if err != nil {
		return secret.Bytes{}, err
	}
	return secret.New([]byte(strings.TrimSpace(string(b)))), nil
}

func (s *session) devCommand() *cobra.Command {
	n, o := new(node), app.DevOptions{}
	c := &cobra.Command{
		Use:   "dev",
		Short: "Run a control node, a gateway and two sample APIs on this machine",
		Long: `Dev runs everything in one process, on loopback: a control node, a gateway, and a sample organization with two APIs
behind a small sample backend. What is changed stays in the data folder for the next start. The command line finds it by
the file ready.json that it keeps in the data folder while it runs; with -o json it writes the same to standard output.`,
		Example: "  hansa dev\n  hansa dev --http-addr 127.0.0.1:0 --ready-file ready.json",
		Args:    cobra.NoArgs,
	}
	n.flags(c, ".hansa")
	f := c.Flags()
	f.StringVar(&o.HTTPAddr, "http-addr", "127.0.0.1:8080", "traffic")
	f.StringVar(&o.AdminAddr, "admin-addr", "127.0.0.1:8085", "health and metrics of the gateway")
	f.StringVar(&o.APIAddr, "api-addr", "127.0.0.1:8090", "control API (HTTPS)")
	f.StringVar(&o.LinkAddr, "link-addr", "127.0.0.1:8091", "link between control node and gateways")
	f.StringVar(&o.SampleAddr, "sample-addr", "127.0.0.1:8070", "sample backend")
	c.RunE = s.run(func(ctx context.Context, c *cobra.Command, _ []string) error {
		if !c.Flags().Changed("log-level") {
			n.logLevel = "warn" // the progress says enough
		}
		return s.serve(ctx, c, n, func(ctx context.Context, log *slog.Logger) (running, error) {
			o.Data, o.ReadyFile, o.Version, o.Log = n.data, n.readyFile, version(), log
			if s.output == outputTable {
				o.Progress = s.err
			}
			d, err := app.StartDev(ctx, o)
			if err != nil {
				return nil, err
			}
			if s.output != outputTable {
				if err := s.print(d.Ready(), nil); err != nil {
					return nil, errors.Join(err, d.Stop(context.WithoutCancel(ctx)))
				}
				return d, nil
			}
			fmt.Fprint(s.err, d.Welcome(programName()))
			return d, nil
		})
	})
	return c
}

// programName is how a shell finds this program: by its name, or as it was called if it is not where programs are.
func programName() string {
	if _, err := exec.LookPath("hansa"); err != nil && len(os.Args) > 0 {
		return os.Args[0]
	}
	return "hansa"
}

func (s *session) controlCommand() *cobra.Command {
	n, o, at := new(node), app.ControlOptions{}, atRest{}
	c := &cobra.Command{
		Use:     "control",
		Short:   "Run a control node",
		Long:    `Control runs a control node: the record, the control API and the feed that gateways follow.`,
		Example: "  hansa control --data /var/lib/hansa --host control.example.com",
		Args:    cobra.NoArgs,
	}
	n.flags(c, "")
	f := c.Flags()
	f.StringVar(&o.APIAddr, "api-addr", ":8090", "control API (HTTPS)")
	f.StringVar(&o.LinkAddr, "link-addr", ":8091", "link to gateways (gRPC over mutual TLS)")
	f.StringVar(&o.Name, "name", "control", "name of the node")
	f.StringSliceVar(&o.Hosts, "host", nil, "name or IP address for the certificate of the control API; may be repeated")
	f.StringSliceVar(&o.Advertise, "advertise", nil, "link address (host:port) that join tokens carry; may be repeated")
	f.StringSliceVar(&o.ACMEDirectories, "acme-directory", nil, "directory of a CA that certificates may be ordered from; may be repeated (default: any)")
	f.StringVar(&o.RootFile, "root-file", "", "file of the root key (default: among the keys in the data folder)")
	at.flags(c, "file with the key that seals private keys and the secrets of the record (default: <data>.key, made at the first start)")
	f.BoolVar(&o.Adopt, "adopt-data", false, "accept a data folder that was copied or moved; the original must be gone for good")
	c.RunE = s.run(func(ctx context.Context, c *cobra.Command, _ []string) error {
		return s.serve(ctx, c, n, func(ctx context.Context, log *slog.Logger) (running, error) {
			o.Data, o.ReadyFile, o.Version, o.Log, o.Keys = n.data, n.readyFile, version(), log, at.provider(s, n.data)
			return started(app.StartControl(ctx, o))
		})
	})
	return c
}

// atRest holds the flags that say where the at-rest key of a node is.
type atRest struct{ file, credential string }

func (a *atRest) flags(c *cobra.Command, what string) {
	f := c.Flags()
	f.StringVar(&a.file, "key-file", "", what)
	f.StringVar(&a.credential, "key-credential", "", "name of the systemd credential with that key, instead of a file")
}

// provider returns what gives the key; nil for the default.
func (a *atRest) provider(s *session, data string) keys.Provider {
	switch {
	case a.credential != "":
		return keys.CredentialProvider{Name: a.credential, Dir: s.getenv("CREDENTIALS_DIRECTORY")}
	case a.file != "":
		return keys.FileProvider{Path: filepath.Clean(a.file), Outside: data, Generate: true}
	}
	return nil
}

// tlsFlags are those about TLS on all listeners.
func tlsFlags(f *pflag.FlagSet, o *gateway.TLSOptions) {
	f.StringVar(&o.CertDir, "tls-cert-dir", "", "folder of certificates, NAME.crt and NAME.key in PEM, for the hostnames that they carry; it may change while the gateway runs")
	f.StringVar(&o.MinVersion, "tls-min-version", "1.2", "lowest version of TLS: 1.2 or 1.3")
	f.StringSliceVar(&o.Ciphers, "tls-ciphers", nil, "cipher suites of TLS 1.2, such as TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256; may be repeated (default: those that are safe)")
	f.BoolVar(&o.Strict, "tls-strict-sni", false, "refuse clients that ask for a hostname which there is no certificate for, instead of showing the default one")
	f.BoolVar(&o.NoStaples, "tls-no-ocsp", false, "ask no OCSP responders for responses to staple")
	f.BoolVar(&o.AnyHost, "tls-any-host", false, "serve requests for hosts that the certificate of their connection is not for, instead of answering 421")
}

// prefixes reads addresses and ranges of addresses.
func prefixes(flag string, texts []string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if addr, addrErr := netip.ParseAddr(text); addrErr == nil {
			p, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil {
			return nil, fmt.Errorf("--%s: %q is not an address or a range such as 10.0.0.0/8", flag, text)
		}
		all = append(all, p.Masked())
	}
	return all, nil
}

// started keeps a nil pointer from becoming a process that is not nil.
func started[P interface {
	comparable
	running
}](p P, err error) (running, error) {
	if err != nil {
		return nil, err
	}
	return p, nil
}
