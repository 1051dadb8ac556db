// Package install brings the objects of Podkey's chart into a Kubernetes
// cluster and takes them out again: for `podkey install`, and for the server
// when workload identity is switched on in a registered cluster.
//
// It owns nothing: what is installed is what it is given, and what is removed
// is what carries Podkey's labels. It guarantees that
//
//   - objects of others are never taken over, and never removed;
//   - both directions can be repeated, and finish what an earlier attempt left;
//   - webhook configurations go first when Podkey is removed, so that no pod
//     waits for a webhook that is not there any more, and a namespace goes only
//     if Podkey made it and nothing else is in it;
//   - errors quote Kubernetes' own messages and nothing else that a server
//     sends: who chose the server's address cannot read strangers' answers in
//     them.
//
// It speaks through client-go's dynamic client. The typed one would bring the
// types of all of Kubernetes into every process of Podkey's.
package install

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/podkey/podkey/deploy/chart"
)

// fieldManager is who Podkey is in server-side apply.
const fieldManager = "podkey"

// Labels that the chart gives to all that it makes, but the namespace, which
// gets them here.
const (
	labelName     = "app.kubernetes.io/name"
	labelInstance = "app.kubernetes.io/instance"
	nameValue     = "podkey"
)

// helmRelease is the annotation that Helm puts on what it owns.
const helmRelease = "meta.helm.sh/release-name"

// Options adjust [Apply] and [Remove]. The zero value is usable.
type Options struct {
	// Report is told what is done, one object at a time: what is a word such as
	// created or a short sentence. May be nil.
	Report func(object, what string)
	// Timeout is for all of it; five minutes if zero.
	Timeout time.Duration
	// Patience is for how long a pod may say that it cannot start, such as for
	// want of its image, before the wait is given up; 45 seconds if zero.
	Patience time.Duration
	// Poll is the time between two looks at what is waited for; one second if zero.
	Poll time.Duration
}

func (o Options) withDefaults() Options {
	o.Timeout = cmp.Or(o.Timeout, 5*time.Minute)
	o.Patience = cmp.Or(o.Patience, 45*time.Second)
	o.Poll = cmp.Or(o.Poll, time.Second)
	if o.Report == nil {
		o.Report = func(string, string) {}
	}
	return o
}

// requestTime is for one request.
const requestTime = 30 * time.Second

// kind is what must be known of a kind of object to reach it.
type kind struct {
	name       string
	resource   schema.GroupVersionResource
	namespaced bool
}

// kinds are what the chart may have, in its order of installation.
var kinds = [...]kind{
	{"Namespace", schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}, false},
	{"PodDisruptionBudget", schema.GroupVersionResource{Group: "policy", Version: "v1", Resource: "poddisruptionbudgets"}, true},
	{"ServiceAccount", schema.GroupVersionResource{Version: "v1", Resource: "serviceaccounts"}, true},
	{"ConfigMap", schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}, true},
	{"ClusterRole", schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles"}, false},
	{"ClusterRoleBinding", schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterrolebindings"}, false},
	{"Role", schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "roles"}, true},
	{"RoleBinding", schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "rolebindings"}, true},
	{"Service", schema.GroupVersionResource{Version: "v1", Resource: "services"}, true},
	{"DaemonSet", schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "daemonsets"}, true},
	{"Deployment", schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}, true},
	{"StatefulSet", schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "statefulsets"}, true},
	{"MutatingWebhookConfiguration", schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "mutatingwebhookconfigurations"}, false},
	{"ValidatingWebhookConfiguration", schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingwebhookconfigurations"}, false},
}

func kindNamed(name string) (kind, error) {
	for _, k := range kinds {
		if k.name == name {
			return k, nil
		}
	}
	return kind{}, fmt.Errorf("objects of kind %q are not known here", name)
}

// conn is the API server, and how to work with it.
type conn struct {
	o      Options
	config *rest.Config
	api    dynamic.Interface
}

// connect prepares the client. It sends nothing yet.
func connect(config *rest.Config, o Options) (*conn, error) {
	config = rest.CopyConfig(config)
	config.UserAgent = "podkey"
	config.QPS = -1 // the requests are few, and each waits for the one before
	config.Timeout = cmp.Or(config.Timeout, requestTime)
	if config.WarningHandler == nil && config.WarningHandlerWithContext == nil {
		config.WarningHandler = rest.NoWarnings{}
	}
	api, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &conn{o: o, config: config, api: api}, nil
}

// quiet keeps the client from writing to standard error by itself: what is
// worth saying is in its errors.
func quiet(ctx context.Context) context.Context { return klog.NewContext(ctx, klog.Logger{}) }

// object is one object as it is to be, and where it is.
type object struct {
	kind
	want *unstructured.Unstructured
	api  dynamic.ResourceInterface
}

func (c *conn) object(o chart.Object) (object, error) {
	u := &unstructured.Unstructured{Object: o}
	k, err := kindNamed(u.GetKind())
	if err != nil {
		return object{}, err
	}
	if u.GetAPIVersion() != k.resource.GroupVersion().String() {
		return object{}, fmt.Errorf("%s has the API version %q; known is %s", k.name, u.GetAPIVersion(), k.resource.GroupVersion())
	}
	return object{kind: k, want: u, api: c.resource(k, u.GetNamespace())}, nil
}

func (c *conn) resource(k kind, namespace string) dynamic.ResourceInterface {
	if k.namespaced {
		return c.api.Resource(k.resource).Namespace(namespace)
	}
	return c.api.Resource(k.resource)
}

// title is how an object is called in reports and errors.
func title(kind string, u metav1.Object) string {
	if ns := u.GetNamespace(); ns != "" {
		return kind + " " + ns + "/" + u.GetName()
	}
	return kind + " " + u.GetName()
}

func (x *object) title() string { return title(x.name, x.want) }

// ours tells whether an object carries Podkey's labels, as this instance.
func ours(u metav1.Object, instance string) bool {
	l := u.GetLabels()
	return l[labelName] == nameValue && l[labelInstance] == instance
}

// instanceOf is the instance that labelled objects belong to.
func instanceOf(objects []chart.Object) string {
	for _, o := range objects {
		u := unstructured.Unstructured{Object: o}
		if u.GetLabels()[labelName] == nameValue {
			return u.GetLabels()[labelInstance]
		}
	}
	return nameValue
}

// Apply brings objects into a cluster, in their order, and waits until they
// work: Deployments are rolled out, webhook configurations know the webhook's
// certificate. What is there already is changed to what is wanted.
//
// If ctx ends, its error is in the chain of the one that is returned.
func Apply(ctx context.Context, config *rest.Config, objects []chart.Object, o Options) error {
	o = o.withDefaults()
	c, err := connect(config, o)
	if err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(quiet(ctx), o.Timeout)
	defer cancel()
	instance := instanceOf(objects)
	var wait []object
	for _, raw := range objects {
		x, err := c.object(raw)
		if err != nil {
			return err
		}
		what, err := c.apply(bounded, x, instance)
		if err != nil {
			return c.failed(ctx, bounded, x.title(), err)
		}
		o.Report(x.title(), what)
		wait = append(wait, x)
	}
	for _, x := range wait {
		if err := c.settle(bounded, x); err != nil {
			return c.failed(ctx, bounded, x.title(), err)
		}
	}
	return nil
}

// apply makes one object what it is to be.
func (c *conn) apply(ctx context.Context, x object, instance string) (what string, err error) {
	have, err := c.present(ctx, x)
	if err != nil {
		return "", err
	}
	want := x.want.DeepCopy()
	if x.name == "Namespace" {
		if have != nil {
			return "is there", nil
		}
		// So that Remove knows that it is ours.
		want.SetLabels(map[string]string{labelName: nameValue, labelInstance: instance})
	}
	if have != nil {
		if r := have.GetAnnotations()[helmRelease]; r != "" {
			return "", &Error{Reason: Taken, Message: fmt.Sprintf("belongs to the Helm release %q: change it with helm upgrade, or remove it with helm uninstall", printable(r))}
		}
		if !ours(have, instance) {
			return "", &Error{Reason: Taken, Message: fmt.Sprintf("is there already and not Podkey's (it has not the labels %s=%s, %s=%s): rename it, or remove it", labelName, nameValue, labelInstance, instance)}
		}
	}
	// Force is for objects of ours alone, whose fields somebody may have edited
	// by hand. On one that came to be just now it would take over a stranger's.
	got, err := x.api.Apply(ctx, want.GetName(), want, metav1.ApplyOptions{FieldManager: fieldManager, Force: have != nil})
	switch {
	case err != nil:
		return "", explain(err)
	case have == nil:
		return "created", nil
	case have.GetResourceVersion() == got.GetResourceVersion():
		return "unchanged", nil
	}
	return "changed", nil
}

// present reads an object; nil if there is none. One that is on its way out
// is waited for.
func (c *conn) present(ctx context.Context, x object) (*unstructured.Unstructured, error) {
	for told := false; ; told = true {
		have, err := c.get(ctx, x)
		if err != nil || have == nil || have.GetDeletionTimestamp() == nil {
			return have, err
		}
		if !told {
			c.o.Report(x.title(), "waiting until the old one is gone")
		}
		if err := pause(ctx, c.o.Poll); err != nil {
			return nil, fmt.Errorf("the old one is still being removed: %w", err)
		}
	}
}

func (c *conn) get(ctx context.Context, x object) (*unstructured.Unstructured, error) {
	have, err := x.api.Get(ctx, x.want.GetName(), metav1.GetOptions{})
	if notFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, explain(err)
	}
	return have, nil
}

// failed adds which object an error is about. If it is only that our own time
// is over, it says so.
func (c *conn) failed(ctx, bounded context.Context, title string, err error) error {
	if ctx.Err() == nil && bounded.Err() != nil && errors.Is(err, context.DeadlineExceeded) {
		if e, ok := errors.AsType[*Error](err); !ok || e.Reason == Unreachable {
			err = &Error{Reason: NotReady, Message: "took too long: the time limit is " + c.o.Timeout.String(), Err: err}
		}
	}
	return fmt.Errorf("%s: %w", title, err)
}

// pause waits, or returns the error of ctx.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// pages is the mark of a further page of a list; empty if this was the last.
func pages(l *unstructured.UnstructuredList) string {
	m, err := meta.ListAccessor(l)
	if err != nil {
		return ""
	}
	return m.GetContinue()
}
