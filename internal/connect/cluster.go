package connect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/podkey/podkey/internal/client"
	"github.com/podkey/podkey/internal/text"
)

// fieldManager is who the API server notes as the author of what we write.
const fieldManager = "podkey"

const (
	kubeTimeout = 20 * time.Second // of one request
	maxDocument = 1 << 20          // bytes of a discovery document
)

var (
	namespacesGVR = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
	accountsGVR   = schema.GroupVersionResource{Version: "v1", Resource: "serviceaccounts"}
	webhooksGVR   = schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "mutatingwebhookconfigurations"}
)

// webhookName is the entry that injects pods, Podkey's and upstream's.
const webhookName = "mutation.azure-workload-identity.io"

// Cluster is the Kubernetes cluster whose service account is connected.
type Cluster struct {
	kube     dynamic.Interface // nil for Podkey's built-in cluster, which has no objects
	args     []string          // of kubectl, that choose it
	discover func(context.Context) (string, error)
	token    func(ctx context.Context, namespace, account, audience string) (string, error)
}

// OpenCluster opens a cluster. The arguments are those by which kubectl chooses
// it; a dry run prints them. Nothing is asked yet.
func OpenCluster(config *rest.Config, args ...string) (*Cluster, error) {
	config = rest.CopyConfig(config)
	config.UserAgent = "podkey"
	config.Timeout = kubeTimeout
	h, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("open the Kubernetes cluster: %w", err)
	}
	// A redirect would take the credential elsewhere, and bring an issuer from there.
	h.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	kube, err := dynamic.NewForConfigAndClient(config, h)
	if err != nil {
		return nil, fmt.Errorf("open the Kubernetes cluster: %w", err)
	}
	c := &Cluster{kube: kube, args: args}
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, fmt.Errorf("open the Kubernetes cluster: %w", err)
	}
	c.discover = func(ctx context.Context) (string, error) {
		return discoverIssuer(ctx, h, strings.TrimSuffix(base.String(), "/"))
	}
	c.token = c.requestToken
	return c, nil
}

// Local is the built-in cluster of a Podkey server, which issues tokens for
// service accounts of every name.
func Local(c *client.Client) *Cluster {
	return &Cluster{
		discover: func(context.Context) (string, error) { return c.Issuer("local"), nil },
		token: func(ctx context.Context, namespace, account, audience string) (string, error) {
			t, _, err := c.ServiceAccountToken(ctx, "local", namespace, account, audience, 10*time.Minute)
			return t, err
		},
	}
}

// discoverIssuer asks the API server for its own discovery document.
func discoverIssuer(ctx context.Context, h *http.Client, base string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/.well-known/openid-configuration", nil)
	if err != nil {
		return "", err
	}
	resp, err := h.Do(req)
	if err != nil {
		return "", fmt.Errorf("ask the API server for its issuer: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("the API server answers the question for its issuer with status %d", resp.StatusCode)
	}
	var doc struct {
		Issuer string `json:"issuer"`
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument))
	if err != nil {
		return "", fmt.Errorf("read the API server's discovery document: %w", err)
	}
	if err := json.Unmarshal(body, &doc); err != nil || doc.Issuer == "" {
		return "", errors.New("the API server's discovery document names no issuer")
	}
	return doc.Issuer, nil
}

func (c *Cluster) requestToken(ctx context.Context, namespace, account, audience string) (string, error) {
	req := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
		"metadata": map[string]any{"name": account, "namespace": namespace},
		"spec":     map[string]any{"audiences": []any{audience}, "expirationSeconds": int64(600)},
	}}
	got, err := c.kube.Resource(accountsGVR).Namespace(namespace).Create(ctx, req, metav1.CreateOptions{}, "token")
	if err != nil {
		return "", err
	}
	token, _, err := unstructured.NestedString(got.Object, "status", "token")
	if err == nil && token == "" {
		err = errors.New("the API server's answer has no token")
	}
	return token, err
}

// Account is a service account as it was read.
type Account struct {
	Annotations     map[string]string
	Labels          map[string]string
	UID             string
	ResourceVersion string
	used            bool // has more than a new one has
}

// account reads a service account, and whether its namespace is there.
func (c *Cluster) account(ctx context.Context, namespace, name string) (a *Account, namespaceThere bool, err error) {
	got, err := c.kube.Resource(accountsGVR).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case err == nil:
		out := &Account{Annotations: got.GetAnnotations(), Labels: got.GetLabels(), UID: string(got.GetUID()), ResourceVersion: got.GetResourceVersion()}
		for _, field := range []string{"secrets", "imagePullSecrets"} {
			l, _, _ := unstructured.NestedSlice(got.Object, field)
			out.used = out.used || len(l) > 0
		}
		out.used = out.used || len(out.Labels) > 0 || len(got.GetOwnerReferences()) > 0 || len(got.GetFinalizers()) > 0
		return out, true, nil
	case !apierrors.IsNotFound(err):
		return nil, false, fmt.Errorf("read the service account: %w", err)
	}
	_, err = c.kube.Resource(namespacesGVR).Get(ctx, namespace, metav1.GetOptions{})
	switch {
	case err == nil:
		return nil, true, nil
	case apierrors.IsNotFound(err):
		return nil, false, nil
	case apierrors.IsForbidden(err):
		return nil, true, nil // not ours to know: making the account will tell
	}
	return nil, false, fmt.Errorf("read the namespace: %w", err)
}

func (c *Cluster) createNamespace(ctx context.Context, name string) error {
	o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": name}}}
	_, err := c.kube.Resource(namespacesGVR).Create(ctx, o, metav1.CreateOptions{FieldManager: fieldManager})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func accountObject(namespace, name string, annotations map[string]string) map[string]any {
	meta := map[string]any{"name": name, "namespace": namespace}
	if len(annotations) > 0 {
		as := map[string]any{}
		for k, v := range annotations {
			as[k] = v
		}
		meta["annotations"] = as
	}
	return map[string]any{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}
}

func (c *Cluster) createAccount(ctx context.Context, namespace, name string, annotations map[string]string) error {
	o := &unstructured.Unstructured{Object: accountObject(namespace, name, annotations)}
	_, err := c.kube.Resource(accountsGVR).Namespace(namespace).Create(ctx, o, metav1.CreateOptions{FieldManager: fieldManager})
	return overtaken(err)
}

// annotate sets annotations of an account, or removes those that are nil,
// unless the account has changed since it was read.
func (c *Cluster) annotate(ctx context.Context, namespace, name, version string, annotations map[string]*string) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": annotations, "resourceVersion": version}})
	if err != nil {
		return err
	}
	_, err = c.kube.Resource(accountsGVR).Namespace(namespace).Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: fieldManager})
	return overtaken(err)
}

func (c *Cluster) deleteAccount(ctx context.Context, namespace, name string, a *Account) error {
	uid := types.UID(a.UID)
	err := c.kube.Resource(accountsGVR).Namespace(namespace).Delete(ctx, name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &a.ResourceVersion},
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return overtaken(err)
}

// overtaken says what to do when somebody else was quicker.
func overtaken(err error) error {
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
		return &Problem{PhaseAccount, errors.New("the service account was changed by somebody else meanwhile"), "run the command again"}
	}
	return err
}

// webhookThere reports whether something in the cluster injects pods; known is
// false if we may not see it.
func (c *Cluster) webhookThere(ctx context.Context) (there, known bool) {
	if c.kube == nil {
		return true, true
	}
	l, err := c.kube.Resource(webhooksGVR).List(ctx, metav1.ListOptions{})
	if err != nil {
		return false, false
	}
	for i := range l.Items {
		hooks, _, _ := unstructured.NestedSlice(l.Items[i].Object, "webhooks")
		for _, h := range hooks {
			if m, _ := h.(map[string]any); m["name"] == webhookName {
				return true, true
			}
		}
	}
	return false, true
}

// kubectl is the beginning of a command for this cluster.
func (c *Cluster) kubectl(args ...string) string {
	return words(append(append([]string{"kubectl"}, c.args...), args...)...)
}

// printableList joins names for people.
func printableList(names []string) string {
	for i, n := range names {
		names[i] = text.Printable(n)
	}
	return strings.Join(names, ", ")
}
