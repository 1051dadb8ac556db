//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/podkey/podkey/test/lab"
	"github.com/podkey/podkey/test/serve"
)

const (
	domain  = "podkey.example" // of the server's own names
	group   = "shop"           // resource group
	cluster = "shop-cluster"   // the lab's, as a managed cluster
	system  = "podkey-system"  // namespace of podkey in the cluster
)

// world is what all tests share: one cluster, one podkey server beside it, a
// person signed in with az. Tests keep apart by namespaces and names.
type world struct {
	*lab.Cluster
	server   *serve.Server
	prepared string // directory of prepare
	bin      string // with podkey, az and kubectl, as people have them on their PATH
	home     string
}

// w is started by TestMain: the cluster takes seconds, and the suite would
// take minutes if each test had its own.
var w *world

func inside(m *testing.M) int {
	start := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	var err error
	if w, err = startWorld(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	defer w.stop()
	fmt.Fprintf(os.Stderr, "e2e: ready after %.0f s\n", time.Since(start).Seconds())
	return m.Run()
}

func startWorld(ctx context.Context) (_ *world, err error) {
	x := &world{prepared: os.Getenv(preparedVar)}
	if x.Cluster, err = lab.Start(ctx, lab.Options{Talk: os.Stderr}); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			x.stop()
		}
	}()
	x.bin, x.home = filepath.Join(x.Dir(), "bin"), filepath.Join(x.Dir(), "home")
	err = errors.Join(
		os.MkdirAll(x.bin, 0o755), os.MkdirAll(filepath.Join(x.home, ".kube"), 0o700),
		os.Symlink(filepath.Join(x.prepared, "podkey"), filepath.Join(x.bin, "podkey")),
		os.Symlink(filepath.Join(x.prepared, "az", "az"), filepath.Join(x.bin, "az")),
		os.Symlink(filepath.Join(x.Programs(), "kubectl"), filepath.Join(x.bin, "kubectl")),
	)
	if err != nil {
		return nil, err
	}
	for name := range archives {
		if err := x.Load(ctx, filepath.Join(x.prepared, name+".tar")); err != nil {
			return nil, err
		}
	}
	config, values := filepath.Join(x.Dir(), "server.yaml"), filepath.Join(x.Dir(), "values.yaml")
	err = errors.Join(
		os.WriteFile(config, fmt.Appendf(nil, "domain: %s\nclusters: {image: %q, azureNames: true, values: %s}\n", domain, podkeyRef, values), 0o600),
		os.WriteFile(values, []byte("webhook: {drainSeconds: 1, logLevel: debug}\n"), 0o600),
	)
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(x.Dir(), "podkey.log"))
	if err != nil {
		return nil, err
	}
	x.server, err = serve.Start(filepath.Join(x.bin, "podkey"), filepath.Join(x.Dir(), "data"), net.JoinHostPort(lab.Host, "443"), log, "--config", config)
	if err != nil {
		return nil, err
	}
	if err := x.register(ctx); err != nil {
		return nil, err
	}
	// Cluster DNS answers for the server's names, its own and Azure's.
	corefile, err := x.sh(ctx, "podkey corefile")
	if err != nil {
		return nil, fmt.Errorf("podkey corefile: %w\n%s", err, corefile)
	}
	if err := errors.Join(x.SetCorefile(ctx, corefile), x.resolves(ctx)); err != nil {
		return nil, err
	}
	if out, err := x.sh(ctx, enable); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", enable, err, out)
	}
	return x, nil
}

// resolves waits until cluster DNS answers for the server's names.
func (x *world) resolves(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		ip, err := x.Kubectl(ctx, "", "-n", "kube-system", "get", "pods", "-l", "k8s-app=kube-dns", "-o", "jsonpath={.items[0].status.podIP}")
		if err == nil {
			r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(ip, "53"))
			}}
			for _, name := range []string{"login.microsoftonline.com.", "login." + domain + "."} {
				if at, lookErr := r.LookupHost(ctx, name); lookErr != nil || !slices.Equal(at, []string{lab.Host}) {
					err = errors.Join(err, fmt.Errorf("%s: %q, %w", name, at, lookErr))
				}
			}
		}
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("cluster DNS does not know the server: %w", err)
		}
	}
}

// enable makes the server install the webhook, as the walkthroughs do.
const enable = "az aks update -g " + group + " -n " + cluster + " --enable-oidc-issuer --enable-workload-identity -o none"

// disable takes it away again.
const disable = "az aks update -g " + group + " -n " + cluster + " --disable-workload-identity -o none"

// install installs podkey by its Helm chart, as the server does, but with
// values over those.
func (x *world) install(ctx context.Context, values map[string]any) error {
	var ca []byte
	for _, name := range []string{"azure-ca.pem", "ca.pem"} {
		b, err := os.ReadFile(filepath.Join(x.server.Data, name))
		if err != nil {
			return err
		}
		ca = append(ca, b...)
	}
	repository, tag, _ := strings.Cut(podkeyRef, ":")
	all := map[string]any{
		"tenantID": x.server.Operator.TenantID,
		"image":    map[string]any{"repository": repository, "tag": tag},
		"trust":    map[string]any{"ca": string(ca)},
		"webhook":  map[string]any{"drainSeconds": 1, "logLevel": "debug"},
	}
	maps.Copy(all, values)
	manifests, err := helm(all)
	if err != nil {
		return err
	}
	namespace := "apiVersion: v1\nkind: Namespace\nmetadata: {name: " + system + "}\n---\n"
	if _, err := x.Kubectl(ctx, namespace+manifests, "apply", "-f", "-"); err != nil {
		return err
	}
	if _, err := x.Kubectl(ctx, "", "-n", system, "rollout", "status", "deployment/podkey-webhook", "--timeout=60s"); err != nil {
		seen, _ := x.Kubectl(ctx, "", "-n", system, "describe", "pods")
		logs, _ := x.Kubectl(ctx, "", "-n", system, "logs", "-l", "app.kubernetes.io/component=webhook", "--tail=30")
		return fmt.Errorf("%w\n%s\n%s", err, seen, logs)
	}
	return nil
}

func (x *world) stop() {
	if x.server != nil {
		x.server.Stop(syscall.SIGTERM)
	}
	x.Cluster.Stop()
}

// register makes the lab's cluster a managed one, as an operator does, and
// signs the operator in.
func (x *world) register(ctx context.Context) error {
	op := x.server.Operator
	for _, script := range []string{
		"az login --service-principal -u " + op.ClientID + " -p \"$OPERATOR_SECRET\" --tenant " + op.TenantID,
		"az group create -n " + group + " -l westeurope",
		"podkey cluster register -g " + group + " -n " + cluster + " --kubeconfig " + x.Kubeconfig(),
	} {
		if out, err := x.sh(ctx, script); err != nil {
			return fmt.Errorf("%s: %w\n%s", script, err, out)
		}
	}
	return nil
}

// sh runs a script as the person who set up the world.
func (x *world) sh(ctx context.Context, script string) (string, error) {
	return x.shell(ctx, x.home, script)
}

// shell runs a script as a person would, in a shell under `podkey exec`, with
// az, kubectl and podkey on the PATH, and home as the
// home directory, where kubectl has its configuration. It returns what the script printed: its
// standard output if all went well, everything if not. Who updates the cluster
// holds the lock $UPDATES: of two updates at a time one is refused, as Azure does,
// and the walkthroughs share a cluster.
func (x *world) shell(ctx context.Context, home, script string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(x.bin, "podkey"), "exec", "--data", x.server.Data, "--", "bash", "-euo", "pipefail", "-c", script)
	cmd.Env = []string{
		"PATH=" + x.bin + ":" + os.Getenv("PATH"), "HOME=" + home, "LANG=C.UTF-8", "PODKEY_DATA=" + x.server.Data,
		"OPERATOR_SECRET=" + x.server.Operator.ClientSecret, "UPDATES=" + filepath.Join(x.home, "updates.lock"),
	}
	cmd.Dir = home
	var out, all strings.Builder
	cmd.Stdout = &tee{&out, &all}
	cmd.Stderr = &all
	if err := cmd.Run(); err != nil {
		return all.String(), err
	}
	return out.String(), nil
}

type tee struct{ a, b *strings.Builder }

func (t *tee) Write(p []byte) (int, error) {
	t.a.Write(p)
	return t.b.Write(p)
}
