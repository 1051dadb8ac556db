package lab

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/podkey/podkey/internal/image"
)

const (
	pauseRef = "localhost/pause:lab"
	dnsRef   = "localhost/coredns:lab"
)

// pauseImage writes the image that holds a pod's namespaces.
func (c *Cluster) pauseImage(ctx context.Context) error {
	program, err := image.Build(ctx, ".", "github.com/podkey/podkey/test/lab/pause", runtime.GOARCH)
	if err != nil {
		return err
	}
	return image.WriteArchive(c.path("pause.tar"), pauseRef, image.Program(runtime.GOARCH, "pause", program))
}

// dns installs cluster DNS as clusters have it: a Deployment, its Service at
// the address that pods are given, and its configuration in the ConfigMap
// coredns in kube-system.
func (c *Cluster) dns(ctx context.Context) error {
	program, err := os.ReadFile(c.bin + "/coredns")
	if err != nil {
		return err
	}
	m := image.Program(runtime.GOARCH, "coredns", program)
	m.User = "0" // binds port 53
	if err := image.WriteArchive(c.path("coredns.tar"), dnsRef, m); err != nil {
		return err
	}
	if err := c.Load(ctx, c.path("coredns.tar")); err != nil {
		return err
	}
	if err := c.SetCorefile(ctx, c.o.Corefile); err != nil {
		return err
	}
	if _, err := c.Kubectl(ctx, fmt.Sprintf(dnsManifest, dnsRef, dnsService), "apply", "-f", "-"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_, err = c.Kubectl(ctx, "", "-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=60s")
	return err
}

// SetCorefile replaces what the configuration of cluster DNS has beside the
// plugins of every cluster: plugins of the main server block. CoreDNS takes
// the change up a few seconds later.
func (c *Cluster) SetCorefile(ctx context.Context, plugins string) error {
	plugins = "    " + strings.ReplaceAll(strings.TrimSpace(plugins), "\n", "\n        ")
	if _, err := c.Kubectl(ctx, fmt.Sprintf(corefile, plugins), "apply", "-f", "-"); err != nil {
		return err
	}
	// A node brings the files of a pod up to date once a minute, and when the
	// pod changes.
	_, err := c.Kubectl(ctx, "", "-n", "kube-system", "annotate", "pods", "-l", "k8s-app=kube-dns", "--overwrite", fmt.Sprintf("lab.example/corefile=%d", time.Now().UnixNano()))
	return err
}

// Arguments: more plugins.
const corefile = `apiVersion: v1
kind: ConfigMap
metadata: {name: coredns, namespace: kube-system}
data:
  Corefile: |
    .:53 {
        errors
        health
        ready
        %s
        kubernetes cluster.local in-addr.arpa ip6.arpa {
            pods insecure
            fallthrough in-addr.arpa ip6.arpa
        }
        cache 1
        reload 2s 1s
    }
`

// Arguments: image, address of the service.
const dnsManifest = `apiVersion: v1
kind: ServiceAccount
metadata: {name: coredns, namespace: kube-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: "system:coredns"}
rules:
- {apiGroups: [""], resources: [endpoints, services, pods, namespaces], verbs: [list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "system:coredns"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:coredns"}
subjects: [{kind: ServiceAccount, name: coredns, namespace: kube-system}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: coredns, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec:
  selector: {matchLabels: {k8s-app: kube-dns}}
  template:
    metadata: {labels: {k8s-app: kube-dns}}
    spec:
      serviceAccountName: coredns
      dnsPolicy: Default
      terminationGracePeriodSeconds: 1
      containers:
      - name: coredns
        image: %s
        imagePullPolicy: Never
        args: [-conf, /etc/coredns/Corefile]
        ports: [{containerPort: 53, protocol: UDP}, {containerPort: 53, protocol: TCP}]
        readinessProbe: {httpGet: {path: /ready, port: 8181}, periodSeconds: 1}
        volumeMounts: [{name: config, mountPath: /etc/coredns, readOnly: true}]
      volumes:
      - name: config
        configMap: {name: coredns}
---
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system}
spec:
  clusterIP: %s
  selector: {k8s-app: kube-dns}
  ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]
`
