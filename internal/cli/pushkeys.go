package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/podkey/podkey/internal/client"
	"github.com/podkey/podkey/internal/kubeconfig"
)

// pushing is `podkey cluster push-keys`.
type pushing struct {
	clusterFlags
	file, context, jwks, subscription string
	allowExec, watch                  bool
	interval, keep                    time.Duration
}

func newClusterPushKeys() *cobra.Command {
	var p pushing
	cmd := &cobra.Command{
		Use:   "push-keys -g RG -n NAME [--kubeconfig FILE | --jwks FILE] [--watch]",
		Short: "Replace the pinned keys of a cluster",
		Long: `Replace the pinned keys of a cluster by those that its API server publishes now,
or by those of a file. A key that is not among them signs for nobody any more:
while a cluster rotates its keys it publishes both, so push before it starts to
sign with the new one, and again when the old one has gone.

With --watch the API server is asked again and again, and its keys are pushed
when they change. A key that is not published any more is dropped only after
--keep: API servers of one cluster do not change at the same moment.

Without --kubeconfig and --jwks, the cluster is that of the pod that this runs
in. With --subscription, the server is asked as the identity of this workload
(the variables that the webhook injects) and not as the operator. The identity
needs managedClusters/read and pushKeys/action on the cluster, and the right to
assign roles there, as who chooses its keys. docs/clusters.md has the
Deployment.`,
		Example: `  podkey cluster push-keys -g shop -n shop-cluster --kubeconfig ~/.kube/config
  podkey cluster push-keys -g shop -n shop-cluster --subscription ID --watch`,
		Args: noArgs,
		RunE: p.run,
	}
	p.add(cmd)
	fl := cmd.Flags()
	fl.StringVar(&p.file, "kubeconfig", "", "kubeconfig of the cluster (default: the cluster of this pod)")
	fl.StringVar(&p.context, "context", "", "context to take (default: the current one)")
	fl.StringVar(&p.jwks, "jwks", "", "file with the cluster's public keys")
	fl.BoolVar(&p.allowExec, "allow-exec", false, "run the program that the kubeconfig names (exec)")
	fl.StringVar(&p.subscription, "subscription", "", "subscription of the cluster; signs in as this workload's identity")
	fl.BoolVar(&p.watch, "watch", false, "go on, and push when the keys change")
	fl.DurationVar(&p.interval, "interval", 30*time.Second, "with --watch: time between two questions, a fifth more or less")
	fl.DurationVar(&p.keep, "keep", 5*time.Minute, "with --watch: how long a key counts that is not published any more")
	_ = cmd.MarkFlagFilename("kubeconfig")
	_ = cmd.MarkFlagFilename("jwks", "json")
	cmd.MarkFlagsMutuallyExclusive("kubeconfig", "jwks")
	cmd.MarkFlagsMutuallyExclusive("watch", "jwks")
	cmd.MarkFlagsMutuallyExclusive("data", "subscription")
	return cmd
}

func (p *pushing) run(cmd *cobra.Command, _ []string) error {
	if p.interval <= 0 || p.keep < 0 {
		return &usageError{errors.New("--interval must be longer than nothing, and --keep not negative"), "for example: --interval 30s"}
	}
	c, err := p.client()
	if err != nil {
		return err
	}
	if p.watch {
		return p.follow(cmd, c)
	}
	keys, err := readKeySet(p.jwks)
	if err != nil {
		return err
	}
	if p.jwks == "" {
		if keys, err = p.ask(cmd.Context(), c); err != nil {
			return err
		}
	}
	out, err := p.push(cmd.Context(), c, keys)
	if err != nil {
		return err
	}
	return writeCluster(cmd, &out, p.format)
}

// client signs in as the operator, or as this workload's identity.
func (p *pushing) client() (*client.Client, error) {
	if p.subscription == "" {
		return p.open()
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	return workloadClient(p.subscription, os.Getenv)
}

func (p *pushing) push(ctx context.Context, c *client.Client, keys json.RawMessage) (out client.Cluster, err error) {
	err = c.Manage(ctx, "POST", p.cluster(c, "/pushKeys"), map[string]any{"jwks": keys}, &out)
	return out, err
}

// ask asks a registered cluster for its keys, and makes sure that it is the
// same cluster.
func (p *pushing) ask(ctx context.Context, c *client.Client) (json.RawMessage, error) {
	access, err := p.access()
	if err != nil {
		return nil, err
	}
	found, err := access.AskIssuer(ctx)
	if err != nil {
		return nil, err
	}
	var have client.Cluster
	if err := c.Manage(ctx, "GET", p.cluster(c, ""), nil, &have); err != nil {
		return nil, err
	}
	if have.Issuer() != found.URL {
		return nil, fmt.Errorf("the cluster that was asked has the issuer %s, the registered one %s", printable(found.URL), printable(have.Issuer()))
	}
	return found.JWKS, nil
}

// access is read anew each time: tokens in files are replaced.
func (p *pushing) access() (*kubeconfig.Access, error) {
	if p.file != "" {
		return readKubeconfig(p.file, p.context, p.allowExec)
	}
	return podAccess(os.Getenv, serviceAccountDir)
}

// follow pushes until it is stopped. Nothing that fails ends it: what it is
// there for is the moment at which somebody else's rotation happens.
func (p *pushing) follow(cmd *cobra.Command, c *client.Client) error {
	ctx, talk := cmd.Context(), cmd.ErrOrStderr()
	known := keysSeen{}
	pushed, said := "", ""
	for {
		keys, err := p.ask(ctx, c)
		if err == nil {
			err = known.see(keys, time.Now(), p.keep)
		}
		if now := known.names(); err == nil && now != pushed {
			if _, err = p.push(ctx, c, known.set()); err == nil {
				fmt.Fprintf(talk, "podkey: pushed the keys of %s: %s (before: %s)\n", p.name, printable(now), printable(cmp.Or(pushed, "not known")))
				pushed = now
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		trouble := ""
		if err != nil {
			trouble = printable(oneLine(err))
		}
		if trouble != "" && trouble != said {
			fmt.Fprintf(talk, "podkey: the keys of %s could not be pushed, next time maybe: %s\n", p.name, trouble)
		}
		said = trouble
		// Many clusters that were started together do not ask together.
		wait := time.NewTimer(time.Duration(float64(p.interval) * (0.8 + 0.4*rand.Float64())))
		select {
		case <-ctx.Done():
			wait.Stop()
			return nil
		case <-wait.C:
		}
	}
}

// keysSeen are the keys that were published lately, by name.
type keysSeen map[string]seenKey

type seenKey struct {
	key  json.RawMessage
	last time.Time
}

// see takes a published set in, and forgets what was not published for long.
func (s keysSeen) see(jwks json.RawMessage, now time.Time, keep time.Duration) error {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(jwks, &set); err != nil {
		return errors.New("the API server's key set is not one")
	}
	for _, raw := range set.Keys {
		var k struct {
			ID string `json:"kid"`
		}
		if err := json.Unmarshal(raw, &k); err != nil || k.ID == "" {
			return errors.New("the API server publishes a key without a name")
		}
		s[k.ID] = seenKey{raw, now}
	}
	maps.DeleteFunc(s, func(_ string, k seenKey) bool { return k.last != now && now.Sub(k.last) >= keep })
	return nil
}

// names are those of the keys, which Kubernetes makes from the keys themselves.
func (s keysSeen) names() string { return strings.Join(slices.Sorted(maps.Keys(s)), ", ") }

func (s keysSeen) set() json.RawMessage {
	list := []json.RawMessage{}
	for _, name := range slices.Sorted(maps.Keys(s)) {
		list = append(list, s[name].key)
	}
	b, _ := json.Marshal(map[string]any{"keys": list}) // was JSON: cannot fail
	return b
}

// serviceAccountDir is where each pod finds its credential for the API server.
const serviceAccountDir = "/var/run/secrets/kubernetes.io/serviceaccount"

// podAccess is how a pod reaches its own cluster.
func podAccess(getenv func(string) string, dir string) (*kubeconfig.Access, error) {
	host, port := getenv("KUBERNETES_SERVICE_HOST"), getenv("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return nil, &usageError{errors.New("this is not a pod, so it must be said which cluster to ask"), "give --kubeconfig FILE or --jwks FILE"}
	}
	token, err := readFile(filepath.Join(dir, "token"))
	if err != nil {
		return nil, fmt.Errorf("read the pod's token: %w", err)
	}
	ca, err := readFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return nil, fmt.Errorf("read the cluster's CA: %w", err)
	}
	return &kubeconfig.Access{Server: "https://" + net.JoinHostPort(host, port), CA: ca, Token: strings.TrimSpace(string(token))}, nil
}

// workloadClient signs in with the federated token of this workload. The
// server is that of the authority, found by the names that a server has.
func workloadClient(subscription string, getenv func(string) string) (*client.Client, error) {
	env := map[string]string{}
	for _, name := range []string{"AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_AUTHORITY_HOST"} {
		if env[name] = getenv(name); env[name] == "" {
			return nil, &hinted{fmt.Errorf("%s is not set, so this workload has no identity", name),
				"give the pod the label azure.workload.identity/use: \"true\", and its service account an identity; or leave out --subscription"}
		}
	}
	login := strings.TrimSuffix(env["AZURE_AUTHORITY_HOST"], "/")
	u, err := url.Parse(login)
	if err != nil || u.Scheme != "https" {
		return nil, errors.New("AZURE_AUTHORITY_HOST is not an https URL")
	}
	management := "https://management.azure.com"
	if rest, ok := strings.CutPrefix(u.Host, "login."); ok && rest != "microsoftonline.com" {
		management = "https://management." + rest
	} else if !ok {
		return nil, fmt.Errorf("AZURE_AUTHORITY_HOST is %s, which is no server of Podkey's: its token service is called login.DOMAIN", printable(u.Host))
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	c := client.New(client.Operator{
		TenantID: env["AZURE_TENANT_ID"], SubscriptionID: subscription, ClientID: env["AZURE_CLIENT_ID"], Listen: u.Host,
		Endpoints: client.Endpoints{Login: login, Management: management},
	}, nil)
	c.HTTP = &http.Client{Transport: t, Timeout: time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	c.Assertion = func() (string, error) {
		b, err := readFile(env["AZURE_FEDERATED_TOKEN_FILE"])
		return strings.TrimSpace(string(b)), err
	}
	return c, nil
}
