package webhook

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"

	"github.com/podkey/podkey/internal/text"
)

// lookupTimeout is for the one request to the API server after a miss. It is
// well below the 10 s that the API server gives us for the whole review.
const lookupTimeout = 3 * time.Second

// maxAsking is how many of them are under way at once. Whoever reaches the
// port can name accounts that do not exist; the API server must not pay.
const maxAsking = 32

// maxWaiting is how many are under way or wait for that. Together they cannot
// keep those from being answered whose account is in the cache.
const maxWaiting = 256

// accounts is the cache of service accounts.
type accounts struct {
	client     metadata.Interface
	keys       []string // of the annotations that are kept
	most       int      // bytes that are kept of one
	store      cache.Indexer
	controller cache.Controller
	metrics    *metrics
	asking     singleflight.Group
	turns      chan struct{}
	waiting    atomic.Int64
}

func newAccounts(client metadata.Interface, c Config, m *metrics) *accounts {
	a := &accounts{client: client, keys: c.Annotations, most: c.MaxAnnotation, metrics: m, turns: make(chan struct{}, maxAsking)}
	all := client.Resource(accountsGVR)
	var store cache.Store
	store, a.controller = cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
				return a.list(ctx, all, o)
			},
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
				return all.Watch(ctx, o)
			},
		}, client),
		ObjectType: &metav1.PartialObjectMetadata{},
		Indexers:   cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc},
		Transform:  func(obj any) (any, error) { return a.trim(obj), nil },
		Handler: cache.ResourceEventHandlerFuncs{DeleteFunc: func(obj any) {
			key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(obj)
			if ns, _, ok := strings.Cut(key, "/"); err == nil && ok && !a.hasNamespace(ns) {
				m.forget(ns)
			}
		}},
	})
	a.store = store.(cache.Indexer) // it is one, because Indexers is set
	return a
}

// pageSize is how many accounts are listed at once. Each may have annotations of
// 256 KiB, whoever makes them.
const pageSize = 50

// list is for API servers that do not stream the first list. It reads page by
// page and keeps of each what is needed. Pages are of the present state: of an
// older one, API servers send the whole at once, whatever the limit.
func (a *accounts) list(ctx context.Context, all metadata.Getter, o metav1.ListOptions) (runtime.Object, error) {
	o.Limit, o.Continue, o.ResourceVersion, o.ResourceVersionMatch = pageSize, "", "", ""
	var out *metav1.PartialObjectMetadataList
	for {
		page, err := all.List(ctx, o)
		if err != nil {
			return nil, err
		}
		for i := range page.Items {
			page.Items[i] = *a.trim(&page.Items[i]).(*metav1.PartialObjectMetadata)
		}
		if out == nil {
			out = page
		} else {
			out.Items = append(out.Items, page.Items...)
		}
		if o.Continue = page.Continue; o.Continue == "" {
			out.ListMeta = page.ListMeta
			return out, nil
		}
	}
}

// trim drops what is not needed, which is what makes a large cluster fit. It
// sees objects before they are stored. An annotation is cut where it is longer
// than any good one: what is left is too long still, and tells.
func (a *accounts) trim(obj any) any {
	m, ok := obj.(*metav1.PartialObjectMetadata)
	if !ok {
		return obj
	}
	kept := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Name: m.Name, Namespace: m.Namespace, UID: m.UID,
		ResourceVersion: m.ResourceVersion, // by which the watch is resumed
	}}
	for _, k := range a.keys {
		if v, ok := m.Annotations[k]; ok {
			if len(v) > a.most {
				v = strings.Clone(v[:a.most])
			}
			metav1.SetMetaDataAnnotation(&kept.ObjectMeta, k, v)
		}
	}
	return kept
}

func (a *accounts) run(ctx context.Context) { a.controller.RunWithContext(ctx) }

func (a *accounts) synced() bool { return a.controller.HasSynced() }

// hasNamespace reports whether any service account of the namespace is known.
// Every namespace has one, "default".
func (a *accounts) hasNamespace(ns string) bool {
	keys, err := a.store.IndexKeys(cache.NamespaceIndex, ns)
	return err == nil && len(keys) > 0
}

// cached is the account as the cache has it, nil if it does not.
func (a *accounts) cached(namespace, name string) *Account {
	v, ok, err := a.store.GetByKey(namespace + "/" + name)
	if err != nil || !ok {
		return nil
	}
	m, _ := v.(*metav1.PartialObjectMetadata)
	return account(m)
}

func account(m *metav1.PartialObjectMetadata) *Account {
	if m == nil {
		return nil
	}
	return &Account{Namespace: m.Namespace, Name: m.Name, UID: string(m.UID), Annotations: m.Annotations}
}

// missingError has the API server's text and is [ErrNoAccount].
type missingError struct{ cause error }

func (e *missingError) Error() string        { return e.cause.Error() }
func (e *missingError) Unwrap() error        { return e.cause }
func (e *missingError) Is(target error) bool { return target == ErrNoAccount }

// lookup is the [LookupFunc]. An account that was created a moment ago may
// not be in the cache yet: after a miss the API server is asked, once for all
// reviews that wait for the same account.
func (a *accounts) lookup(ctx context.Context, namespace, name string) (*Account, error) {
	if acc := a.cached(namespace, name); acc != nil {
		a.metrics.lookups.WithLabelValues("cache").Inc()
		return acc, nil
	}
	if !possible(namespace, name) {
		// They become parts of a path, and are a stranger's: with a name such
		// as ../../shop/serviceaccounts/web, another account would be asked for.
		a.metrics.lookups.WithLabelValues("missing").Inc()
		return nil, &missingError{fmt.Errorf("serviceaccounts %q not found: that is no name of one in a namespace", text.Clip(name, maxLogged))}
	}
	got := a.asking.DoChan(namespace+"/"+name, func() (any, error) {
		// Others may be waiting for the answer when the first one leaves.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookupTimeout)
		defer cancel()
		return a.ask(ctx, namespace, name)
	})
	select {
	case r := <-got:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*Account), nil
	case <-ctx.Done():
		return nil, fmt.Errorf("look up service account %s/%s: %w", namespace, name, ctx.Err())
	}
}

// possible reports whether there can be an account of that name.
func possible(namespace, name string) bool {
	return len(namespace) <= validation.DNS1123LabelMaxLength && len(validation.IsDNS1123Label(namespace)) == 0 && possibleName(name)
}

func possibleName(name string) bool {
	return len(name) <= validation.DNS1123SubdomainMaxLength && len(validation.IsDNS1123Subdomain(name)) == 0
}

func (a *accounts) ask(ctx context.Context, namespace, name string) (*Account, error) {
	defer a.waiting.Add(-1)
	if a.waiting.Add(1) > maxWaiting {
		a.metrics.lookups.WithLabelValues("error").Inc()
		return nil, fmt.Errorf("look up service account %s/%s: too many look-ups at once", namespace, name)
	}
	select {
	case a.turns <- struct{}{}:
		defer func() { <-a.turns }()
	case <-ctx.Done():
		a.metrics.lookups.WithLabelValues("error").Inc()
		return nil, fmt.Errorf("look up service account %s/%s: too many look-ups at once: %w", namespace, name, ctx.Err())
	}
	one := a.client.Resource(accountsGVR).Namespace(namespace)
	m, err := one.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsUnauthorized(err) {
		// Our own token was replaced, and the one before it counts no more. The
		// refusal has made the client forget it.
		m, err = one.Get(ctx, name, metav1.GetOptions{})
	}
	switch {
	case apierrors.IsNotFound(err):
		a.metrics.lookups.WithLabelValues("missing").Inc()
		return nil, &missingError{err}
	case err != nil:
		a.metrics.lookups.WithLabelValues("error").Inc()
		return nil, fmt.Errorf("look up service account %s/%s: %w", namespace, name, err)
	case m.Namespace != namespace || m.Name != name:
		a.metrics.lookups.WithLabelValues("error").Inc()
		return nil, fmt.Errorf("look up service account %s/%s: the API server answered with another", namespace, name)
	}
	a.metrics.lookups.WithLabelValues("api").Inc()
	return account(a.trim(m).(*metav1.PartialObjectMetadata)), nil
}
