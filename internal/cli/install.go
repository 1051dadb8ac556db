package cli

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/podkey/podkey/deploy/chart"
	"github.com/podkey/podkey/internal/client"
	"github.com/podkey/podkey/internal/install"
)

// clusterAccess says which cluster install and uninstall work on: kubectl's
// choice unless flags say otherwise.
type clusterAccess struct {
	kubeconfig, context, namespace string
	timeout                        time.Duration
}

func (a *clusterAccess) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&a.kubeconfig, "kubeconfig", "", "kubeconfig of the cluster (default: as kubectl finds it, or the pod's own)")
	fl.StringVar(&a.context, "context", "", "context to take (default: the current one)")
	fl.StringVar(&a.namespace, "namespace", "podkey-system", "namespace of Podkey's own objects")
	fl.DurationVar(&a.timeout, "timeout", 5*time.Minute, "how long to wait for all of it")
	_ = cmd.MarkFlagFilename("kubeconfig")
}

// options reports on standard error what is done.
func (a *clusterAccess) options(cmd *cobra.Command) install.Options {
	return install.Options{Timeout: a.timeout, Report: func(object, what string) {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s: %s\n", printable(object), printable(what))
	}}
}

// wrap adds what to type next to a failure.
func (a *clusterAccess) wrap(err error) error {
	e, ok := errors.AsType[*install.Error](err)
	switch {
	case !ok:
		return err
	case e.Reason == install.Denied:
		return &hinted{err, "use a kubeconfig that may create cluster roles and webhook configurations, such as an administrator's"}
	case e.Reason == install.NotReady:
		return &hinted{err, "look at: kubectl -n " + a.namespace + " get pods,events; podkey install can be repeated, podkey uninstall takes all of it away"}
	}
	return err
}

// installing is `podkey install`.
type installing struct {
	clusterAccess
	dir, tenant  string
	files, sets  []string
	print, azure bool
	azureNames   bool
}

func newInstall() *cobra.Command {
	var i installing
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Install the webhook in a cluster, or print its manifests",
		Long: `Install what workload identity needs in the cluster that kubectl uses: the
webhook, and what it works with. The command waits until it works, and can be
repeated: it changes what is there to what is wanted, and takes over nothing
that is not Podkey's.

Tenant, authority and CA are those of the server that the data directory
belongs to. With --azure they are Azure's public cloud's, and --tenant is
needed. Values, from files and --set, are those of the Helm chart; later ones
count.

With --print, the manifests go to standard output instead, as kubectl apply -f -
reads them, and no cluster is asked.`,
		Example: `  podkey install --set image.repository=registry.example/podkey --set image.tag=v1
  podkey install --azure --tenant 8e8f1d70-1ac5-4b0e-9c0e-6d1f2f5b7a01 --print | kubectl apply -f -`,
		Args: noArgs,
		RunE: i.run,
	}
	i.add(cmd)
	dataFlag(cmd, &i.dir)
	fl := cmd.Flags()
	fl.StringArrayVarP(&i.files, "values", "f", nil, "values file; may be repeated")
	fl.StringArrayVar(&i.sets, "set", nil, "a value, as NAME.NAME=VALUE; may be repeated")
	fl.BoolVar(&i.print, "print", false, "print the manifests instead of installing them")
	fl.BoolVar(&i.azure, "azure", false, "let pods use Azure's own token service")
	fl.BoolVar(&i.azureNames, "azure-names", false, "let pods meet the server under Azure's names; cluster DNS must answer so, see: podkey corefile")
	fl.StringVar(&i.tenant, "tenant", "", "tenant of the identities (default: the server's)")
	_ = cmd.MarkFlagFilename("values", "yaml", "yml")
	cmd.MarkFlagsMutuallyExclusive("azure", "azure-names")
	return cmd
}

func (i *installing) run(cmd *cobra.Command, _ []string) error {
	if i.azure && i.tenant == "" {
		return &usageError{errors.New("--azure needs --tenant"), "find it with: az account show --query tenantId"}
	}
	values, err := i.values(cmd)
	if err != nil {
		return err
	}
	objects, err := chart.Render(chart.Release{Namespace: i.namespace, Values: values})
	if err != nil {
		return &usageError{err, "the chart's values are described in deploy/chart/podkey/values.yaml"}
	}
	if i.print {
		text, err := chart.YAML(objects)
		if err != nil {
			return err
		}
		_, err = cmd.OutOrStdout().Write(text)
		return err
	}
	config, err := kubeConfig(i.kubeconfig, i.context)
	if err != nil {
		return &hinted{err, "or print the manifests with: podkey install --print"}
	}
	if err := install.Apply(cmd.Context(), config, objects, i.options(cmd)); err != nil {
		return i.wrap(err)
	}
	fmt.Fprintln(cmd.ErrOrStderr(), "podkey: installed. Pods with the label azure.workload.identity/use: \"true\" get their identity from now on")
	return nil
}

// values are the chart's: the server's, then those of files, then single ones.
func (i *installing) values(cmd *cobra.Command) (map[string]any, error) {
	a := install.Authority{TenantID: i.tenant}
	if !i.azure {
		var err error
		if a, err = i.authority(cmd); err != nil {
			return nil, err
		}
	}
	values := a.Values()
	for _, file := range i.files {
		b, err := readFile(file)
		if err != nil {
			return nil, fmt.Errorf("read values: %w", err)
		}
		over, err := chart.ParseValues(b)
		if err != nil {
			return nil, fmt.Errorf("read values %s: %w", file, err)
		}
		values = chart.Overlay(values, over)
	}
	for _, s := range i.sets {
		if err := install.Set(values, s); err != nil {
			return nil, &usageError{fmt.Errorf("--set %s: %w", printable(s), err), "for example: --set webhook.replicas=1"}
		}
	}
	return values, nil
}

// authority is the server of the data directory.
func (i *installing) authority(cmd *cobra.Command) (a install.Authority, err error) {
	dir, err := dataDir(i.dir)
	if err != nil {
		return a, err
	}
	op, err := client.ReadOperator(dir)
	if _, none := errors.AsType[*client.NoServerError](err); none {
		return a, &hinted{err, "to use Azure instead: podkey install --azure --tenant ID"}
	}
	if err != nil {
		return a, err
	}
	a = install.Authority{TenantID: op.TenantID, Login: op.Endpoints.Login}
	if i.tenant != "" {
		a.TenantID = i.tenant
	}
	if a.CA, err = os.ReadFile(op.CAFile); err != nil {
		return a, fmt.Errorf("read CA of the server: %w", err)
	}
	if i.azureNames {
		azure, err := os.ReadFile(op.AzureCAFile)
		if err != nil {
			return a, fmt.Errorf("read CA of the server for Azure's names: %w", err)
		}
		a.Login, a.CA = "", slices.Concat(a.CA, azure)
		return a, nil
	}
	if u, err := url.Parse(a.Login); err == nil && strings.HasSuffix(u.Hostname(), ".localhost") {
		fmt.Fprintf(cmd.ErrOrStderr(), "podkey: for a pod, %s is the pod itself: start the server with --domain NAME, a name that the cluster resolves to it\n", u.Hostname())
	}
	return a, nil
}

func newUninstall() *cobra.Command {
	var a clusterAccess
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Remove from a cluster what podkey install brought",
		Long: `Remove what podkey install brought to the cluster that kubectl uses: webhook
configurations first, so that no pod waits for a webhook that has gone. The
namespace goes too, if podkey install made it and nothing else is in it. Pods
that run keep what they have.`,
		Example: `  podkey uninstall`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := kubeConfig(a.kubeconfig, a.context)
			if err != nil {
				return err
			}
			return a.wrap(install.Remove(cmd.Context(), config, chart.Release{Namespace: a.namespace}, a.options(cmd)))
		},
	}
	a.add(cmd)
	return cmd
}
