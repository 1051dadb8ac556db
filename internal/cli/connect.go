package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/podkey/podkey/internal/client"
	"github.com/podkey/podkey/internal/connect"
)

// cloudFlags say where identities and vaults are: in a Podkey server, or in
// one of Azure's clouds.
type cloudFlags struct {
	dir   string
	azure connect.AzureOptions
}

func (f *cloudFlags) add(cmd *cobra.Command) {
	dataFlag(cmd, &f.dir)
	fl := cmd.Flags()
	fl.StringVar(&f.azure.Environment, "azure-env", "", "work on this cloud of Azure instead of Podkey: "+strings.Join(connect.Environments(), ", "))
	fl.StringVarP(&f.azure.Subscription, "subscription-id", "s", "", "subscription in Azure (default: that of az)")
	fl.StringVar(&f.azure.Method, "auth-method", connect.AuthCLI, "how to sign in to Azure: cli, client_secret, client_certificate or default")
	fl.StringVar(&f.azure.Tenant, "tenant-id", "", "tenant in Azure (default: that of the subscription)")
	fl.StringVar(&f.azure.ClientID, "client-id", "", "client id to sign in to Azure with")
	fl.StringVar(&f.azure.ClientSecret, "client-secret", "", "client secret; better in the variable AZURE_CLIENT_SECRET, since others can see arguments")
	fl.StringVar(&f.azure.CertificatePath, "certificate-path", "", "certificate to sign in to Azure with, PEM")
	fl.StringVar(&f.azure.KeyPath, "private-key-path", "", "private key of the certificate, PEM")
	_ = cmd.RegisterFlagCompletionFunc("azure-env", cobra.FixedCompletions(connect.Environments(), cobra.ShellCompDirectiveNoFileComp))
}

// open opens the cloud; the client is nil for Azure.
func (f *cloudFlags) open(cmd *cobra.Command) (*connect.Cloud, *client.Client, error) {
	if f.azure.Environment == "" {
		c, err := openClient(f.dir)
		if err != nil {
			return nil, nil, &hinted{err, "for Azure itself, add: --azure-env AzurePublicCloud"}
		}
		return connect.OfPodkey(c), c, nil
	}
	if f.azure.ClientSecret != "" {
		fmt.Fprintln(cmd.ErrOrStderr(), "podkey: others on this machine can see --client-secret: use the variable AZURE_CLIENT_SECRET")
	} else {
		f.azure.ClientSecret = os.Getenv("AZURE_CLIENT_SECRET")
	}
	cloud, err := connect.OpenAzure(cmd.Context(), f.azure)
	return cloud, nil, err
}

// kubeFlags choose the Kubernetes cluster.
type kubeFlags struct{ file, context string }

func (f *kubeFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.file, "kubeconfig", "", "kubeconfig of the cluster (default: as kubectl's)")
	cmd.Flags().StringVar(&f.context, "context", "", "context of the kubeconfig (default: the current one)")
	_ = cmd.MarkFlagFilename("kubeconfig")
}

// connecting is `podkey connect` and `podkey disconnect`.
type connecting struct {
	cloudFlags
	kubeFlags
	format  string
	request connect.Request
	cluster string
	skip    []string
	dryRun  bool
	check   bool // connect: prove it
	clear   bool // disconnect: the vault too
}

func (o *connecting) add(cmd *cobra.Command, phases []string) {
	o.cloudFlags.add(cmd)
	o.kubeFlags.add(cmd)
	outputFlag(cmd, &o.format)
	fl, r := cmd.Flags(), &o.request
	fl.StringVarP(&r.Namespace, "namespace", "n", "", "namespace of the service account")
	fl.StringVar(&r.Account, "service-account", "", "service account")
	fl.StringVar(&r.Identity, "identity", "", "managed identity, by name, client id or resource id")
	fl.StringVar(&r.Application, "application", "", "application instead, by name or client id")
	fl.StringVarP(&r.Group, "resource-group", "g", "", "resource group of what is given by name")
	fl.StringVar(&r.Vault, "vault", "", "key vault, by name or resource id")
	fl.StringVar(&r.Issuer, "issuer", "", "issuer of the cluster's tokens (default: asked of the API server)")
	fl.StringVar(&o.cluster, "cluster", "", "registered cluster whose issuer it is, by name or resource id; local is Podkey's built-in one")
	fl.StringSliceVar(&o.skip, "skip-phases", nil, "phases to skip: "+strings.Join(phases, ", "))
	fl.BoolVar(&o.dryRun, "dry-run", false, "print the commands of az and kubectl that do the same, and change nothing")
	_ = cmd.MarkFlagRequired("namespace")
	_ = cmd.MarkFlagRequired("service-account")
	cmd.MarkFlagsMutuallyExclusive("identity", "application")
	_ = cmd.RegisterFlagCompletionFunc("skip-phases", cobra.FixedCompletions(phases, cobra.ShellCompDirectiveNoFileComp))
}

func newConnect() *cobra.Command {
	var o connecting
	cmd := &cobra.Command{
		Use:   "connect -n NS --service-account SA --identity ID --vault V --secrets get[,list,set] [--create]",
		Short: "Let a service account use a key vault: everything that it takes, in one command",
		Long: `Let the pods of a service account use a key vault. Phase by phase, what is
there is found, and what is missing is made:

  resource-group         is there
  identity               a managed identity, or an application; made with --create
  vault                  made with --create
  permission             the roles that give --secrets, --keys and --certificates,
                         or an access policy that adds them to what it has
  issuer                 of the cluster's tokens, to the last slash
  federated-credential   the identity trusts the service account
  service-account        annotated with the client id; made, with its namespace
                         too if --create is given
  check                  what the pod's template must have

All phases are checked before anything is changed, and a second run changes
nothing. --dry-run prints the commands of az and kubectl instead. --check then
proves it: a token of the service account is exchanged, and the vault asked.
podkey disconnect undoes what was made, and nothing else.

It works on the Podkey server of --data, or on Azure with --azure-env.`,
		Example: `  podkey connect -n shop --service-account web --identity web --vault shop-vault --secrets get -g shop --create
  podkey connect -n shop --service-account web --identity web --vault shop-vault --secrets get --cluster local --check`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.connect(cmd) },
	}
	o.add(cmd, connect.Phases())
	fl, r := cmd.Flags(), &o.request
	fl.StringSliceVar(&r.Want.Secrets, "secrets", nil, "what may be done with secrets: get, list, set, …")
	fl.StringSliceVar(&r.Want.Keys, "keys", nil, "what may be done with keys: get, list, wrapKey, …")
	fl.StringSliceVar(&r.Want.Certificates, "certificates", nil, "what may be done with certificates: get, list, …")
	fl.BoolVar(&r.Create, "create", false, "make what is missing: identity, vault, namespace")
	fl.StringVarP(&r.Location, "location", "l", "", "location of what is made (default: that of the resource group)")
	fl.BoolVar(&r.Policies, "access-policies", false, "a vault that is made has access policies, not roles")
	fl.BoolVar(&r.Replace, "replace", false, "let a service account that has another identity change to this one")
	fl.StringVar(&r.Audience, "audience", connect.Audience, "audience of the cluster's tokens")
	fl.BoolVar(&o.check, "check", false, "prove it: get a token, exchange it, ask the vault")
	fl.StringVar(&r.CheckSecret, "check-secret", "", "with --check, the secret to read; its value is not shown")
	return cmd
}

func newDisconnect() *cobra.Command {
	var o connecting
	cmd := &cobra.Command{
		Use:   "disconnect -n NS --service-account SA [--identity ID] [--vault V]",
		Short: "Undo what podkey connect made, and nothing else",
		Long: `Undo what podkey connect made for a service account: its annotations are as they
were, or it is deleted if connect made it and nobody has added to it; the
federated credential goes; and if no other one of the identity is left, so do
the permission and the identity, if connect made them.

What connect did not make stays. So does a vault, unless --delete-vault is
given, and a namespace: what is in them may be others'. The identity is that of
the service account, unless it is named.`,
		Example: `  podkey disconnect -n shop --service-account web`,
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return o.disconnect(cmd) },
	}
	o.add(cmd, connect.DisconnectPhases())
	cmd.Flags().BoolVar(&o.clear, "delete-vault", false, "delete the vault too, if connect made it; it can be recovered")
	return cmd
}

var (
	kubeNamespace = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	kubeName      = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$`)
)

// checkNames refuses what cannot be a name before anything is asked.
func (o *connecting) checkNames() error {
	r := &o.request
	if !kubeNamespace.MatchString(r.Namespace) {
		return &usageError{fmt.Errorf("--namespace %q cannot be a name", printable(r.Namespace)), "use lower case letters, digits and '-'"}
	}
	if !kubeName.MatchString(r.Account) {
		return &usageError{fmt.Errorf("--service-account %q cannot be a name", printable(r.Account)), "use lower case letters, digits, '-' and '.'"}
	}
	for flag, value := range map[string]string{"--identity": r.Identity, "--vault": r.Vault, "--resource-group": r.Group, "--cluster": o.cluster} {
		if strings.HasPrefix(value, "/subscriptions/") && flag != "--resource-group" && !strings.ContainsAny(value, `\?#%`) && !strings.Contains(value, "..") {
			continue
		}
		if value != "" && strings.Trim(value, ".") == "" || strings.ContainsAny(value, `/\?#%`) {
			return &usageError{fmt.Errorf("%s %q cannot be a name", flag, printable(value)), "use letters, digits, '-' and '_', or a resource id as az shows it"}
		}
	}
	return nil
}

// open checks the flags and opens cloud and cluster.
func (o *connecting) open(cmd *cobra.Command, phases []string) (*connect.Connection, error) {
	if err := checkOutput(o.format); err != nil {
		return nil, err
	}
	if err := o.checkNames(); err != nil {
		return nil, err
	}
	skip, err := connect.Skips(o.skip, phases)
	if err != nil {
		return nil, &usageError{err, "see: " + cmd.CommandPath() + " --help"}
	}
	if _, err := o.request.Want.Normal(); err != nil {
		return nil, &usageError{err, "see: " + cmd.CommandPath() + " --help"}
	}
	cloud, c, err := o.cloudFlags.open(cmd)
	if err != nil {
		return nil, err
	}
	o.request.Skip = skip
	conn := &connect.Connection{Cloud: cloud, Request: o.request}
	if o.cluster == "local" {
		if c == nil {
			return nil, &usageError{errors.New("--cluster local is Podkey's built-in cluster, which Azure knows nothing of"), "leave --cluster out, or name a cluster of Azure"}
		}
		conn.Cluster = connect.Local(c)
		return conn, nil
	}
	conn.Request.ManagedCluster = o.cluster
	// Without a phase that needs it, a cluster is not looked for.
	issuer := o.request.Issuer != "" || o.cluster != ""
	if skip[connect.PhaseAccount] && (issuer || skip[connect.PhaseIssuer] && skip[connect.PhaseCredential]) && !o.check {
		return conn, nil
	}
	if conn.Cluster, err = o.kubeFlags.open(); err != nil {
		return nil, &hinted{err, "without a cluster of your own, use Podkey's built-in one: --cluster local"}
	}
	return conn, nil
}

// connected is what connect prints as JSON.
type connected struct {
	ClientID string            `json:"clientId,omitempty"`
	TenantID string            `json:"tenantId,omitempty"`
	Issuer   string            `json:"issuer,omitempty"`
	Subject  string            `json:"subject"`
	VaultURI string            `json:"vaultUri,omitempty"`
	Phases   []phaseDone       `json:"phases"`
	Commands string            `json:"commands,omitempty"` // of a dry run
	Pod      string            `json:"podTemplate,omitempty"`
	Missing  []string          `json:"missing,omitempty"`
	Check    []connect.Finding `json:"check,omitempty"`
}

type phaseDone struct {
	Phase   string   `json:"phase"`
	Outcome string   `json:"outcome"`
	Detail  string   `json:"detail,omitempty"`
	Notes   []string `json:"notes,omitempty"`
	Millis  int64    `json:"milliseconds"`
}

// perform does a plan, or prints it.
func (o *connecting) perform(cmd *cobra.Command, plan *connect.Plan, out *connected) error {
	w := cmd.OutOrStdout()
	if o.dryRun {
		if o.format == "text" {
			fmt.Fprint(w, plan.Commands())
			return nil
		}
		out.Commands = plan.Commands()
		for _, s := range plan.Steps {
			out.Phases = append(out.Phases, phaseDone{Phase: s.Phase, Outcome: s.Outcome, Detail: s.Detail(), Notes: s.Notes})
		}
		return nil
	}
	err := plan.Do(cmd.Context(), func(s *connect.Step, took time.Duration) {
		done := phaseDone{s.Phase, s.Outcome, s.Detail(), s.Notes, took.Milliseconds()}
		out.Phases = append(out.Phases, done)
		if o.format == "text" {
			writePhase(cmd, &done)
		}
	})
	return err
}

// writePhase shows one phase, and its notes beside the data.
func writePhase(cmd *cobra.Command, p *phaseDone) {
	line := fmt.Sprintf("%-21s %-8s %s", p.Phase, p.Outcome, printable(p.Detail))
	fmt.Fprintf(cmd.OutOrStdout(), "%s  (%d ms)\n", strings.TrimRight(line, " "), p.Millis)
	for _, n := range p.Notes {
		fmt.Fprintf(cmd.ErrOrStderr(), "podkey: %s: %s\n", p.Phase, printable(n))
	}
}

func (o *connecting) connect(cmd *cobra.Command) error {
	if o.dryRun && o.check {
		return &usageError{errors.New("--dry-run changes nothing, so that there is nothing to --check"), "leave one of them out"}
	}
	conn, err := o.open(cmd, connect.Phases())
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	plan, err := conn.Plan(conn.Survey(ctx))
	if err != nil {
		return err
	}
	out := connected{Subject: connect.Subject(o.request.Namespace, o.request.Account), Issuer: plan.Issuer, Phases: []phaseDone{}}
	changes := plan.Changes()
	err = o.perform(cmd, plan, &out)
	if plan.Identity != nil {
		out.ClientID, out.TenantID = plan.Identity.ClientID, plan.Identity.TenantID
	}
	if plan.Vault != nil {
		out.VaultURI = plan.Vault.URI
	}
	if err == nil && !conn.Request.Skip[connect.PhaseCheck] {
		out.Pod = connect.PodTemplate(o.request.Account)
		out.Missing = conn.Missing(ctx)
	}
	var proof error
	if err == nil && o.check {
		out.Check, proof = prove(ctx, conn, plan, changes)
	}
	if o.format == "json" {
		if werr := writeJSON(cmd.OutOrStdout(), &out); err == nil {
			err = werr
		}
	} else if err == nil {
		o.writeRest(cmd, &out)
	}
	if err != nil {
		return err
	}
	return proof
}

// prove tries, and makes an error of what does not work.
func prove(ctx context.Context, conn *connect.Connection, plan *connect.Plan, changed bool) ([]connect.Finding, error) {
	found, err := conn.Prove(ctx, plan, changed)
	for _, f := range found {
		if err == nil && !f.Works {
			err = &hinted{fmt.Errorf("check: %s does not work: %s", f.What, f.Text), f.Hint}
		}
	}
	return found, err
}

// writeRest shows what follows the phases.
func (o *connecting) writeRest(cmd *cobra.Command, out *connected) {
	w := cmd.OutOrStdout()
	for _, f := range out.Check {
		works := "works"
		if !f.Works {
			works = "FAILS"
		}
		fmt.Fprintf(w, "%-21s %-8s %s: %s\n", connect.PhaseCheck, works, f.What, printable(f.Text))
	}
	prefix := ""
	if o.dryRun {
		prefix = "# "
	}
	if out.Pod != "" {
		fmt.Fprintf(w, "\n%sThe template of the pods must have:\n", prefix)
		for line := range strings.Lines(out.Pod) {
			fmt.Fprint(w, prefix+line)
		}
	}
	for _, m := range out.Missing {
		fmt.Fprintf(cmd.ErrOrStderr(), "podkey: %s\n", printable(m))
	}
}

func (o *connecting) disconnect(cmd *cobra.Command) error {
	conn, err := o.open(cmd, connect.DisconnectPhases())
	if err != nil {
		return err
	}
	found, err := conn.SurveyDisconnect(cmd.Context())
	if err != nil {
		return err
	}
	found.Clear = o.clear
	plan, err := conn.PlanDisconnect(found)
	if err != nil {
		return err
	}
	out := connected{Subject: connect.Subject(o.request.Namespace, o.request.Account), Phases: []phaseDone{}}
	err = o.perform(cmd, plan, &out)
	if o.format == "json" {
		if werr := writeJSON(cmd.OutOrStdout(), &out); err == nil {
			err = werr
		}
	}
	return err
}
