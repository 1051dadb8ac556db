package lab

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

func tlsRoots(roots *x509.CertPool) *tls.Config { return &tls.Config{RootCAs: roots} }

// nodes starts the nodes together and waits until all are ready.
func (c *Cluster) nodes(ctx context.Context) error {
	if err := c.pauseImage(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for i := range c.o.Nodes {
		if err := c.startNode(ctx, i); err != nil {
			return err
		}
	}
	return wait(ctx, "nodes ready", func(ctx context.Context) error {
		b, err := c.Get(ctx, "/api/v1/nodes")
		if err != nil {
			return err
		}
		var list struct {
			Items []struct {
				Metadata struct{ Name string }
				Status   struct {
					Conditions []struct{ Type, Status, Message string }
				}
			}
		}
		if err := json.Unmarshal(b, &list); err != nil {
			return err
		}
		ready := 0
		for _, n := range list.Items {
			for _, cond := range n.Status.Conditions {
				if cond.Type != "Ready" {
					continue
				}
				if cond.Status == "True" {
					ready++
				} else {
					err = errors.Join(err, fmt.Errorf("%s: %s", n.Metadata.Name, cond.Message))
				}
			}
		}
		if ready < c.o.Nodes {
			return errors.Join(err, fmt.Errorf("%d of %d are ready", ready, c.o.Nodes))
		}
		return nil
	}, c.others...)
}

func (c *Cluster) nodePath(i int, parts ...string) string {
	return filepath.Join(append([]string{c.dir, nodeName(i)}, parts...)...)
}

func (c *Cluster) startNode(ctx context.Context, i int) error {
	n := nodeName(i)
	cgroup := "/" + filepath.Base(c.dir) + "/" + n
	if err := makeCgroup(cgroup[1:]); err != nil {
		return err
	}
	for _, f := range []struct{ path, text string }{
		{c.nodePath(i, "containerd.toml"), fmt.Sprintf(containerdConfig, c.nodePath(i, "containerd"), "/run/containerd/"+n, c.socket(i), pauseRef, c.nodePath(i, "cni"))},
		{c.nodePath(i, "cni", "10-bridge.conflist"), fmt.Sprintf(cniConfig, podNet(i), c.nodePath(i, "ipam"))},
		{c.nodePath(i, "resolv.conf"), "nameserver " + dnsService + "\n"},
		{c.nodePath(i, "kubelet.yaml"), fmt.Sprintf(kubeletConfig, c.socket(i), cgroup, dnsService, c.nodePath(i, "resolv.conf"), "/var/log/pods/"+n)},
		{c.nodePath(i, "proxy.yaml"), fmt.Sprintf(proxyConfig, c.kubeconfigOf("proxy"), n)},
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(f.path), 0o755), os.WriteFile(f.path, []byte(f.text), 0o644)); err != nil {
			return err
		}
	}
	containerd, err := c.start(n, "containerd", "--config", c.nodePath(i, "containerd.toml"))
	if err != nil {
		return err
	}
	c.others = append(c.others, containerd)
	err = wait(ctx, "containerd ready", func(ctx context.Context) error {
		_, err := c.ctr(ctx, i, "version")
		return err
	}, containerd)
	if err != nil {
		return err
	}
	if err := c.load(ctx, i, c.path("pause.tar")); err != nil {
		return err
	}
	kubelet, err := c.startKubelet(i)
	if err != nil {
		return err
	}
	c.others = append(c.others, kubelet)
	proxy, err := c.start(n, "kube-proxy", "--config", c.nodePath(i, "proxy.yaml"))
	if err != nil {
		return err
	}
	c.others = append(c.others, proxy)
	return nil
}

func (c *Cluster) startKubelet(i int) (*process, error) {
	n := nodeName(i)
	return c.start(n, "kubelet", "--config", c.nodePath(i, "kubelet.yaml"), "--kubeconfig", c.kubeconfigOf(n),
		"--root-dir", "/var/lib/kubelet/"+n, "--hostname-override", n, "--node-ip", nodeAddress(i))
}

func (c *Cluster) socket(i int) string { return "/run/containerd/" + nodeName(i) + ".sock" }

func (c *Cluster) ctr(ctx context.Context, i int, args ...string) ([]byte, error) {
	return c.run(ctx, "ctr", append([]string{"--address", c.socket(i), "--namespace", "k8s.io"}, args...)...)
}

func (c *Cluster) load(ctx context.Context, i int, archive string) error {
	_, err := c.ctr(ctx, i, "images", "import", "--local", archive)
	if err != nil {
		// Older releases of ctr know no --local: there, it is always so.
		_, err = c.ctr(ctx, i, "images", "import", archive)
	}
	return err
}

// Load makes an image of an OCI archive known to every node, under the name
// that the archive gives it. Pods use it with imagePullPolicy Never or
// IfNotPresent.
func (c *Cluster) Load(ctx context.Context, archive string) error {
	for i := range c.o.Nodes {
		if err := c.load(ctx, i, archive); err != nil {
			return err
		}
	}
	return nil
}

// Arguments: root, state, socket, pause image, CNI configuration directory.
//
// restrict_oom_score_adj is for machines without CAP_SYS_RESOURCE, where runc
// dies on the negative value that Kubernetes wants for a sandbox.
const containerdConfig = `version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]
[grpc]
  address = %q
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %q
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = %q
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
`

// Arguments: pods' network, directory of address leases.
const cniConfig = `{"cniVersion": "0.4.0", "name": "lab", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": %q}]], "routes": [{"dst": "0.0.0.0/0"}], "dataDir": %q}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
`

// Arguments: containerd's socket, cgroup, DNS service, resolv.conf, pods' logs.
const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix://%s
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: %s
clusterDomain: cluster.local
clusterDNS: [%s]
resolvConf: %s
podLogsDir: %s
failSwapOn: false
enforceNodeAllocatable: []
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
serializeImagePulls: false
maxPods: 250
podPidsLimit: -1
nodeStatusUpdateFrequency: 2s
imageGCHighThresholdPercent: 100
imageMinimumGCAge: 24h
evictionHard: {memory.available: 100Mi, nodefs.available: 1Mi, imagefs.available: 1Mi}
`

// Arguments: kubeconfig, node.
const proxyConfig = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: %s}
hostnameOverride: %s
mode: iptables
clusterCIDR: 10.244.0.0/16
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
iptables: {syncPeriod: 30s, minSyncPeriod: 100ms}
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
`
