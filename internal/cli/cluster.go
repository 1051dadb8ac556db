package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/podkey/podkey/internal/client"
	"github.com/podkey/podkey/internal/kubeconfig"
)

func newCluster() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cluster",
		Short: "Register Kubernetes clusters, so that their workloads' tokens count",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newClusterRegister(), newClusterList(), newClusterShow(), newClusterPushKeys(), newClusterUnregister())
	return cmd
}

// clusterFlags name one cluster.
type clusterFlags struct {
	dir, format, group, name string
}

func (f *clusterFlags) add(cmd *cobra.Command) {
	dataFlag(cmd, &f.dir)
	outputFlag(cmd, &f.format)
	cmd.Flags().StringVarP(&f.group, "resource-group", "g", "", "resource group of the cluster")
	cmd.Flags().StringVarP(&f.name, "name", "n", "", "name of the cluster")
	_ = cmd.MarkFlagRequired("resource-group")
	_ = cmd.MarkFlagRequired("name")
}

// open checks the flags and makes a client.
func (f *clusterFlags) open() (*client.Client, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	return openClient(f.dir)
}

func (f *clusterFlags) check() error {
	if err := checkOutput(f.format); err != nil {
		return err
	}
	for flag, value := range map[string]string{"--resource-group": f.group, "--name": f.name} {
		if value == "" || strings.Trim(value, ".") == "" || strings.ContainsAny(value, `/\?#%`) {
			return &usageError{fmt.Errorf("%s %q cannot be a name", flag, printable(value)), "use letters, digits, '-' and '_'"}
		}
	}
	return nil
}

// path is the path of a group, or of what is below it, in the management API.
func (f *clusterFlags) path(c *client.Client, below, version string) string {
	return "/subscriptions/" + c.Operator.SubscriptionID + "/resourceGroups/" + url.PathEscape(f.group) + below + "?api-version=" + version
}

func (f *clusterFlags) cluster(c *client.Client, action string) string {
	return f.path(c, "/providers/Microsoft.ContainerService/managedClusters/"+url.PathEscape(f.name)+action, client.VersionClusters)
}

// keysOf says where a cluster's keys come from.
func keysOf(m *client.Cluster) string {
	if m.Properties.Podkey.KeySource != "Pinned" {
		return "fetched by the server from the issuer"
	}
	return "pinned: " + strings.Join(m.Properties.Podkey.KeyIDs, ", ")
}

// writeCluster shows a cluster.
func writeCluster(cmd *cobra.Command, m *client.Cluster, format string) error {
	out := cmd.OutOrStdout()
	if format == "json" {
		return writeJSON(out, m)
	}
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(out, "%-18s %s\n", name, printable(value))
		}
	}
	p, named := &m.Properties, " -g "+m.Group()+" -n "+m.Name
	row("cluster", m.Name)
	row("resource group", m.Group())
	row("location", m.Location)
	row("kubernetes", p.Version)
	row("issuer", m.Issuer())
	row("keys", keysOf(m))
	row("keys of", p.Podkey.KeysUpdated)
	if p.Podkey.Kubeconfig {
		row("kubeconfig", "stored sealed; given by: az aks get-credentials"+named)
	} else {
		row("kubeconfig", "none")
	}
	switch {
	case p.State == "Updating":
		row("workload identity", "being changed; wait with: az aks wait"+named+" --updated")
	case p.Security.WorkloadIdentity.Enabled && len(p.Podkey.ToInstall) == 0:
		row("workload identity", "installed")
	case p.Security.WorkloadIdentity.Enabled:
		row("workload identity", "wanted")
	default:
		row("workload identity", "not asked for; ask with: az aks update"+named+" --enable-oidc-issuer --enable-workload-identity")
	}
	if e := p.Podkey.Error; e != nil {
		row("failed", e.Message+" ("+e.Code+")")
	}
	if len(p.Podkey.ToInstall) > 0 {
		row("to be installed", strings.Join(p.Podkey.ToInstall, ", ")+"; from a machine that reaches the cluster: podkey install --kubeconfig FILE")
	}
	return nil
}

// registering is `podkey cluster register`.
type registering struct {
	clusterFlags
	file, context, location, issuer, jwks, principal string
	fetch, pin, allowExec                            bool
}

func newClusterRegister() *cobra.Command {
	var r registering
	cmd := &cobra.Command{
		Use:   "register -g RG -n NAME --kubeconfig FILE",
		Short: "Make an existing Kubernetes cluster a managed cluster",
		Long: `Make an existing Kubernetes cluster a managed cluster: az aks show, update and
get-credentials answer for it, and tokens of its service accounts are accepted
for identities with a federated credential for its issuer.

The issuer and its keys are read from the cluster's API server, and the keys
are pinned: the server verifies by them alone, and asks nobody. When the
cluster rotates its keys, run: podkey cluster push-keys. With --fetch the
server fetches them from the issuer's own documents instead, which must then be
reachable for it by https. For a cluster that cannot be reached from here
either, give --issuer and --jwks.

The kubeconfig is stored sealed, and given to who may ask for it
(listClusterUserCredential, listClusterAdminCredential). Files that it refers
to are stored with it; other contexts of the same file are not.`,
		Example: `  podkey cluster register -g shop -n shop-cluster --kubeconfig ~/.kube/config`,
		Args:    noArgs,
		RunE:    r.run,
	}
	r.add(cmd)
	fl := cmd.Flags()
	fl.StringVar(&r.file, "kubeconfig", "", "kubeconfig of the cluster; without one, give --issuer with --jwks or --fetch")
	fl.StringVar(&r.context, "context", "", "context to take (default: the current one)")
	fl.StringVarP(&r.location, "location", "l", "", "location (default: that of the resource group)")
	fl.StringVar(&r.issuer, "issuer", "", "issuer of the cluster, exactly as in its tokens (default: asked of the API server)")
	fl.StringVar(&r.jwks, "jwks", "", "file with the cluster's public keys (default: asked of the API server)")
	fl.BoolVar(&r.pin, "pin", false, "pin the keys as they are now (the default)")
	fl.BoolVar(&r.fetch, "fetch", false, "let the server fetch the keys from the issuer")
	fl.StringVar(&r.principal, "service-principal", "", "client id that the cluster's own components use")
	fl.BoolVar(&r.allowExec, "allow-exec", false, "take a kubeconfig that runs a program (exec), and run it")
	_ = cmd.MarkFlagFilename("kubeconfig")
	_ = cmd.MarkFlagFilename("jwks", "json")
	cmd.MarkFlagsMutuallyExclusive("fetch", "pin")
	cmd.MarkFlagsMutuallyExclusive("fetch", "jwks")
	return cmd
}

func (r *registering) run(cmd *cobra.Command, _ []string) error {
	if r.jwks != "" && r.issuer == "" {
		return &usageError{errors.New("--jwks needs --issuer"), "give the issuer exactly as in the cluster's tokens, closing slash included"}
	}
	if r.file == "" && (r.issuer == "" || r.jwks == "" && !r.fetch) {
		return &usageError{errors.New("there is nothing to learn the cluster's issuer and keys from"), "give --kubeconfig FILE; or, without credentials for the cluster, --issuer URL with --jwks FILE or --fetch"}
	}
	c, err := r.open()
	if err != nil {
		return err
	}
	var access *kubeconfig.Access // nil: the server gets no credentials
	if r.file != "" {
		if access, err = readKubeconfig(r.file, r.context, r.allowExec); err != nil {
			return err
		}
	}
	found, err := r.find(cmd.Context(), access)
	if err != nil {
		return err
	}
	if r.location == "" {
		if r.location, err = r.groupLocation(cmd.Context(), c); err != nil {
			return err
		}
	}
	body, err := r.body(access, found)
	if err != nil {
		return err
	}
	var out client.Cluster
	if err := c.Manage(cmd.Context(), "PUT", r.cluster(c, ""), body, &out); err != nil {
		return err
	}
	if err := writeCluster(cmd, &out, r.format); err != nil {
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), `podkey: the cluster is registered. Let an identity trust one of its service accounts:
  az identity federated-credential create -g RG --identity-name ID --name NAME \
    --issuer %s --subject system:serviceaccount:NAMESPACE:NAME
`, printable(found.URL))
	return nil
}

// find finds out the issuer and, unless the server is to fetch them, its keys.
func (r *registering) find(ctx context.Context, access *kubeconfig.Access) (kubeconfig.Issuer, error) {
	if r.issuer != "" && (r.fetch || r.jwks != "") {
		keys, err := readKeySet(r.jwks)
		return kubeconfig.Issuer{URL: r.issuer, JWKS: keys}, err
	}
	found, err := access.AskIssuer(ctx)
	if err != nil {
		return found, &hinted{err, "for a cluster that cannot be asked from here, give --issuer URL --jwks FILE"}
	}
	if r.issuer != "" && r.issuer != found.URL {
		return found, fmt.Errorf("the cluster's issuer is %s, not %s: they must be the same to the last slash", printable(found.URL), printable(r.issuer))
	}
	return found, nil
}

// body is the request that registers.
func (r *registering) body(access *kubeconfig.Access, found kubeconfig.Issuer) (map[string]any, error) {
	registration := map[string]any{"issuer": found.URL, "keySource": "Fetched"}
	if access != nil {
		// Named anew here so that nothing of the file's own names leaves this machine.
		text, err := access.Render(r.name, "user", r.name)
		if err != nil {
			return nil, err
		}
		registration["kubeconfig"], registration["allowExec"] = string(text), r.allowExec
	}
	if !r.fetch {
		registration["keySource"], registration["jwks"] = "Pinned", found.JWKS
	}
	props := map[string]any{"podkey": registration}
	if found.Version != "" {
		props["kubernetesVersion"] = found.Version
	}
	if r.principal != "" {
		props["servicePrincipalProfile"] = map[string]string{"clientId": r.principal}
	}
	return map[string]any{"location": r.location, "properties": props}, nil
}

func (r *registering) groupLocation(ctx context.Context, c *client.Client) (string, error) {
	var group struct {
		Location string `json:"location"`
	}
	err := c.Manage(ctx, "GET", r.path(c, "", "2021-04-01"), nil, &group)
	if client.IsNotFound(err) {
		err = &hinted{err, "make it with: podkey exec -- az group create -n " + r.group + " -l westeurope"}
	}
	return group.Location, err
}

// readKubeconfig reads one context of a file, with the files that it refers to.
func readKubeconfig(file, context string, allowExec bool) (*kubeconfig.Access, error) {
	data, err := readFile(file)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	access, err := kubeconfig.Parse(data, kubeconfig.Options{Context: context, AllowExec: allowExec, ReadFile: func(path string) ([]byte, error) {
		if !filepath.IsAbs(path) { // as kubectl does
			path = filepath.Join(filepath.Dir(file), path)
		}
		return readFile(path)
	}})
	if errors.Is(err, kubeconfig.ErrExec) {
		err = &hinted{err, "if that is what you want: --allow-exec; better register a kubeconfig of a service account"}
	}
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig %s: %w", file, err)
	}
	return access, nil
}

// readFile reads a file that is not absurdly large.
func readFile(path string) ([]byte, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() || fi.Size() > kubeconfig.MaxSize {
		return nil, fmt.Errorf("%s is not a file of at most %d bytes", path, kubeconfig.MaxSize)
	}
	return os.ReadFile(path)
}

// readKeySet reads a file of public keys; the server judges what is in it.
func readKeySet(file string) (json.RawMessage, error) {
	if file == "" {
		return nil, nil
	}
	data, err := readFile(file)
	if err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	if !json.Valid(data) {
		return nil, &hinted{fmt.Errorf("read keys: %s is not JSON", file), "get it with: kubectl get --raw /openid/v1/jwks"}
	}
	return data, nil
}

func newClusterList() *cobra.Command {
	var dir, format string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the registered clusters",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(format); err != nil {
				return err
			}
			c, err := openClient(dir)
			if err != nil {
				return err
			}
			clusters, err := c.Clusters(cmd.Context())
			if err != nil {
				return err
			}
			if format == "json" {
				return writeJSON(cmd.OutOrStdout(), clusters)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tRESOURCE GROUP\tLOCATION\tKEYS\tISSUER")
			for i := range clusters {
				m := &clusters[i]
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", printable(m.Name), printable(m.Group()), printable(m.Location), printable(m.Properties.Podkey.KeySource), printable(m.Issuer()))
			}
			return w.Flush()
		},
	}
	dataFlag(cmd, &dir)
	outputFlag(cmd, &format)
	return cmd
}

func newClusterShow() *cobra.Command {
	var f clusterFlags
	cmd := &cobra.Command{
		Use:   "show -g RG -n NAME",
		Short: "Show a registered cluster, and what podkey install must bring to it",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.open()
			if err != nil {
				return err
			}
			var out client.Cluster
			if err := c.Manage(cmd.Context(), "GET", f.cluster(c, ""), nil, &out); err != nil {
				return err
			}
			return writeCluster(cmd, &out, f.format)
		},
	}
	f.add(cmd)
	return cmd
}

func newClusterUnregister() *cobra.Command {
	var f clusterFlags
	cmd := &cobra.Command{
		Use:   "unregister -g RG -n NAME",
		Short: "Forget a cluster, its keys and its kubeconfig; the cluster itself is left alone",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.open()
			if err != nil {
				return err
			}
			var had client.Cluster
			if err := c.Manage(cmd.Context(), "GET", f.cluster(c, ""), nil, &had); err != nil {
				return err
			}
			if err := c.Manage(cmd.Context(), "DELETE", f.cluster(c, ""), nil, nil); err != nil {
				return err
			}
			if f.format == "json" {
				return writeJSON(cmd.OutOrStdout(), had)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "podkey: %s is not registered any more\n", printable(had.Name))
			return nil
		},
	}
	f.add(cmd)
	return cmd
}

// refuseRegistered refuses to run as a workload of a registered cluster: only
// its own API server issues its tokens.
func refuseRegistered(ctx context.Context, c *client.Client, name string) error {
	if name == "local" {
		return nil
	}
	clusters, err := c.Clusters(ctx)
	if err != nil {
		return err
	}
	for i := range clusters {
		if strings.EqualFold(clusters[i].Name, name) {
			return &hinted{fmt.Errorf("%s is a registered cluster, whose tokens only its own API server issues; run takes the built-in cluster", printable(name)),
				"leave out --cluster, or run the program in the cluster"}
		}
	}
	return nil
}
