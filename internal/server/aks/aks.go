// Package aks is the management face of registered clusters:
// Microsoft.ContainerService/managedClusters.
//
// Podkey makes and runs no cluster. An existing one is registered, by a PUT
// with properties.podkey, and from then on answers as a managed cluster. The
// package owns the record of a cluster, the keys that are pinned for its
// issuer, and its kubeconfig. It guarantees that
//
//   - an issuer belongs to one cluster, whichever server registers it;
//   - issuers of the server itself, and Entra's, cannot be registered;
//   - keys are pinned only by who may become any identity anyway (see
//     [Clusters.trustedByAll]), and replaced only by who may assign roles on the
//     cluster;
//   - the kubeconfig is stored sealed and shown by the two credential actions
//     alone; the server itself uses it for nothing but to install and remove
//     what workload identity needs, at addresses that [Options.Dial] permits;
//   - a wish for workload identity is stored before anything is done for it,
//     and one process at a time works on a cluster (see [Clusters.Run]).
//
// What a registered cluster cannot do here, such as grow, is refused by name.
package aks

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"

	"github.com/podkey/podkey/deploy/chart"
	"github.com/podkey/podkey/internal/kubeconfig"
	"github.com/podkey/podkey/internal/server/arm"
	"github.com/podkey/podkey/internal/server/rbac"
	"github.com/podkey/podkey/internal/store"
)

// Options are what the package works with. All must be set but Now, Log and
// those that adjust the work in clusters.
type Options struct {
	RBAC *rbac.RBAC
	// Home is the server's own tenant: that of its operator.
	Home func(ctx context.Context) (tenantID string, err error)
	// Reserved reports whether the server itself, or the Entra that it stands
	// for, answers for a host (lower case, without port).
	Reserved func(host string) bool
	// AllowLoopback accepts http issuers on this machine, for tests.
	AllowLoopback bool
	Now           func() time.Time // clock; time.Now if nil
	Log           *slog.Logger     // told of work in clusters; nobody is if nil

	// Manifests are what is installed in the clusters of a tenant.
	Manifests func(ctx context.Context, tenantID string) ([]chart.Object, error)
	// Namespace is where it is installed.
	Namespace string
	// Dial connects to the API servers of clusters, at addresses that others
	// chose: trusted is set for those that who is trusted by all registered.
	Dial func(trusted bool) func(ctx context.Context, network, address string) (net.Conn, error)
	// Alone says that no other server shares the store: whatever is under way
	// when this one starts, nobody works on it.
	Alone bool

	WorkTime time.Duration // for one attempt in a cluster; five minutes if zero
	Patience time.Duration // with pods that cannot start; that of package install if zero
	Poll     time.Duration // between two looks at the cluster; that of package install if zero
}

// Clusters keeps the registered clusters. Create with [New]; safe for
// concurrent use.
type Clusters struct {
	s           *store.Store
	o           Options
	clusters    *store.Table[cluster]
	kubeconfigs *store.Table[kubeconfig.Access]
	runner      string // names this process among those that share the store
	runs        runs
}

// New declares the tables cluster and kubeconfig. Call it before Store.Load.
func New(s *store.Store, o Options) *Clusters {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.WorkTime == 0 {
		o.WorkTime = workTime
	}
	return &Clusters{s: s, o: o, runner: uuid.NewString(),
		runs: runs{byID: map[string]*runInfo{}, wake: make(chan struct{}, 1)},
		clusters: store.NewTable(s, "cluster", store.TableOptions[cluster]{
			Mode:      store.Plain,
			Unmarshal: unmarshalCluster,
			Indexes:   map[string]func(*cluster) []string{"issuer": func(c *cluster) []string { return []string{c.Issuer} }},
		}),
		kubeconfigs: store.NewTable(s, "kubeconfig", store.TableOptions[kubeconfig.Access]{Mode: store.Sealed}),
	}
}

// keySource says where the keys of an issuer come from.
type keySource string

const (
	// pinned keys are stored, and nothing is fetched.
	pinned keySource = "Pinned"
	// fetched keys come from the issuer's own documents, when they are needed.
	fetched keySource = "Fetched"
)

// cluster is a registered cluster as it is stored, without its kubeconfig.
type cluster struct {
	ID             string            `json:"id"` // in display case
	Name           string            `json:"name"`
	TenantID       string            `json:"tenantId"`
	SubscriptionID string            `json:"subscriptionId"`
	ResourceGroup  string            `json:"resourceGroup"`
	Location       string            `json:"location"`
	Tags           map[string]string `json:"tags,omitempty"`

	Issuer      string    `json:"issuer"` // exactly as in its tokens
	KeySource   keySource `json:"keySource"`
	Keys        []key     `json:"keys,omitempty"` // if pinned
	KeysUpdated time.Time `json:"keysUpdated,omitzero"`
	Server      string    `json:"server,omitempty"` // host of the API server, if there is a kubeconfig

	Version          string `json:"version,omitempty"`          // of Kubernetes
	ServicePrincipal string `json:"servicePrincipal,omitempty"` // client id that the cluster's own components use
	WorkloadIdentity bool   `json:"workloadIdentity,omitempty"` // wanted

	TrustedServer bool      `json:"trustedServer,omitempty"` // who is trusted by all registered the kubeconfig
	Webhook       webhook   `json:"webhook,omitempty"`       // as far as this server brought it
	Operation     operation `json:"operation,omitzero"`      // the last one

	Created time.Time `json:"created"`
	Updated time.Time `json:"updated"`
	ETag    string    `json:"etag"` // another one after every change

	set *jose.JSONWebKeySet // Keys, ready to use
}

// unmarshalCluster opens a record and its keys, so that the token path finds
// them ready.
func unmarshalCluster(b []byte, c *cluster) error {
	if err := json.Unmarshal(b, c); err != nil {
		return err
	}
	set, err := publicSet(c.Keys)
	c.set = set
	return err
}

// clusterKey is the key of a cluster in both tables.
func clusterKey(subscription, group, name string) string {
	return store.Key(subscription, strings.ToLower(group), strings.ToLower(name))
}

func keyOf(id arm.ID) string { return clusterKey(id.Subscription(), id.Group(), id.Name()) }

// Keys returns the keys that are pinned for an issuer, for token.Foreign. ok
// is false for issuers whose keys are to be fetched. The set is shared.
func (c *Clusters) Keys(ctx context.Context, issuer string) (set *jose.JSONWebKeySet, ok bool, err error) {
	found, err := c.clusters.Find(ctx, "issuer", issuer)
	if err != nil {
		return nil, false, err
	}
	for i := range found {
		if found[i].KeySource == pinned {
			return found[i].set, true, nil
		}
	}
	return nil, false, nil
}

// load finds a cluster by its id.
func (c *Clusters) load(ctx context.Context, id arm.ID) (cluster, bool, error) {
	return c.clusters.Load(ctx, keyOf(id))
}

// list returns the clusters of a subscription or group. Damaged records are
// left out: the store named them in the log.
func (c *Clusters) list(ctx context.Context, scope arm.ID) ([]cluster, error) {
	prefix := store.Key(scope.Subscription()) + "/"
	if g := scope.Group(); g != "" {
		prefix = store.Key(scope.Subscription(), strings.ToLower(g)) + "/"
	}
	entries, err := c.clusters.Scan(ctx, prefix, "", 0)
	if err != nil {
		return nil, err
	}
	var all []cluster
	for _, e := range entries {
		if e.Err == nil {
			all = append(all, e.Value)
		}
	}
	return all, nil
}

// remove unregisters a cluster: record, keys, kubeconfig and the role
// assignments on it go in one transaction. From then on tokens of its issuer
// count only if the issuer's own documents can be fetched, as for any issuer
// that nobody registered.
func (c *Clusters) remove(ctx context.Context, id arm.ID, _ string) error {
	err := c.s.Update(ctx, func(tx *store.Tx) error {
		have, ok, err := c.clusters.Get(tx, keyOf(id))
		if err != nil || !ok {
			return err
		}
		c.clusters.Delete(tx, keyOf(id))
		c.kubeconfigs.Delete(tx, keyOf(id))
		c.o.RBAC.DeleteScopeIn(tx, have.TenantID, id.Key())
		return nil
	})
	if err == nil {
		c.runs.stop(keyOf(id))
	}
	return err
}
