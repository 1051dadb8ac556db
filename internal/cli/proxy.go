package cli

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/podkey/podkey/internal/imds"
	"github.com/podkey/podkey/internal/intercept"
	"github.com/podkey/podkey/internal/sidecar"
)

// How a postStart hook waits for the server beside it.
const (
	probeTries = 7
	probePause = time.Second
)

// proxyFlags are the flags of `podkey proxy`.
type proxyFlags struct {
	port                          int
	logLevel, protocol            string
	probe, requireHeader, forward bool
	identities                    []string
}

func newProxy() *cobra.Command {
	var f proxyFlags
	cmd := &cobra.Command{
		Use:   "proxy",
		Short: "Give an application that knows only managed identities its tokens (sidecar)",
		Long: `Answer on the loopback address of a pod like the metadata service of a virtual
machine, or like App Service, with tokens that are got by workload identity:
for applications that know only managed identities.

The webhook adds this to pods with the annotation
azure.workload.identity/inject-proxy-sidecar, with all that it needs; it reads
AZURE_TENANT_ID, AZURE_CLIENT_ID, AZURE_FEDERATED_TOKEN_FILE and
AZURE_AUTHORITY_HOST. It starts without the token service. docs/proxy.md has
the rest.`,
		Example: `  podkey proxy --proxy-port 8000
  podkey proxy --proxy-port 8000 --probe`,
		Args: noArgs,
		RunE: f.run,
	}
	fl := cmd.Flags()
	fl.IntVar(&f.port, "proxy-port", intercept.DefaultProxyPort, "port on the loopback address")
	fl.BoolVar(&f.probe, "probe", false, "wait until the proxy on that port is ready, and stop")
	fl.StringVar(&f.protocol, "protocol", "imds", "imds, or appservice with the secret of the variable IDENTITY_HEADER")
	fl.BoolVar(&f.requireHeader, "require-metadata-header", true, "refuse requests without the header Metadata: true")
	fl.BoolVar(&f.forward, "forward-metadata", false, "pass what is not about identities on to the node's metadata service")
	fl.StringArrayVar(&f.identities, "identity", nil, "CLIENTID=ID[,ID...]: ARM or object ids by which clients may name an identity; may be repeated")
	fl.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	for flag, values := range map[string][]string{"protocol": {"imds", "appservice"}, "log-level": {"debug", "info", "warn", "error"}} {
		_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	return cmd
}

func (f *proxyFlags) run(cmd *cobra.Command, _ []string) error {
	ctx := cmd.Context()
	if f.port < 1 || f.port > 1<<16-1 {
		return &usageError{fmt.Errorf("%d is not a port", f.port), "give --proxy-port a number from 1 to 65535"}
	}
	if f.probe {
		return sidecar.Probe(ctx, fmt.Sprintf("http://127.0.0.1:%d", f.port), probeTries, probePause)
	}
	level, err := logLevel(f.logLevel)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewJSONHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
	h, err := f.handler(log)
	if err != nil {
		return err
	}
	if err := noCoreDumps(); err != nil {
		return err
	}
	ln, err := sidecar.Listen(ctx, f.port)
	if err != nil {
		return err
	}
	log.Info("the proxy is ready", "address", ln.Addr().String(), "protocol", f.protocol, "version", readVersion().Version)
	s := &sidecar.Server{Handler: h, Log: log}
	if err := s.Serve(ctx, ln); err != nil {
		return err
	}
	log.Info("the proxy has stopped")
	return nil
}

// handler makes the protocol's handler from flags and environment.
func (f *proxyFlags) handler(log *slog.Logger) (*imds.Handler, error) {
	identities, err := parseIdentities(f.identities)
	if err != nil {
		return nil, err
	}
	source, err := sidecar.SourceFromEnv(os.Getenv)
	if err != nil {
		return nil, &hinted{err, "the webhook sets the variables of workload identity: does the pod have the label azure.workload.identity/use: \"true\"?"}
	}
	source.Identities, source.Log = identities, log
	h := &imds.Handler{Token: source.Token, Log: log}
	switch f.protocol {
	case "appservice":
		if f.forward {
			return nil, &usageError{errors.New("there is no metadata to forward in App Service's protocol"), "leave out --forward-metadata"}
		}
		if h.Secret = os.Getenv("IDENTITY_HEADER"); h.Secret == "" {
			return nil, &hinted{errors.New("IDENTITY_HEADER not set"), "it is the secret that clients have to send, the same as in the application's container"}
		}
	case "imds":
		h.Metadata, h.HeaderOptional = true, !f.requireHeader
		if !f.forward {
			h.Instance = sidecar.Instance(os.Getenv)
			break
		}
		to, err := url.Parse(sidecar.MetadataService)
		if err != nil {
			return nil, err
		}
		h.Other = sidecar.PassOn(to, log)
	default:
		return nil, &usageError{fmt.Errorf("unknown protocol %q", f.protocol), "use --protocol imds or --protocol appservice"}
	}
	return h, nil
}

// parseIdentities reads CLIENTID=ID[,ID...] into client ids by what else
// names them.
func parseIdentities(flags []string) (map[string]string, error) {
	m := map[string]string{}
	for _, flag := range flags {
		client, ids, _ := strings.Cut(flag, "=")
		if client == "" || ids == "" {
			return nil, &usageError{fmt.Errorf("--identity %q is not CLIENTID=ID", flag), "for example: --identity CLIENTID=/subscriptions/SUB/resourceGroups/RG/providers/Microsoft.ManagedIdentity/userAssignedIdentities/NAME"}
		}
		for id := range strings.SplitSeq(ids, ",") {
			id = strings.ToLower(strings.TrimSpace(id))
			if other, there := m[id]; id == "" || there && other != client {
				return nil, &usageError{fmt.Errorf("--identity %q: the id %q is empty or names two identities", flag, id), "give each id to one client id"}
			}
			m[id] = client
		}
	}
	return m, nil
}

func newProxyInit() *cobra.Command {
	return &cobra.Command{
		Use:   "proxy-init",
		Short: "Redirect a pod's metadata address to its proxy (init container)",
		Long: `Redirect what a pod sends to the instance metadata address to the proxy beside
it, with nftables. The webhook starts this in a pod before the application. It
needs the capability NET_ADMIN and no other, and may be run again.

Variables: PROXY_PORT (8000), METADATA_IP (169.254.169.254), METADATA_PORT (80),
and PROXY_UID (1501), the user whose connections are not redirected.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return proxyInit(cmd) },
	}
}

func proxyInit(cmd *cobra.Command) error {
	r, err := intercept.FromEnv(os.Getenv)
	if err != nil {
		return err
	}
	if err := r.Install(); err != nil {
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "podkey: tcp to %s goes to port %d, but for user %d\n", r.Metadata, r.ProxyPort, r.ProxyUID)
	return nil
}
