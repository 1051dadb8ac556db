//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podkey/podkey/internal/pki"
	"github.com/podkey/podkey/test/lab"
	"github.com/podkey/podkey/test/serve"
)

// issuerAddress is where the cluster's issuer is reached by https. The address
// of the lab's host has the server at that port.
const issuerAddress = "10.89.0.2"

// front makes the issuer's documents public, as the administrator of a cluster
// does: the API server answers everybody for them, and a reverse proxy under
// the issuer's name passes on what is asked for below its path. It returns the
// file of the certificate authorities of both, and how often the first document
// was asked for.
func (x *world) front(t *testing.T) (roots string, asked *atomic.Int32) {
	t.Helper()
	issuer, err := url.Parse(x.Issuer())
	if err != nil {
		t.Fatal(err)
	}
	x.apply(t, `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: issuer-for-everybody}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:service-account-issuer-discovery"}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "system:unauthenticated"}]
`)
	t.Cleanup(func() {
		if _, err := x.Kubectl(context.Background(), "", "delete", "clusterrolebinding", "issuer-for-everybody"); err != nil {
			t.Error(err)
		}
	})
	ip := func(verb string) error {
		out, err := exec.Command("ip", "addr", verb, issuerAddress+"/24", "dev", "lab0").CombinedOutput()
		if err != nil {
			return fmt.Errorf("ip addr %s: %w\n%s", verb, err, out)
		}
		return nil
	}
	if err := ip("add"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ip("del"); err != nil {
			t.Error(err)
		}
	})
	// The server finds names as every program of its machine does. The mount is
	// seen in the lab alone.
	const names = "/etc/hosts"
	hosts, err := os.ReadFile(names)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "hosts")
	if err := os.WriteFile(file, fmt.Appendf(hosts, "\n%s %s\n", issuerAddress, issuer.Hostname()), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(file, names, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(names, 0); err != nil {
			t.Error(err)
		}
	})

	now := time.Now()
	ca, err := pki.NewCA("front of the issuer", now)
	if err != nil {
		t.Fatal(err)
	}
	serving, err := ca.Issue(pki.Leaf{DNSNames: []string{issuer.Hostname()}}, now)
	if err != nil {
		t.Fatal(err)
	}
	clusterCA, err := os.ReadFile(filepath.Join(x.Dir(), "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots = filepath.Join(dir, "roots.pem")
	if err := os.WriteFile(roots, append(ca.CertPEM(), clusterCA...), 0o644); err != nil {
		t.Fatal(err)
	}
	at, err := x.Kubectl(t.Context(), "", "config", "view", "-o", "jsonpath={.clusters[0].cluster.server}")
	if err != nil {
		t.Fatal(err)
	}
	api, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	behind := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool(pki.Certificates(clusterCA))}, DisableKeepAlives: true}
	asked = new(atomic.Int32)
	documents := httptest.NewUnstartedServer(http.StripPrefix(strings.TrimSuffix(issuer.Path, "/"), &httputil.ReverseProxy{
		Transport: behind,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(api)
			asked.Add(1)
		},
	}))
	documents.Listener.Close()
	if documents.Listener, err = net.Listen("tcp", net.JoinHostPort(issuerAddress, "443")); err != nil {
		t.Fatal(err)
	}
	documents.TLS = &tls.Config{Certificates: []tls.Certificate{*serving}}
	documents.StartTLS()
	t.Cleanup(documents.Close)
	return roots, asked
}

// restart starts the server again with more in its configuration.
func (x *world) restart(t *testing.T, more string) {
	t.Helper()
	own := filepath.Join(x.Dir(), "server.yaml")
	again := func(config string) error {
		x.server.Stop(syscall.SIGTERM)
		log, err := os.OpenFile(filepath.Join(x.Dir(), "podkey.log"), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		next, err := serve.Start(x.server.Podkey, x.server.Data, net.JoinHostPort(lab.Host, "443"), log, "--config", config)
		if err == nil {
			x.server = next
		}
		return err
	}
	b, err := os.ReadFile(own)
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "server.yaml")
	if err := os.WriteFile(config, append(b, more...), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // for the other tests, however this one ends
		if err := again(own); err != nil {
			t.Error(err)
		}
	})
	if err := again(config); err != nil {
		t.Fatal(err)
	}
}

// exchanges are the exchanges of a client's tokens as the server has written
// them down: how many it has allowed, and why it has refused the others.
func (x *world) exchanges(t *testing.T, clientID string) (allowed int, refused []string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(x.server.Data, "audit.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(b) {
		var r struct{ Plane, Decision, Reason, AppID string }
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		switch {
		case r.Plane != "login" || r.AppID != clientID:
		case r.Decision == "allow":
			allowed++
		default:
			refused = append(refused, r.Reason)
		}
	}
	return allowed, refused
}

// TestFetchedKeys registers the cluster so that the server fetches the keys of
// its issuer, by the issuer's own documents, and takes the cluster through a
// rotation. Nobody pushes anything: the first token by a key that the server
// does not know makes it fetch again, while the pod waits. No exchange fails.
func TestFetchedKeys(t *testing.T) {
	l := w.workload(t, "fetched", setup{})
	roots, asked := w.front(t)
	// The lab's addresses are private, and its authorities its own.
	w.restart(t, "issuers: {allowPrivate: true, ca: "+roots+"}\n")
	register := "podkey cluster register -g " + group + " -n " + cluster + " --kubeconfig " + w.Kubeconfig()
	settled := "; az aks wait -g " + group + " -n " + cluster + " --updated --interval 1"
	t.Cleanup(func() {
		if out, err := w.sh(context.Background(), register+settled); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	w.must(t, register+" --fetch"+settled)
	w.shows(t, "podkey cluster show -g "+group+" -n "+cluster, "fetched by the server from the issuer")

	start := time.Now()
	// A new pod reads its secret with a token by the key that signs now. A
	// scheduler that has lost the API server again and again waits for up to a
	// minute before it asks it the next time; so the pod names its node.
	reads := func(name string) (its string) {
		t.Helper()
		key, err := w.SigningKey()
		if err != nil {
			t.Fatal(err)
		}
		w.apply(t, l.reader(name, sampleRef, loggerRef, "serviceAccountName: app", "serviceAccountName: app\n  nodeName: node0", "env: [", "env: [{name: INTERVAL, value: 500ms}, "))
		w.logged(t, l.ns, name, fmt.Sprintf("successfully got secret %q", l.secret))
		var uid string
		for _, p := range w.pods(t, l.ns, "") {
			if p.Metadata.Name == name {
				uid = p.Metadata.UID
			}
		}
		all, err := w.PodTokens(0)
		if err != nil {
			t.Fatal(err)
		}
		for file, token := range all {
			if strings.Contains(file, uid) && strings.HasSuffix(file, "/azure-identity-token") {
				its = token
			}
		}
		if keyOf(its) != key {
			t.Errorf("the token of %s is by key %q, want %q", name, keyOf(its), key)
		}
		t.Logf("%5.1f s: %s has read its secret", time.Since(start).Seconds(), name)
		return its
	}
	old := reads("before")
	fetched := asked.Load()
	if fetched == 0 {
		t.Error("the issuer was not asked for its documents")
	}
	if err := errors.Join(w.PublishKey(t.Context()), w.SignWithNewest(t.Context())); err != nil {
		t.Fatal(err)
	}
	// A new kubelet replaces the tokens of all pods: the old key is to go. It
	// does not wait as the old one would, for the same reason as the scheduler.
	if err := w.RestartKubelet(0); err != nil {
		t.Fatal(err)
	}
	if fresh := reads("after"); keyOf(fresh) == keyOf(old) {
		t.Error("the cluster has not rotated its key")
	}
	if n := asked.Load() - fetched; n != 1 {
		t.Errorf("for the new key the issuer was asked %d times, want once", n)
	}
	if err := w.exchange(t.Context(), w.authority(t), l, old); err != nil {
		t.Errorf("while both keys count, the exchange of a token by the old one: %v", err)
	}
	key, err := w.SigningKey()
	if err != nil {
		t.Fatal(err)
	}
	w.renewed(t, key)
	if err := w.RetireKeys(t.Context()); err != nil {
		t.Fatal(err)
	}
	reads("later")
	// As the server has written it down: three pods, and the old token.
	if allowed, refused := w.exchanges(t, l.clientID); allowed < 4 || len(refused) != 0 {
		t.Errorf("%d exchanges were allowed, want at least 4; refused: %q", allowed, refused)
	}
	// Who comes next finds a cluster that works: controllers and scheduler have
	// found the API server again, too.
	w.apply(t, `
apiVersion: apps/v1
kind: Deployment
metadata: {name: next, namespace: fetched}
spec:
  selector: {matchLabels: {app: next}}
  template:
    metadata: {labels: {app: next}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: app, image: `+busyboxRef+`, command: [busybox, httpd, -f, -p, "8080", -h, /bin]}]
`)
	if _, err := w.Kubectl(t.Context(), "", "-n", l.ns, "rollout", "status", "deployment/next", "--timeout="+patience.String()); err != nil {
		t.Error(err)
	}
	t.Logf("%5.1f s: the cluster works as before", time.Since(start).Seconds())
}
