package cli

import (
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/podkey/podkey/internal/connect"
)

func newServiceAccount() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "serviceaccount",
		Aliases: []string{"sa"},
		Short:   "Make workload identities step by step, with the flags of azwi",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newWorkload("create"), newWorkload("delete"))
	return cmd
}

// workloading is `podkey serviceaccount create` and `delete`.
type workloading struct {
	cloudFlags
	kubeFlags
	w            connect.Workload
	format, verb string
	skip         []string
}

func newWorkload(verb string) *cobra.Command {
	o := &workloading{verb: verb}
	var names []string
	for _, p := range o.phases() {
		names = append(names, p.Name)
	}
	long := `Make an application with its service principal, an annotated service account, a
federated credential and a role assignment, with the flags and phases of azwi.
What is there already is left; a service account keeps what else it has.

With --managed-identity-name it is a managed identity instead of an application.`
	if verb == "delete" {
		long = `Remove what podkey serviceaccount create makes, in the opposite order. What is
gone already is no error. A federated credential goes with its application.`
	}
	cmd := &cobra.Command{
		Use:   verb,
		Short: strings.ToUpper(verb[:1]) + verb[1:] + " what a workload identity consists of",
		Long: long + `

Phases: ` + strings.Join(names, ", ") + `. One of them alone:
podkey serviceaccount ` + verb + ` phase NAME.

It works on the Podkey server of --data, or on Azure with --azure-env.`,
		Example: `  podkey serviceaccount ` + verb + ` --service-account-namespace shop --service-account-name web --skip-phases role-assignment`,
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return o.run(cmd, "") },
	}
	o.add(cmd)
	cmd.Flags().StringSliceVar(&o.skip, "skip-phases", nil, "phases to skip")
	_ = cmd.RegisterFlagCompletionFunc("skip-phases", cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp))
	phase := &cobra.Command{
		Use:   "phase",
		Short: "One phase alone",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	for _, p := range o.phases() {
		one := &workloading{verb: verb}
		sub := &cobra.Command{
			Use: p.Name, Aliases: []string{p.Short}, Short: "The phase " + p.Name + " alone", Args: noArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return one.run(cmd, p.Name) },
		}
		one.add(sub)
		phase.AddCommand(sub)
	}
	cmd.AddCommand(phase)
	return cmd
}

func (o *workloading) add(cmd *cobra.Command) {
	o.cloudFlags.add(cmd)
	o.kubeFlags.add(cmd)
	outputFlag(cmd, &o.format)
	fl, w, r := cmd.Flags(), &o.w, &o.w.Request
	fl.StringVar(&r.Account, "service-account-name", "", "service account")
	fl.StringVar(&r.Namespace, "service-account-namespace", "default", "its namespace")
	fl.StringVar(&r.Issuer, "service-account-issuer-url", "", "issuer of its tokens (default: asked of the API server)")
	fl.DurationVar(&w.Expiration, "service-account-token-expiration", connect.DefaultExpiration, "life of its tokens, 1h to 24h")
	fl.StringVar(&r.Application, "aad-application-name", "", "application (default: made up of namespace, name and issuer)")
	fl.StringVar(&w.ApplicationClientID, "aad-application-client-id", "", "its client id, instead of the name")
	fl.StringVar(&w.ApplicationObjectID, "aad-application-object-id", "", "its object id, instead of the name")
	fl.StringVar(&r.Identity, "managed-identity-name", "", "managed identity instead of an application")
	fl.StringVar(&r.Group, "managed-identity-resource-group", "", "its resource group")
	fl.StringVar(&r.Location, "managed-identity-location", "", "where it is made (default: that of the group)")
	fl.StringVar(&w.PrincipalName, "service-principal-name", "", "service principal that gets the role (default: the application's)")
	fl.StringVar(&w.PrincipalObjectID, "service-principal-object-id", "", "its object id, instead of the name")
	fl.StringVar(&w.Scope, "azure-scope", "", "where the role is given, a resource id")
	fl.StringVar(&w.Role, "azure-role", "", "role, by name or GUID")
	if o.verb == "delete" {
		fl.StringVar(&w.AssignmentID, "role-assignment-id", "", "role assignment to remove (default: found by scope and role)")
	}
}

// phases are those of the verb.
func (o *workloading) phases() []connect.WorkloadPhase {
	if o.verb == "delete" {
		return o.w.Delete()
	}
	return o.w.Create()
}

// run runs the phases, or the one that is named.
func (o *workloading) run(cmd *cobra.Command, only string) error {
	if err := checkOutput(o.format); err != nil {
		return err
	}
	phases, err := connect.WorkloadPhases(o.phases(), only, o.skip)
	if err != nil {
		return &usageError{err, "see: " + cmd.CommandPath() + " --help"}
	}
	if o.verb == "delete" {
		phases = connect.WithoutImplied(phases)
	}
	cloud, _, err := o.cloudFlags.open(cmd)
	if err != nil {
		return err
	}
	o.w.Cloud, o.w.Version = cloud, readVersion().Version
	account := slices.ContainsFunc(phases, func(p connect.WorkloadPhase) bool { return p.Name == connect.WorkloadAccount })
	if account || o.w.Request.Issuer == "" {
		o.w.Cluster, err = o.kubeFlags.open()
		if err != nil && account {
			return err
		}
	}
	if err := o.w.Resolve(cmd.Context()); err != nil {
		return err
	}
	done := []phaseDone{}
	err = o.w.RunWorkload(cmd.Context(), phases, func(phase, outcome, detail string, took time.Duration) {
		p := phaseDone{Phase: phase, Outcome: outcome, Detail: detail, Millis: took.Milliseconds()}
		done = append(done, p)
		if o.format == "text" {
			writePhase(cmd, &p)
		}
	})
	if o.format == "json" {
		if werr := writeJSON(cmd.OutOrStdout(), done); err == nil {
			err = werr
		}
	}
	return err
}
