package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

var (
	secretsGVR    = schema.GroupVersionResource{Version: "v1", Resource: "secrets"}
	eventsGVR     = schema.GroupVersionResource{Version: "v1", Resource: "events"}
	accountsGVR   = schema.GroupVersionResource{Version: "v1", Resource: "serviceaccounts"}
	mutatingGVR   = schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "mutatingwebhookconfigurations"}
	validatingGVR = schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "validatingwebhookconfigurations"}
)

// apiTimeout is for one request to the API server outside the admission path.
const apiTimeout = 10 * time.Second

// single follows one object by name. List and watch ask for that name alone,
// so a role can be limited to it by resourceNames.
type single struct {
	client     dynamic.ResourceInterface
	key        string
	store      cache.Store
	controller cache.Controller
}

func newSingle(client dynamic.Interface, gvr schema.GroupVersionResource, namespace, name string, changed func()) *single {
	s := &single{client: client.Resource(gvr), key: name}
	if namespace != "" {
		s.client, s.key = client.Resource(gvr).Namespace(namespace), namespace+"/"+name
	}
	only := fields.OneTermEqualSelector("metadata.name", name).String()
	s.store, s.controller = cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
				o.FieldSelector = only
				return s.client.List(ctx, o)
			},
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
				o.FieldSelector = only
				return s.client.Watch(ctx, o)
			},
		}, client),
		ObjectType: &unstructured.Unstructured{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { changed() },
			UpdateFunc: func(any, any) { changed() },
			DeleteFunc: func(any) { changed() },
		},
	})
	return s
}

// get is the object as last seen, nil if it does not exist. It is shared:
// read only.
func (s *single) get() *unstructured.Unstructured {
	v, ok, err := s.store.GetByKey(s.key)
	if err != nil || !ok {
		return nil
	}
	u, _ := v.(*unstructured.Unstructured)
	return u
}

func (s *single) synced() bool { return s.controller.HasSynced() }

// version is what the API server tells of itself.
type version struct{ Major, Minor, GitVersion string }

// serverVersion asks without a client of the discovery package, which brings
// the types of the whole API along.
func serverVersion(ctx context.Context, kube *rest.Config) (version, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	var v version
	client, err := rest.HTTPClientFor(kube)
	if err != nil {
		return v, err
	}
	base, _, err := rest.DefaultServerUrlFor(kube)
	if err != nil {
		return v, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base.JoinPath("version").String(), nil)
	if err != nil {
		return v, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return v, fmt.Errorf("ask for the version: %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return v, fmt.Errorf("ask for the version: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return v, fmt.Errorf("ask for the version: the API server answered %s", resp.Status)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return v, fmt.Errorf("ask for the version: %w", err)
	}
	return v, nil
}
