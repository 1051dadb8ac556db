package lab

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/podkey/podkey/internal/pki"
)

// Addresses of the lab. They exist inside it alone.
const (
	Host       = "10.89.0.1" // where the tests and the control plane run
	serviceNet = "10.96.0.0/16"
	dnsService = "10.96.0.10"
	apiService = "10.96.0.1"
	apiPort    = "6443"
)

func nodeAddress(i int) string { return fmt.Sprintf("10.89.0.%d", 11+i) }
func podNet(i int) string      { return fmt.Sprintf("10.244.%d.0/24", i) }
func nodeName(i int) string    { return fmt.Sprintf("node%d", i) }

// Options say what cluster to start. The zero value is one node.
type Options struct {
	Nodes int // default 1, at most 9

	// Issuer is the issuer of service-account tokens; the default is
	// https://oidc.lab.example/cluster/, with a slash at its end as AKS has.
	Issuer string

	// Corefile is added to the configuration of cluster DNS: server blocks or
	// plugins of the main block, see Corefile in dns.go. Optional.
	Corefile string

	Talk io.Writer // progress; nil for none
}

// Cluster is a running Kubernetes. Not for concurrent use but where a method
// says so.
type Cluster struct {
	o    Options
	bin  string // programs of the lab
	dir  string
	free func()

	ca        *pki.CA
	tokens    map[string]string // by user
	etcd, api *process
	others    []*process // controller manager, scheduler, nodes
	client    *http.Client

	issuerKeys []string // files of the keys of service-account tokens that are published
	signing    string   // the one of them that signs
}

// Start starts a cluster and waits until its nodes are ready and its DNS
// answers. The caller must be inside of [Run] and must Stop it.
func Start(ctx context.Context, o Options) (_ *Cluster, err error) {
	if os.Getenv(roleVar) != "inside" {
		return nil, errors.New("lab: Start outside of Run")
	}
	if o.Nodes == 0 {
		o.Nodes = 1
	}
	if o.Nodes > 9 {
		return nil, fmt.Errorf("lab: %d nodes; at most 9", o.Nodes)
	}
	if o.Issuer == "" {
		o.Issuer = "https://oidc.lab.example/cluster/"
	}
	if o.Talk == nil {
		o.Talk = io.Discard
	}
	c := &Cluster{o: o}
	if c.dir, c.free, err = state(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.Stop()
		}
	}()
	for _, step := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"network", c.network},
		{"control plane", c.controlPlane},
		{"nodes", c.nodes},
		{"cluster DNS", c.dns},
	} {
		start := time.Now()
		if err := step.do(ctx); err != nil {
			return nil, fmt.Errorf("lab: %s: %w", step.what, err)
		}
		fmt.Fprintf(o.Talk, "lab: %s, %.1f s\n", step.what, time.Since(start).Seconds())
	}
	return c, nil
}

// Dir is a directory of the cluster, for files of its user. It goes with the
// cluster.
func (c *Cluster) Dir() string { return c.dir }

// Kubeconfig is the file of an administrator.
func (c *Cluster) Kubeconfig() string { return filepath.Join(c.dir, "admin.kubeconfig") }

// Programs is the directory of kubectl and the others.
func (c *Cluster) Programs() string { return c.bin }

// Issuer is the issuer of the cluster's service-account tokens.
func (c *Cluster) Issuer() string { return c.o.Issuer }

// Logs copies the end of what every process printed, for a test that failed.
func (c *Cluster) Logs(w io.Writer) {
	for _, p := range append([]*process{c.etcd, c.api}, c.others...) {
		if p != nil {
			fmt.Fprintln(w, p.tail())
		}
	}
}

// Stop ends everything that Start started. The lab's namespaces, with
// containers and mounts, go with the process.
func (c *Cluster) Stop() {
	for _, p := range slices.Backward(c.others) {
		p.stop(2 * time.Second)
	}
	c.api.stop(2 * time.Second)
	c.etcd.stop(2 * time.Second)
	if c.free != nil {
		c.free()
	}
}

// network makes the network of the lab's hosts: a bridge, and a network
// namespace with a veth pair for each node. kubelet refuses a loopback
// address, hence the bridge's for the control plane.
func (c *Cluster) network(ctx context.Context) error {
	lines := []string{
		"ip link set lo up",
		"ip link add lab0 type bridge",
		"ip addr add " + Host + "/24 dev lab0",
		"ip link set lab0 up",
	}
	for i := range c.o.Nodes {
		n, addr := nodeName(i), nodeAddress(i)
		lines = append(lines,
			"ip netns add "+n,
			"ip link add "+n+" type veth peer name eth0 netns "+n,
			"ip link set "+n+" master lab0 up",
			"ip -n "+n+" link set lo up",
			"ip -n "+n+" addr add "+addr+"/24 dev eth0",
			"ip -n "+n+" link set eth0 up",
			"ip -n "+n+" route add default via "+Host,
			"ip route add "+podNet(i)+" via "+addr,
			"nsenter --net=/run/netns/"+n+" -- sysctl -q -w net.ipv4.ip_forward=1 net.ipv4.conf.all.route_localnet=1 net.bridge.bridge-nf-call-iptables=1",
		)
		for j := range c.o.Nodes {
			if j != i {
				lines = append(lines, "ip -n "+n+" route add "+podNet(j)+" via "+nodeAddress(j))
			}
		}
	}
	return c.runAll(ctx, lines...)
}

// controlPlane starts etcd, API server, controller manager and scheduler.
func (c *Cluster) controlPlane(ctx context.Context) (err error) {
	if c.bin, err = Binaries(ctx, c.o.Talk); err != nil {
		return err
	}
	if err := c.keys(); err != nil {
		return err
	}
	c.etcd, err = c.start("", "etcd", "--data-dir", filepath.Join(c.dir, "etcd"), "--log-level", "warn",
		"--listen-client-urls", "http://127.0.0.1:2379", "--advertise-client-urls", "http://127.0.0.1:2379",
		"--listen-peer-urls", "http://127.0.0.1:2380", "--initial-advertise-peer-urls", "http://127.0.0.1:2380",
		"--initial-cluster", "default=http://127.0.0.1:2380", "--unsafe-no-fsync")
	if err != nil {
		return err
	}
	if err := c.startAPI(ctx); err != nil {
		return err
	}
	for _, cmd := range [][]string{
		{"kube-controller-manager", "--kubeconfig", c.kubeconfigOf("controller-manager"), "--use-service-account-credentials",
			"--service-account-private-key-file", c.path("issuer.key"), "--root-ca-file", c.path("ca.crt"), "--leader-elect=false",
			// The default of 20 a second makes of 200 pods at once a trickle.
			"--kube-api-qps=500", "--kube-api-burst=500"},
		{"kube-scheduler", "--kubeconfig", c.kubeconfigOf("scheduler"), "--leader-elect=false"},
	} {
		p, err := c.start("", cmd[0], cmd[1:]...)
		if err != nil {
			return err
		}
		c.others = append(c.others, p)
	}
	return nil
}

func (c *Cluster) path(name string) string { return filepath.Join(c.dir, name) }

// users are who may call the API server, with their groups; a token file is
// the shortest way to let them.
var users = map[string]struct{ name, group string }{
	"admin":              {"admin", "system:masters"},
	"controller-manager": {"system:kube-controller-manager", ""},
	"scheduler":          {"system:kube-scheduler", ""},
	"proxy":              {"system:kube-proxy", ""},
}

// keys makes certificates, the issuer's key, tokens and kubeconfigs.
func (c *Cluster) keys() (err error) {
	now := time.Now()
	if c.ca, err = pki.NewCA("lab", now); err != nil {
		return err
	}
	serving, err := c.ca.Issue(pki.Leaf{
		DNSNames: []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
		IPs:      []net.IP{net.ParseIP(Host), net.ParseIP(apiService), net.IPv4(127, 0, 0, 1)},
	}, now)
	if err != nil {
		return err
	}
	key, err := x509.MarshalPKCS8PrivateKey(serving.PrivateKey)
	if err != nil {
		return err
	}
	all := map[string]struct{ name, group string }{}
	for user, u := range users {
		all[user] = u
	}
	for i := range c.o.Nodes {
		all[nodeName(i)] = struct{ name, group string }{"system:node:" + nodeName(i), "system:nodes"}
	}
	var tokens bytes.Buffer
	c.tokens = map[string]string{}
	for user, u := range all {
		b := make([]byte, 16)
		if _, err := rand.Read(b); err != nil {
			return err
		}
		c.tokens[user] = hex.EncodeToString(b)
		fmt.Fprintf(&tokens, "%s,%s,%s,%q\n", c.tokens[user], u.name, user, u.group)
	}
	err = errors.Join(
		os.WriteFile(c.path("ca.crt"), c.ca.CertPEM(), 0o644),
		os.WriteFile(c.path("api.crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: serving.Certificate[0]}), 0o644),
		os.WriteFile(c.path("api.key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600),
		os.WriteFile(c.path("tokens.csv"), tokens.Bytes(), 0o600),
		c.newIssuerKey("issuer.key"),
	)
	c.issuerKeys, c.signing = []string{"issuer.key"}, "issuer.key"
	for user := range all {
		err = errors.Join(err, os.WriteFile(c.kubeconfigOf(user), c.kubeconfig(c.tokens[user]), 0o600))
	}
	roots := x509.NewCertPool()
	roots.AddCert(c.ca.Cert)
	c.client = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: tlsRoots(roots), MaxIdleConnsPerHost: 16}}
	return err
}

func (c *Cluster) newIssuerKey(name string) error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	return os.WriteFile(c.path(name), pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}), 0o600)
}

func (c *Cluster) kubeconfigOf(user string) string { return c.path(user + ".kubeconfig") }

func (c *Cluster) kubeconfig(token string) []byte {
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
current-context: lab
clusters:
- name: lab
  cluster: {server: "https://%s", certificate-authority: %s}
contexts:
- name: lab
  context: {cluster: lab, user: lab}
users:
- name: lab
  user: {token: %s}
`, net.JoinHostPort(Host, apiPort), c.path("ca.crt"), token)
}

// startAPI starts the API server and waits until it is ready.
func (c *Cluster) startAPI(ctx context.Context) (err error) {
	args := []string{
		"--etcd-servers", "http://127.0.0.1:2379",
		"--bind-address", "0.0.0.0", "--advertise-address", Host, "--secure-port", apiPort,
		"--tls-cert-file", c.path("api.crt"), "--tls-private-key-file", c.path("api.key"),
		"--token-auth-file", c.path("tokens.csv"), "--authorization-mode", "Node,RBAC",
		"--service-cluster-ip-range", serviceNet,
		"--service-account-issuer", c.o.Issuer,
		"--service-account-signing-key-file", c.path(c.signing),
		"--allow-privileged",
		// Webhooks are reached at their pods: no kube-proxy runs on this host.
		"--enable-aggregator-routing",
		"--kubelet-preferred-address-types", "InternalIP",
		"--enable-priority-and-fairness=false",
	}
	for _, name := range c.issuerKeys {
		args = append(args, "--service-account-key-file", c.path(name))
	}
	if c.api, err = c.start("", "kube-apiserver", args...); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return wait(ctx, "API server ready", func(ctx context.Context) error {
		_, err := c.Get(ctx, "/readyz")
		return err
	}, c.etcd, c.api)
}

// Get asks the API server as an administrator. Safe for concurrent use.
func (c *Cluster) Get(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+net.JoinHostPort(Host, apiPort)+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+c.tokens["admin"])
	resp, err := c.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %s", path, resp.Status, bytes.TrimSpace(body))
	}
	return body, err
}

// Kubectl runs kubectl as an administrator and returns its standard output.
// Safe for concurrent use.
func (c *Cluster) Kubectl(ctx context.Context, stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin, "kubectl"), append([]string{"--kubeconfig", c.Kubeconfig()}, args...)...)
	cmd.Env = append(os.Environ(), "KUBECONFIG=", "HOME="+c.dir)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("kubectl %s: %w\n%s", strings.Join(args, " "), err, strings.TrimSpace(errOut.String()))
	}
	return out.String(), nil
}
