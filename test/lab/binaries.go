package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

// programs are what is built, by package.
var programs = map[string]string{
	"etcd":                    "go.etcd.io/etcd/server/v3",
	"kube-apiserver":          "k8s.io/kubernetes/cmd/kube-apiserver",
	"kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
	"kube-scheduler":          "k8s.io/kubernetes/cmd/kube-scheduler",
	"kubelet":                 "k8s.io/kubernetes/cmd/kubelet",
	"kube-proxy":              "k8s.io/kubernetes/cmd/kube-proxy",
	"kubectl":                 "k8s.io/kubernetes/cmd/kubectl",
	"coredns":                 "./cmd/coredns",
}

// packages are Debian's, by a program of theirs.
var packages = map[string]string{
	"containerd":          "containerd",
	"ctr":                 "containerd",
	"runc":                "runc",
	"/usr/lib/cni/bridge": "containernetworking-plugins",
	"ip":                  "iproute2",
	"iptables":            "iptables",
	"conntrack":           "conntrack",
	"nsenter":             "util-linux",
	"mount":               "mount",
}

// Prerequisites says what is missing on this machine, and how to install it.
func Prerequisites() error {
	var missing []string
	for program, pkg := range packages {
		if _, err := exec.LookPath(program); err != nil && !slices.Contains(missing, pkg) {
			missing = append(missing, pkg)
		}
	}
	if missing == nil {
		return nil
	}
	slices.Sort(missing)
	return errors.New("missing on this machine; install with: apt-get install --no-install-recommends " + strings.Join(missing, " "))
}

// Binaries builds Kubernetes, etcd and cluster DNS as the module in
// test/kubernetes pins them, or takes them from the user's cache, and returns
// their directory. A first build takes minutes, and says so on talk.
func Binaries(ctx context.Context, talk io.Writer) (string, error) {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/podkey/podkey/test").Output()
	if err != nil {
		return "", fmt.Errorf("find the module github.com/podkey/podkey/test: %w", err)
	}
	src := filepath.Join(strings.TrimSpace(string(root)), "kubernetes")
	key := sha256.New()
	var mod []byte
	for _, name := range []string{"go.mod", "go.sum", "cmd/coredns/main.go"} {
		b, err := os.ReadFile(filepath.Join(src, name))
		if err != nil {
			return "", err
		}
		if name == "go.mod" {
			mod = b
		}
		fmt.Fprintf(key, "%s %d\n%s", name, len(b), b)
	}
	fmt.Fprint(key, runtime.Version())
	m := regexp.MustCompile(`(?m)^\s*(?:require )?k8s\.io/kubernetes (v1\.(\d+)\.\d+)(?: // indirect)?$`).FindSubmatch(mod)
	if m == nil {
		return "", fmt.Errorf("%s/go.mod names no version of k8s.io/kubernetes", src)
	}
	version, minor := string(m[1]), string(m[2])

	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache directory: %w; set HOME or XDG_CACHE_HOME", err)
	}
	cache = filepath.Join(cache, "podkey")
	dir := filepath.Join(cache, fmt.Sprintf("kubernetes-%s-%s", version, hex.EncodeToString(key.Sum(nil))[:12]))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(cache, ".kubernetes-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	start := time.Now()
	fmt.Fprintf(talk, "building Kubernetes %s, once: about 8 minutes on two cores, 1 when Go has it in its cache\n", version)
	// What it calls its version decides what its clients ask of it.
	var flags []string
	for _, at := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		flags = append(flags, "-X "+at+".gitVersion="+version, "-X "+at+".gitMajor=1", "-X "+at+".gitMinor="+minor)
	}
	for _, name := range slices.Sorted(maps.Keys(programs)) {
		fmt.Fprintf(talk, "  %s\n", name)
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w "+strings.Join(flags, " "), "-o", filepath.Join(tmp, name), programs[name])
		cmd.Dir = src
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build %s: %w\n%s", name, err, bytes.TrimSpace(out))
		}
	}
	fmt.Fprintf(talk, "built Kubernetes %s in %.0f s\n", version, time.Since(start).Seconds())
	if err := os.Rename(tmp, dir); err != nil {
		if _, there := os.Stat(dir); there == nil {
			return dir, nil // another run was faster
		}
		return "", err
	}
	return dir, nil
}
