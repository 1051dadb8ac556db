package lab

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Do sends a request to the API server as an administrator, with JSON if body
// is not nil, and returns the answer whatever its status. Safe for concurrent
// use.
func (c *Cluster) Do(ctx context.Context, method, path string, body []byte) (status int, answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, method, "https://"+net.JoinHostPort(Host, apiPort)+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+c.tokens["admin"])
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

// RestartAPI kills the API server, as a machine that fails does, starts it
// again and waits until it is ready.
func (c *Cluster) RestartAPI(ctx context.Context) error {
	c.api.kill()
	return c.startAPI(ctx)
}

// RestartKubelet kills the kubelet of a node and starts it again. Containers
// run on. The new one has forgotten the tokens that it gave to pods, asks for
// others and writes them into the pods' volumes, which one that runs on does
// when four fifths of their time have gone.
func (c *Cluster) RestartKubelet(node int) error {
	n := nodeName(node)
	for i, p := range c.others {
		if p.name == n+"-kubelet" {
			p.kill()
			next, err := c.startKubelet(node)
			if err == nil {
				c.others[i] = next
			}
			return err
		}
	}
	return fmt.Errorf("lab: %s has no kubelet", n)
}

// KillContainer kills the first process of a pod's container with SIGKILL.
func (c *Cluster) KillContainer(ctx context.Context, namespace, pod, container string) error {
	b, err := c.Get(ctx, "/api/v1/namespaces/"+namespace+"/pods/"+pod)
	if err != nil {
		return err
	}
	var p struct {
		Spec   struct{ NodeName string }
		Status struct {
			ContainerStatuses []struct{ Name, ContainerID string }
		}
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return err
	}
	for _, s := range p.Status.ContainerStatuses {
		id, ok := strings.CutPrefix(s.ContainerID, "containerd://")
		for i := range c.o.Nodes {
			if ok && s.Name == container && nodeName(i) == p.Spec.NodeName {
				_, err := c.ctr(ctx, i, "tasks", "kill", "--signal", "SIGKILL", id)
				return err
			}
		}
	}
	return fmt.Errorf("lab: pod %s in %s has no running container %s", pod, namespace, container)
}

// PodTokens are the service-account tokens that the kubelet of a node has
// written into the volumes of pods, by file.
func (c *Cluster) PodTokens(node int) (map[string]string, error) {
	// A projected volume is a link to its present version.
	files, err := filepath.Glob("/var/lib/kubelet/" + nodeName(node) + "/pods/*/volumes/kubernetes.io~projected/*/*token")
	out := map[string]string{}
	for _, f := range files {
		b, readErr := os.ReadFile(f)
		if errors.Is(readErr, os.ErrNotExist) {
			continue // the pod has gone meanwhile
		}
		err = errors.Join(err, readErr)
		out[f] = string(b)
	}
	return out, err
}

// PublishKey makes another key for service-account tokens, which the API
// server publishes and accepts from now on but does not sign with yet.
func (c *Cluster) PublishKey(ctx context.Context) error {
	name := fmt.Sprintf("issuer-%d.key", time.Now().UnixNano())
	if err := c.newIssuerKey(name); err != nil {
		return err
	}
	c.issuerKeys = append(c.issuerKeys, name)
	return c.RestartAPI(ctx)
}

// SignWithNewest makes the API server sign with the key published last.
func (c *Cluster) SignWithNewest(ctx context.Context) error {
	c.signing = c.issuerKeys[len(c.issuerKeys)-1]
	return c.RestartAPI(ctx)
}

// RetireKeys makes the API server forget every key but the one that it signs
// with. Whoever in the cluster has a token of another one must have got a new
// one before, see [Cluster.RestartKubelet].
func (c *Cluster) RetireKeys(ctx context.Context) error {
	c.issuerKeys = []string{c.signing}
	return c.RestartAPI(ctx)
}

// SigningKey is the id of the key that the API server signs with.
func (c *Cluster) SigningKey() (id string, err error) {
	_, id, err = c.signer()
	return id, err
}

func (c *Cluster) signer() (*rsa.PrivateKey, string, error) {
	b, err := os.ReadFile(c.path(c.signing))
	if err != nil {
		return nil, "", err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, "", errors.New("lab: the issuer's key is not PEM")
	}
	key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	if err != nil {
		return nil, "", err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, "", err
	}
	sum := sha256.Sum256(der) // as the API server names its keys
	return key, base64.RawURLEncoding.EncodeToString(sum[:]), nil
}

// Sign signs a token with the key that the API server signs with, for claims
// that it would not issue. The issuer is among the claims unless they have one.
func (c *Cluster) Sign(claims map[string]any) (string, error) {
	key, id, err := c.signer()
	if err != nil {
		return "", err
	}
	all := map[string]any{"iss": c.Issuer()}
	for name, v := range claims {
		all[name] = v
	}
	payload, err := json.Marshal(all)
	if err != nil {
		return "", err
	}
	enc := base64.RawURLEncoding
	signed := enc.EncodeToString(fmt.Appendf(nil, `{"alg":"RS256","kid":%q}`, id)) + "." + enc.EncodeToString(payload)
	sum := sha256.Sum256([]byte(signed))
	sig, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	return signed + "." + enc.EncodeToString(sig), err
}
