package webhook

import (
	"context"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
)

// keyPrefix is of the labels and annotations that are kept. All others, and
// everything else of a service account, are dropped before they reach the
// cache, which is what makes a large cluster fit.
const keyPrefix = "azure.workload.identity/"

// lookupTimeout is for the one request to the API server after a miss. It is
// well below the 10 s that the API server gives us for the whole review.
const lookupTimeout = 3 * time.Second

// maxAsking is how many of them are under way at once. Whoever reaches the
// port can name accounts that do not exist; the API server must not pay.
const maxAsking = 32

// accounts is the cache of service accounts.
type accounts struct {
	client     metadata.Interface
	store      cache.Indexer
	controller cache.Controller
	metrics    *metrics
	asking     singleflight.Group
	turns      chan struct{}
}

func newAccounts(client metadata.Interface, m *metrics) *accounts {
	a := &accounts{client: client, metrics: m, turns: make(chan struct{}, maxAsking)}
	all := client.Resource(accountsGVR)
	var store cache.Store
	store, a.controller = cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
				return all.List(ctx, o)
			},
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
				return all.Watch(ctx, o)
			},
		}, client),
		ObjectType: &metav1.PartialObjectMetadata{},
		Indexers:   cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc},
		Transform:  trim,
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

// trim drops what is not needed. It sees objects before they are stored.
func trim(obj any) (any, error) {
	m, ok := obj.(*metav1.PartialObjectMetadata)
	if !ok {
		return obj, nil
	}
	return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Name: m.Name, Namespace: m.Namespace, UID: m.UID,
		ResourceVersion: m.ResourceVersion, // by which the watch is resumed
		Labels:          ours(m.Labels), Annotations: ours(m.Annotations),
	}}, nil
}

func ours(in map[string]string) map[string]string {
	var out map[string]string
	for k, v := range in {
		if strings.HasPrefix(k, keyPrefix) {
			if out == nil {
				out = map[string]string{}
			}
			out[k] = v
		}
	}
	return out
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
	return &Account{Namespace: m.Namespace, Name: m.Name, UID: string(m.UID), Annotations: m.Annotations, Labels: m.Labels}
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

func (a *accounts) ask(ctx context.Context, namespace, name string) (*Account, error) {
	select {
	case a.turns <- struct{}{}:
		defer func() { <-a.turns }()
	case <-ctx.Done():
		a.metrics.lookups.WithLabelValues("error").Inc()
		return nil, fmt.Errorf("look up service account %s/%s: too many look-ups at once: %w", namespace, name, ctx.Err())
	}
	m, err := a.client.Resource(accountsGVR).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		a.metrics.lookups.WithLabelValues("missing").Inc()
		return nil, &missingError{err}
	case err != nil:
		a.metrics.lookups.WithLabelValues("error").Inc()
		return nil, fmt.Errorf("look up service account %s/%s: %w", namespace, name, err)
	}
	a.metrics.lookups.WithLabelValues("api").Inc()
	t, _ := trim(m)
	return account(t.(*metav1.PartialObjectMetadata)), nil
}
