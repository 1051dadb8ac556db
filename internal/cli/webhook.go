package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/klog/v2"

	"github.com/podkey/podkey/internal/admission"
	"github.com/podkey/podkey/internal/webhook"
)

// webhookJitter spreads writes by replicas that saw the same change. It is also
// how long admissions fail at most after somebody emptied a CA bundle.
const webhookJitter = 250 * time.Millisecond

// webhookGC lets garbage grow to half of what lives before it is collected. An
// admission makes little of it, and a webhook's memory is asked for twice in
// every cluster.
const webhookGC = 50

// webhookFlags are the flags of `podkey webhook`.
type webhookFlags struct {
	c     webhook.Config
	rules admission.Config
	end   admission.CustomEndpoint

	certDir, tlsMin, metricsBackend, logLevel string
	level                                     slog.Level
	supplied, ownNames                        bool
	profile, trustCA, kubeconfig              string
}

func newWebhook() *cobra.Command {
	var f webhookFlags
	cmd := &cobra.Command{
		Use:   "webhook",
		Short: "Give the pods of this cluster their identities (admission webhook)",
		Long: `Answer the API server's admission reviews: pods with the label
azure.workload.identity/use: "true" get the token, the variables and, if they
ask for it, the proxy of their service account's identity.

The webhook makes its own serving certificate, keeps it in a secret that all
replicas share, and registers its CA in the webhook configurations. With
--disable-cert-rotation, both are somebody else's, such as cert-manager's.

Variables: AZURE_TENANT_ID (required), AZURE_ENVIRONMENT, PROXY_IMAGE,
PROXY_INIT_IMAGE, POD_NAMESPACE, POD_NAME, and those of a custom token endpoint,
AZURE_KUBERNETES_TOKEN_PROXY, _SNI_NAME, _CA_DATA, _CA_CONFIGMAP_NAME,
_CA_CTB_SIGNER_NAME and _CA_CTB_LABEL_SELECTOR.`,
		Example: `  podkey webhook --image registry.example/podkey:1.0
  podkey webhook --kubeconfig admin.conf --authority-host https://login.podkey.example/ --trust-ca ca.pem --own-names`,
		Args: noArgs,
		RunE: f.run,
	}
	fl := cmd.Flags()
	fl.StringVar(&f.rules.Audience, "audience", "", "audience of the tokens (default "+admission.DefaultAudience+")")
	fl.StringVar(&f.rules.AuthorityHost, "authority-host", "", "URL of the token service (default: that of AZURE_ENVIRONMENT)")
	fl.BoolVar(&f.ownNames, "own-names", false, "the token service is Podkey under its own name: SDKs must not ask Azure about it")
	fl.StringVar(&f.profile, "profile", string(admission.Classic), "layout of the token volume: classic, reserved, hashed or both")
	fl.StringVar(&f.rules.Images.Proxy, "image", "", "image of injected containers; $PROXY_IMAGE and $PROXY_INIT_IMAGE are for the proxy alone")
	fl.StringVar(&f.rules.Images.PullPolicy, "image-pull-policy", "IfNotPresent", "pull policy of injected containers")
	fl.StringVar(&f.trustCA, "trust-ca", "", "PEM file of certificates that pods are made to trust")
	fl.StringVar(&f.end.Suffix, "custom-token-endpoint-annotation-suffix", "", "suffix of the annotation azure.workload.identity/use-SUFFIX")
	fl.StringVar(&f.end.Audience, "custom-token-endpoint-audience", "", "audience of the tokens for the custom token endpoint")

	fl.StringVar(&f.c.Listen, "listen", ":9443", "address for the API server")
	fl.StringVar(&f.c.HealthListen, "health-addr", ":9440", "address of /healthz and /readyz")
	fl.StringVar(&f.c.MetricsListen, "metrics-addr", ":8095", "address of /metrics")
	fl.StringVar(&f.metricsBackend, "metrics-backend", "prometheus", "prometheus")
	fl.StringVar(&f.tlsMin, "tls-min-version", "1.3", "1.2 or 1.3")
	fl.BoolVar(&f.supplied, "disable-cert-rotation", false, "the certificate is in --webhook-cert-dir, and somebody else renews and registers it")
	fl.StringVar(&f.certDir, "webhook-cert-dir", "/certs", "directory of tls.crt and tls.key, with --disable-cert-rotation")
	fl.DurationVar(&f.c.DrainDelay, "drain-delay", 5*time.Second, "how long to serve on after SIGTERM, until the API server sends elsewhere")
	fl.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")

	fl.StringVar(&f.kubeconfig, "kubeconfig", "", "kubeconfig file (default: as kubectl finds it, or the pod's own)")
	fl.StringVar(&f.c.Namespace, "namespace", "", "namespace of service and secret (default $POD_NAMESPACE, else podkey-system)")
	fl.StringVar(&f.c.Service, "service", "podkey-webhook", "service that the webhook configurations name")
	fl.StringVar(&f.c.Secret, "secret", "podkey-webhook-cert", "secret that keeps CA and certificate")
	fl.StringVar(&f.c.Configuration, "configuration", "podkey-webhook", "name of the mutating and of the validating webhook configuration")

	for flag, values := range map[string][]string{
		"log-level": {"debug", "info", "warn", "error"}, "tls-min-version": {"1.2", "1.3"}, "metrics-backend": {"prometheus"},
		"profile":           {string(admission.Classic), string(admission.Reserved), string(admission.Hashed), string(admission.Both)},
		"image-pull-policy": {"IfNotPresent", "Always", "Never"},
	} {
		_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	_ = cmd.MarkFlagFilename("trust-ca", "pem", "crt")
	_ = cmd.MarkFlagFilename("kubeconfig")
	_ = cmd.MarkFlagDirname("webhook-cert-dir")
	return cmd
}

func (f *webhookFlags) run(cmd *cobra.Command, _ []string) error {
	if err := f.resolve(cmd); err != nil {
		return err
	}
	// The keys of the CA are in our memory.
	if err := noCoreDumps(); err != nil {
		return err
	}
	var err error
	if f.c.Kube, err = kubeConfig(f.kubeconfig, ""); err != nil {
		return err
	}
	f.c.Kube.UserAgent = "podkey-webhook/" + readVersion().Version
	debug.SetGCPercent(webhookGC)
	// What the client library has to say below that is about its own inside.
	klog.SetSlogLogger(slog.New(slog.NewJSONHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: max(f.level, slog.LevelInfo)})))
	s, err := webhook.New(f.c)
	if err != nil {
		return err
	}
	f.c.Log.Info("listening", "admission", s.Addr().String(), "health", s.HealthAddr().String(), "metrics", s.MetricsAddr().String())
	return s.Run(cmd.Context())
}

// resolve checks flags and variables and fills in the configuration.
func (f *webhookFlags) resolve(cmd *cobra.Command) error {
	usage := func(err error, hint string) error { return &usageError{err, hint} }
	see := "see: " + cmd.CommandPath() + " --help"

	level, err := logLevel(f.logLevel)
	if err != nil {
		return err
	}
	f.level = level
	f.c.Log = slog.New(slog.NewJSONHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
	switch f.tlsMin {
	case "1.2":
		f.c.MinTLS = tls.VersionTLS12
	case "1.3":
		f.c.MinTLS = tls.VersionTLS13
	case "1.0", "1.1":
		return usage(fmt.Errorf("TLS %s is not offered, it is broken", f.tlsMin), "use --tls-min-version 1.2 or 1.3")
	default:
		return usage(fmt.Errorf("unknown TLS version %q", f.tlsMin), "use --tls-min-version 1.2 or 1.3")
	}
	if !strings.EqualFold(f.metricsBackend, "prometheus") {
		return usage(fmt.Errorf("unknown metrics backend %q", f.metricsBackend), "use --metrics-backend prometheus")
	}
	if f.c.DrainDelay < 0 {
		return usage(fmt.Errorf("drain delay %s is negative", f.c.DrainDelay), see)
	}
	if f.supplied {
		f.c.CertDir = f.certDir
	}
	if f.c.Namespace == "" {
		f.c.Namespace = os.Getenv("POD_NAMESPACE")
	}
	if f.c.Namespace == "" {
		f.c.Namespace = "podkey-system"
	}
	if f.c.Instance = os.Getenv("POD_NAME"); f.c.Instance == "" {
		f.c.Instance, _ = os.Hostname()
	}
	f.c.Jitter = webhookJitter
	f.c.MaxReview = admission.MaxReview
	f.c.Annotations, f.c.MaxAnnotation = admission.AccountAnnotations(), admission.MaxValue+1

	if err := f.resolveRules(); err != nil {
		return usage(err, see)
	}
	f.c.Rules = func(major, minor string) webhook.Rules {
		c := f.rules
		c.NativeSidecars = admission.NativeSidecars(major, minor)
		// It was valid without, and this is no matter of validity.
		r, err := admission.New(c)
		if err != nil {
			panic(err)
		}
		return reviews{r}
	}
	return nil
}

// resolveRules fills in what pods get.
func (f *webhookFlags) resolveRules() error {
	c := &f.rules
	c.TenantID = os.Getenv("AZURE_TENANT_ID")
	cloud, err := admission.AuthorityHost(os.Getenv("AZURE_ENVIRONMENT"))
	if err != nil {
		return err
	}
	if f.ownNames {
		if c.AuthorityHost == "" {
			return errors.New("--own-names needs --authority-host, Podkey's name")
		}
		// As podkey run: it keeps SDKs from asking Azure about an authority
		// that they do not know.
		c.Extra = append(c.Extra, admission.EnvVar{Name: "AZURE_REGIONAL_AUTHORITY_NAME", Value: "podkey"})
	}
	if c.AuthorityHost == "" {
		c.AuthorityHost = cloud
	}
	c.Profile = admission.Profile(f.profile)
	c.LogLevel = f.logLevel
	if c.Images.Proxy != "" {
		c.Images.Trust = c.Images.Proxy
	}
	if v := os.Getenv("PROXY_IMAGE"); v != "" {
		c.Images.Proxy = v
	}
	c.Images.ProxyInit = os.Getenv("PROXY_INIT_IMAGE")
	if f.trustCA != "" {
		pem, err := os.ReadFile(f.trustCA)
		if err != nil {
			return fmt.Errorf("read the certificates that pods are to trust: %w", err)
		}
		c.Trust = &admission.Trust{CA: string(pem)}
	}
	f.end.TokenProxy = os.Getenv("AZURE_KUBERNETES_TOKEN_PROXY")
	f.end.SNIName = os.Getenv("AZURE_KUBERNETES_SNI_NAME")
	f.end.CAData = os.Getenv("AZURE_KUBERNETES_CA_DATA")
	f.end.CAConfigMap = os.Getenv("AZURE_KUBERNETES_CA_CONFIGMAP_NAME")
	f.end.CASigner = os.Getenv("AZURE_KUBERNETES_CA_CTB_SIGNER_NAME")
	f.end.CALabelSelector = os.Getenv("AZURE_KUBERNETES_CA_CTB_LABEL_SELECTOR")
	c.CustomEndpoint = &f.end
	return c.Validate()
}

// reviews are the rules as the webhook calls them.
type reviews struct{ rules *admission.Rules }

// Mutate implements webhook.Rules.
func (r reviews) Mutate(ctx context.Context, review []byte, lookup webhook.LookupFunc, into []byte) ([]byte, webhook.Outcome) {
	return outcome(r.rules.Mutate(ctx, review, lookupWith(lookup), into))
}

// Advise implements webhook.Rules.
func (r reviews) Advise(ctx context.Context, review []byte, lookup webhook.LookupFunc, into []byte) ([]byte, webhook.Outcome) {
	return outcome(r.rules.Advise(ctx, review, lookupWith(lookup), into))
}

func lookupWith(lookup webhook.LookupFunc) admission.Lookup {
	return func(ctx context.Context, namespace, name string) (admission.ServiceAccount, error) {
		a, err := lookup(ctx, namespace, name)
		switch {
		case errors.Is(err, webhook.ErrNoAccount):
			return admission.ServiceAccount{}, fmt.Errorf("%w: %w", admission.ErrNotFound, err)
		case err != nil:
			return admission.ServiceAccount{}, err
		}
		return admission.ServiceAccount{Name: a.Name, Namespace: a.Namespace, Annotations: a.Annotations}, nil
	}
}

// outcome translates what there is to record. A denial's reason is part of
// the metric; the text is for the event.
func outcome(r admission.Response) ([]byte, webhook.Outcome) {
	o := webhook.Outcome{
		Result: string(r.Outcome), UID: r.UID, Kind: r.Kind, Namespace: r.Namespace, Name: r.Name, Account: r.ServiceAccount,
		Warnings: len(r.Warnings), DryRun: r.DryRun,
	}
	if r.Owner.Name != "" {
		o.Owner = &webhook.Object{
			APIVersion: r.Owner.APIVersion, Kind: r.Owner.Kind, Namespace: r.Namespace, Name: r.Owner.Name, UID: r.Owner.UID,
		}
	}
	switch {
	case r.Outcome == admission.Denied:
		o.Result += "_" + string(r.Reason)
		o.Reason, o.Message = "AdmissionDenied", r.Message
	case r.NoClientID:
		o.Reason = "ClientIDMissing"
		o.Message = "Pods of this service account ask for a workload identity and get no AZURE_CLIENT_ID: " +
			"add the annotation azure.workload.identity/client-id with the client id of the identity."
		if r.Outcome == admission.Mutated {
			o.Result += "_no_client_id"
		}
	}
	return r.Body, o
}
