// Package issuer is the plane of clusters whose OpenID Connect issuer we are:
// the built-in cluster "local", and clusters that cannot publish their own
// documents.
//
// It serves each cluster's discovery document and keys to anybody, and issues
// service-account tokens of Kubernetes' shape to callers who may have them,
// by Kubernetes' own TokenRequest API. Refusals are Kubernetes Status objects.
// It guarantees that a cluster's issuer URL is one constant text, whatever
// name a request came in by, and that keys of one cluster never sign for
// another.
package issuer

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/podkey/podkey/internal/audit"
	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/token"
	"github.com/podkey/podkey/internal/web"
)

// Local is the name of the built-in cluster.
const Local = "local"

// ActionIssueToken is the action that a caller must be granted to be given a
// service account's token. Azure has no such operation; the name follows its
// others.
const ActionIssueToken = "Microsoft.ContainerService/managedClusters/serviceaccounts/token/action"

// Handler is the plane. Set the fields before first use and nothing after it.
type Handler struct {
	Own          *web.Names                                                                // required; Own.Issuer is the base of issuer URLs
	Keys         *token.Keys                                                               // required; keys are of purpose token.Cluster(name)
	Authenticate web.Authenticator                                                         // required
	Authorize    func(ctx context.Context, p audit.Principal, action, object string) error // required; object as of [ServiceAccountObject]
	Now          func() time.Time                                                          // clock; time.Now if nil

	// Known reports whether there is a cluster of this name, which is a DNS
	// label. If nil there is only Local.
	Known func(ctx context.Context, cluster string) (bool, error)

	// Pinned returns the keys that are pinned for the issuer of a registered
	// cluster; ok is false if there are none. It is asked for no issuer of
	// ours. If nil no keys are pinned.
	Pinned func(ctx context.Context, issuer string) (set *jose.JSONWebKeySet, ok bool, err error)
}

// URL is the issuer of a cluster, with its closing slash: the iss of its
// tokens and the issuer of federated credentials for them.
func URL(names *web.Names, cluster string) string {
	return names.Issuer + "/clusters/" + cluster + "/"
}

// ServiceAccountObject is what a decision about a service account's token is
// about.
func ServiceAccountObject(cluster, namespace, name string) string {
	return "/clusters/" + cluster + "/namespaces/" + namespace + "/serviceaccounts/" + name
}

// Plane returns the routes.
func (h *Handler) Plane() *web.Plane {
	var mux web.Mux
	mux.Handle("GET /clusters/{cluster}/.well-known/openid-configuration", h.discovery)
	mux.Handle("GET /clusters/{cluster}/openid/v1/jwks", h.jwks)
	mux.Handle("POST /clusters/{cluster}/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token", h.createToken)
	return &web.Plane{Name: "issuer", Serve: mux.Serve, Fail: fail}
}

// Registered returns the keys of our own clusters and those that are pinned
// for registered ones, for token.Foreign. ok is true for every issuer under
// our base, so that we never fetch from ourselves; one that is not exactly a
// cluster's has no keys.
func (h *Handler) Registered(ctx context.Context, issuer string) (set *jose.JSONWebKeySet, ok bool, err error) {
	rest, ok := strings.CutPrefix(issuer, h.Own.Issuer+"/")
	if !ok && h.Pinned != nil {
		return h.Pinned(ctx, issuer)
	}
	if !ok {
		return nil, false, nil
	}
	name := strings.TrimSuffix(strings.TrimPrefix(rest, "clusters/"), "/")
	if issuer != URL(h.Own, name) {
		return nil, true, nil
	}
	known, err := h.known(ctx, name)
	if err != nil || !known {
		return nil, true, err
	}
	set, err = h.Keys.Public(ctx, token.Cluster(name))
	return set, true, err
}

func (h *Handler) known(ctx context.Context, cluster string) (bool, error) {
	switch {
	case !isLabel(cluster):
		return false, nil
	case h.Known == nil:
		return cluster == Local, nil
	default:
		return h.Known(ctx, cluster)
	}
}

// cluster returns the name of the request's cluster.
func (h *Handler) cluster(r *http.Request) (string, error) {
	name := r.PathValue("cluster")
	known, err := h.known(r.Context(), name)
	if err != nil {
		return "", err
	}
	if !known {
		return "", fault.NotFound("NotFound", "There is no such cluster.")
	}
	return name, nil
}

func (h *Handler) now() time.Time {
	if h.Now != nil {
		return h.Now()
	}
	return time.Now()
}

// cacheControl is what kube-apiserver sends with both documents. It is far
// less than the time for which a key is published before it signs.
const cacheControl = "public, max-age=3600"

// discoveryDocument has the members of kube-apiserver's own.
type discoveryDocument struct {
	Issuer        string   `json:"issuer"`
	JWKSURI       string   `json:"jwks_uri"`
	ResponseTypes []string `json:"response_types_supported"`
	SubjectTypes  []string `json:"subject_types_supported"`
	Algorithms    []string `json:"id_token_signing_alg_values_supported"`
}

func (h *Handler) discovery(w http.ResponseWriter, r *http.Request) error {
	cluster, err := h.cluster(r)
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", cacheControl)
	return web.WriteJSON(w, http.StatusOK, discoveryDocument{
		Issuer:        URL(h.Own, cluster),
		JWKSURI:       URL(h.Own, cluster) + "openid/v1/jwks",
		ResponseTypes: []string{"id_token"},
		SubjectTypes:  []string{"public"},
		Algorithms:    []string{string(jose.RS256)},
	})
}

func (h *Handler) jwks(w http.ResponseWriter, r *http.Request) error {
	cluster, err := h.cluster(r)
	if err != nil {
		return err
	}
	set, err := h.Keys.JWKS(r.Context(), token.Cluster(cluster))
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", cacheControl)
	return web.WriteJSON(w, http.StatusOK, set)
}
