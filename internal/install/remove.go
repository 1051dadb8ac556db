package install

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"github.com/podkey/podkey/deploy/chart"
)

// secretKind is not the chart's: the webhook makes its certificate itself.
var secretKind = kind{"Secret", schema.GroupVersionResource{Version: "v1", Resource: "secrets"}, true}

// certificate is the Secret that the chart's webhook keeps its certificate in.
const certificate = "podkey-webhook-cert"

// Remove takes out of a cluster what an [Apply] of the release brought, or
// what is left of it. Only name and namespace of the release count. What
// belongs to a release of Helm's is an error before anything is removed.
func Remove(ctx context.Context, config *rest.Config, r chart.Release, o Options) error {
	o = o.withDefaults()
	c, err := connect(config, o)
	if err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(quiet(ctx), o.Timeout)
	defer cancel()
	r.Name, r.Namespace = cmp.Or(r.Name, nameValue), cmp.Or(r.Namespace, "podkey-system")
	if err := c.remove(bounded, r); err != nil {
		return c.failed(ctx, bounded, "remove Podkey", err)
	}
	return nil
}

// found is an object that is to go.
type found struct {
	kind
	*unstructured.Unstructured
}

func (c *conn) remove(ctx context.Context, r chart.Release) error {
	going, err := c.find(ctx, r)
	if err != nil {
		return err
	}
	for _, f := range going {
		if err := c.delete(ctx, f); err != nil {
			return err
		}
	}
	return c.removeNamespace(ctx, r)
}

// find lists what is to go, in the order in which it goes.
func (c *conn) find(ctx context.Context, r chart.Release) (going []found, err error) {
	for _, k := range slices.Backward(kinds[:]) {
		if k.name == "Namespace" {
			continue
		}
		list, err := c.resource(k, r.Namespace).List(ctx, metav1.ListOptions{LabelSelector: labelName + "=" + nameValue + "," + labelInstance + "=" + r.Name})
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", k.resource.Resource, explain(err))
		}
		for i := range list.Items {
			u := &list.Items[i]
			if h := u.GetAnnotations()[helmRelease]; h != "" {
				return nil, &Error{Reason: Taken, Message: fmt.Sprintf("%s belongs to the Helm release %q: remove it with helm uninstall", title(k.name, u), printable(h))}
			}
			if ns := servedFrom(u); ns != "" && ns != r.Namespace {
				return nil, &Error{Reason: Taken, Message: fmt.Sprintf("%s is served from the namespace %q, not from %q: Podkey is installed there", title(k.name, u), printable(ns), r.Namespace)}
			}
			going = append(going, found{k, u})
		}
	}
	secrets := c.resource(secretKind, r.Namespace)
	u, err := secrets.Get(ctx, certificate, metav1.GetOptions{})
	switch {
	case notFound(err):
	case err != nil:
		return nil, fmt.Errorf("read the webhook's certificate: %w", explain(err))
	case u.Object["type"] == "Opaque" && len(going) > 0: // else it is not one that the webhook made
		going = append(going, found{secretKind, u})
	}
	return going, nil
}

// servedFrom is the namespace that a webhook configuration leads to.
func servedFrom(u *unstructured.Unstructured) string {
	list, _, _ := unstructured.NestedSlice(u.Object, "webhooks")
	for _, w := range list {
		m, _ := w.(map[string]any)
		if ns, _, _ := unstructured.NestedString(m, "clientConfig", "service", "namespace"); ns != "" {
			return ns
		}
	}
	return ""
}

// delete removes the very object that was looked at, not one that has come
// under its name since.
func (c *conn) delete(ctx context.Context, f found) error {
	uid, behind := f.GetUID(), metav1.DeletePropagationBackground
	err := c.resource(f.kind, f.GetNamespace()).Delete(ctx, f.GetName(), metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &uid}, PropagationPolicy: &behind,
	})
	if err != nil && !notFound(err) {
		return fmt.Errorf("%s: %w", title(f.name, f), explain(err))
	}
	c.o.Report(title(f.name, f), "removed")
	return nil
}

// removeNamespace removes the namespace if Apply made it and nothing is in it.
func (c *conn) removeNamespace(ctx context.Context, r chart.Release) error {
	x := object{kind: kinds[0], want: &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"name": r.Namespace}}}}
	x.api = c.resource(x.kind, "")
	have, err := c.get(ctx, x)
	if err != nil || have == nil || have.GetDeletionTimestamp() != nil {
		return err
	}
	if !ours(have, r.Name) {
		c.o.Report(x.title(), "left alone: Podkey did not make it")
		return nil
	}
	other, err := c.inhabitant(ctx, r)
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		other = "what is in it cannot be told (" + err.Error() + ")"
	}
	if other != "" {
		c.o.Report(x.title(), "left alone: "+other)
		return nil
	}
	return c.delete(ctx, found{x.kind, have})
}

// inhabitant names something in a namespace that is not Podkey's and not in
// every namespace.
func (c *conn) inhabitant(ctx context.Context, r chart.Release) (string, error) {
	all, err := c.namespaced(ctx)
	if err != nil {
		return "", err
	}
	for _, gvr := range all {
		if gvr.Resource == "events" && (gvr.Group == "" || gvr.Group == "events.k8s.io") {
			continue // notes about other objects, and any number of them
		}
		list, err := c.api.Resource(gvr).Namespace(r.Namespace).List(ctx, metav1.ListOptions{Limit: maxPods})
		if notFound(err) {
			continue // a kind that has gone
		}
		if err != nil {
			return "", fmt.Errorf("list %s: %w", gvr.Resource, explain(err))
		}
		for i := range list.Items {
			if u := &list.Items[i]; !ours(u, r.Name) && !everywhere(gvr, u) {
				return fmt.Sprintf("%s %s is in it", gvr.GroupResource(), printable(u.GetName())), nil
			}
		}
		if pages(list) != "" {
			return fmt.Sprintf("many %s are in it", gvr.GroupResource()), nil
		}
	}
	return "", nil
}

// everywhere tells whether every namespace has such an object.
func everywhere(gvr schema.GroupVersionResource, u metav1.Object) bool {
	switch gvr.GroupResource() {
	case schema.GroupResource{Resource: "configmaps"}:
		return u.GetName() == "kube-root-ca.crt"
	case schema.GroupResource{Resource: "serviceaccounts"}:
		return u.GetName() == "default"
	}
	return false
}

// discovery is a list of what an API server has: an answer to one question,
// where the older form takes one for each group.
const discovery = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

// maxDiscovery is the longest such list, in bytes.
const maxDiscovery = 16 << 20

// namespaced lists the resources that can be in a namespace.
func (c *conn) namespaced(ctx context.Context) ([]schema.GroupVersionResource, error) {
	client, err := rest.HTTPClientFor(c.config)
	if err != nil {
		return nil, err
	}
	base, _, err := rest.DefaultServerUrlFor(c.config)
	if err != nil {
		return nil, err
	}
	var all []schema.GroupVersionResource
	for _, root := range []string{"api", "apis"} {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, base.JoinPath(root).String(), nil)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Accept", discovery)
		more, err := readDiscovery(client, req)
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
	}
	return all, nil
}

func readDiscovery(client *http.Client, req *http.Request) ([]schema.GroupVersionResource, error) {
	resp, err := client.Do(req)
	if err != nil {
		return nil, explain(err)
	}
	defer resp.Body.Close()
	var d struct {
		Kind  string `json:"kind"`
		Items []struct {
			Metadata struct {
				Name string `json:"name"`
			} `json:"metadata"`
			Versions []struct {
				Version   string `json:"version"`
				Freshness string `json:"freshness"`
				Resources []struct {
					Resource string   `json:"resource"`
					Scope    string   `json:"scope"`
					Verbs    []string `json:"verbs"`
				} `json:"resources"`
			} `json:"versions"`
		} `json:"items"`
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxDiscovery))
	if err != nil {
		return nil, explain(err)
	}
	if json.Unmarshal(body, &d) != nil || d.Kind != "APIGroupDiscoveryList" {
		return nil, errors.New("the API server does not list what it has")
	}
	var out []schema.GroupVersionResource
	for _, g := range d.Items {
		for i, v := range g.Versions {
			if v.Freshness == "Stale" {
				return nil, fmt.Errorf("the API group %s does not answer", printable(g.Metadata.Name))
			}
			if i > 0 {
				break // the first is the preferred one; all show the same objects
			}
			for _, r := range v.Resources {
				if r.Scope == "Namespaced" && slices.Contains(r.Verbs, "list") {
					out = append(out, schema.GroupVersionResource{Group: g.Metadata.Name, Version: v.Version, Resource: r.Resource})
				}
			}
		}
	}
	return out, nil
}
