package aks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/kubeconfig"
	"github.com/podkey/podkey/internal/server/arm"
	"github.com/podkey/podkey/internal/server/rbac"
	"github.com/podkey/podkey/internal/store"
	"github.com/podkey/podkey/internal/web"
)

// actionGrant is the right to assign roles. Contributor does not have it.
const actionGrant = "Microsoft.Authorization/roleAssignments/write"

// clusterBody is a cluster in a PUT: what of it can change anything.
type clusterBody struct {
	Location   string             `json:"location"`
	Tags       *map[string]string `json:"tags"` // absent leaves them as they are
	Properties struct {
		Podkey           json.RawMessage       `json:"podkey"`
		Version          string                `json:"kubernetesVersion"`
		ServicePrincipal *wireServicePrincipal `json:"servicePrincipalProfile"`
		OIDC             *struct {
			Enabled *bool `json:"enabled"`
		} `json:"oidcIssuerProfile"`
		Security *struct {
			WorkloadIdentity *struct {
				Enabled *bool `json:"enabled"`
			} `json:"workloadIdentity"`
		} `json:"securityProfile"`
	} `json:"properties"`
}

// registration is properties.podkey of a PUT. What answers have beside it is
// accepted and ignored: clients send back what they read.
type registration struct {
	Issuer     string          `json:"issuer"`
	KeySource  keySource       `json:"keySource"`
	JWKS       json.RawMessage `json:"jwks"`       // if Pinned
	Kubeconfig string          `json:"kubeconfig"` // its text; never shown but by the credential actions
	AllowExec  bool            `json:"allowExec"`  // take a kubeconfig that runs a program

	KeyIDs        any `json:"keyIds"`
	KeysUpdated   any `json:"keysUpdatedAt"`
	HasKubeconfig any `json:"hasKubeconfig"`
	ToInstall     any `json:"toInstall"`
	Error         any `json:"error"`
}

// parsed is a registration whose parts have been read.
type parsed struct {
	issuer string
	source keySource
	keys   []key // nil: none were given
	access *kubeconfig.Access
	// trusted is set if who is trusted by all gives the access.
	trusted bool
}

// decodeTwice reads the body as a tree and into a type.
func decodeTwice(r *http.Request, tree, typed any) error {
	var raw json.RawMessage
	if err := web.DecodeJSON(r, codeContent, &raw); err != nil {
		return err
	}
	if err := web.UnmarshalJSON(raw, codeContent, tree); err != nil {
		return err
	}
	return web.UnmarshalJSON(raw, codeContent, typed)
}

// put registers a cluster, or changes one that is registered: as `podkey
// cluster register` does, as `az aks update` does, which reads a cluster,
// changes it and sends it back whole, and as a template does.
func (c *Clusters) put(w http.ResponseWriter, r *http.Request, q *arm.Request) error {
	var tree map[string]any
	var body clusterBody
	if err := decodeTwice(r, &tree, &body); err != nil {
		return err
	}
	if body.Tags != nil {
		if err := arm.CheckTags(*body.Tags); err != nil {
			return err
		}
	}
	if p := body.Properties.OIDC; p != nil && p.Enabled != nil && !*p.Enabled {
		return fault.BadRequest("OIDCIssuerFeatureCannotBeDisabled", "The OIDC issuer of a managed cluster cannot be disabled.")
	}
	ctx := r.Context()
	have, exists, err := c.load(ctx, q.ID)
	if err != nil {
		return err
	}
	if err := precondition(r, &have, exists); err != nil {
		return err
	}
	if err := have.mustBeIdle(); err != nil {
		return err
	}
	reg, err := c.registrationOf(&body, &have, exists)
	if err != nil {
		return err
	}
	next := have
	switch {
	case reg != nil:
		if err := c.mayRegister(ctx, q, reg, &have); err != nil {
			return err
		}
		if err := c.checkIssuer(reg.issuer); err != nil {
			return err
		}
		if err := next.apply(reg, &body, c.o.Now()); err != nil {
			return err
		}
		note(ctx, next.Issuer, next.Keys)
	case !exists:
		return fault.BadRequest("ClusterCreationNotSupported",
			"Podkey does not create Kubernetes clusters. Register an existing one: podkey cluster register -g %s -n %s --kubeconfig FILE", printable(q.ID.Group()), printable(q.ID.Name()))
	}
	if err := c.place(ctx, q, &next, &body, exists); err != nil {
		return err
	}
	if body.Tags != nil {
		next.Tags = *body.Tags
	}
	if s := body.Properties.Security; s != nil && s.WorkloadIdentity != nil && s.WorkloadIdentity.Enabled != nil {
		next.WorkloadIdentity = *s.WorkloadIdentity.Enabled
	}
	if err := onlySupported(tree, &next); err != nil {
		return err
	}
	next.begin(&have, reg, c.o.Now())
	return c.save(w, r, q, &have, &next, reg, exists)
}

// note puts on the request's log line which keys were to count for which
// issuer.
func note(ctx context.Context, issuer string, keys []key) {
	call := web.CallOf(ctx)
	if call == nil { // an operation that no request waits for
		return
	}
	ids := make([]string, len(keys))
	for i := range keys {
		ids[i] = keys[i].ID
	}
	call.Note("issuer", issuer)
	call.Note("keys", ids)
}

// place fills in where a new cluster is, and checks that an existing one is
// not to be moved.
func (c *Clusters) place(ctx context.Context, q *arm.Request, next *cluster, body *clusterBody, exists bool) error {
	if exists {
		return arm.SameLocation(q.ID, next.Location, body.Location)
	}
	if !validName(q.ID.Name()) {
		return arm.BadName(typeCluster, q.ID.Name(), "1 to 63 letters, digits, '-' or '_', the first and the last a letter or digit")
	}
	location, err := arm.CheckLocation(body.Location, typeCluster)
	if err != nil {
		return err
	}
	group, err := q.Group(ctx)
	if err != nil {
		return err
	}
	next.Name, next.Location, next.TenantID = q.ID.Name(), location, q.TenantID
	next.SubscriptionID, next.ResourceGroup = q.ID.Subscription(), group.Group()
	next.ID = group.String() + "/providers/" + typeCluster + "/" + next.Name
	return nil
}

// validName reports whether s can name a cluster, by Azure's rule.
func validName(s string) bool {
	if len(s) < 1 || len(s) > 63 {
		return false
	}
	for i := range len(s) {
		b := s[i]
		alnum := b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9'
		inside := (b == '-' || b == '_') && i > 0 && i < len(s)-1
		if !alnum && !inside {
			return false
		}
	}
	return true
}

// registrationOf reads the part of a PUT that only Podkey has. It is nil if
// the PUT registers nothing: if there is no such part, or it says what is so
// already.
func (c *Clusters) registrationOf(body *clusterBody, have *cluster, exists bool) (*parsed, error) {
	raw := body.Properties.Podkey
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	bad := func(format string, args ...any) error { return fault.BadRequest(codeRegistration, format, args...) }
	var in registration
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil { // its text could quote a secret
		return nil, bad("properties.podkey has a member that is not known or has the wrong type. Known are issuer, keySource, jwks, kubeconfig and allowExec.")
	}
	p := &parsed{issuer: in.Issuer, source: in.KeySource}
	if exists {
		if p.issuer == "" {
			p.issuer = have.Issuer
		}
		if p.source == "" {
			p.source = have.KeySource
		}
	}
	hasKeys := len(in.JWKS) > 0 && string(in.JWKS) != "null"
	if exists && !hasKeys && in.Kubeconfig == "" && p.issuer == have.Issuer && p.source == have.KeySource {
		return nil, nil
	}
	switch {
	case p.source != pinned && p.source != fetched:
		return nil, bad("properties.podkey.keySource must be Pinned or Fetched.")
	case hasKeys && p.source == fetched:
		return nil, bad("properties.podkey.jwks must not be given when keySource is Fetched.")
	}
	var err error
	if hasKeys {
		if p.keys, err = parseKeySet(in.JWKS); err != nil {
			return nil, bad("properties.podkey.jwks: %s.", err)
		}
	}
	if in.Kubeconfig != "" {
		p.access, err = kubeconfig.Parse([]byte(in.Kubeconfig), kubeconfig.Options{AllowExec: in.AllowExec})
		if errors.Is(err, kubeconfig.ErrExec) {
			return nil, bad("properties.podkey.kubeconfig: %s. To take it nevertheless, set allowExec.", err)
		}
		if err != nil {
			return nil, bad("properties.podkey.kubeconfig: %s.", err)
		}
	}
	return p, nil
}

// mayRegister demands more than the right to write the cluster.
//
// Whoever registers chooses the kubeconfig that others are given, and which
// cluster an issuer belongs to: this needs the right to assign roles on the
// cluster, and so in its group, which Contributor lacks.
//
// Whoever pins keys for an issuer can sign tokens for it, and become every
// identity that trusts it, wherever that identity is, and those that come to
// trust it later, believing that its documents decide. The right to assign
// roles in a group, or in a subscription, is therefore not enough: it would
// make the owner of a sandbox the owner of whatever trusts some public
// issuer. So the first pinning of an issuer is for who may assign roles in
// the whole of the server's own tenant, like other operations that make
// identities. New keys for an issuer that is pinned already are for who may
// assign roles on the cluster: this is who could have its tokens issued by
// the cluster itself.
//
// A kubeconfig with an exec plugin makes kubectl run a program on the machine
// of whoever is given it: that too is only for who is trusted by all.
//
// The server connects to private addresses for a kubeconfig of such a person
// and not for others' (see [Options.Dial]): whether it was one is noted.
func (c *Clusters) mayRegister(ctx context.Context, q *arm.Request, p *parsed, have *cluster) error {
	if err := q.Authorize(ctx, actionGrant, q.ID); err != nil {
		return err
	}
	if p.access != nil && p.access.Exec != nil {
		if err := c.trustedByAll(ctx, q, "allowExec", "Who is given this kubeconfig runs the program that it names."); err != nil {
			return err
		}
	}
	if p.source != fetched && (have.KeySource != pinned || have.Issuer != p.issuer) {
		if err := c.trustedByAll(ctx, q, "pinKeys", "Who pins the keys of an issuer can become every identity that trusts it."); err != nil {
			return err
		}
	}
	if p.access == nil {
		return nil
	}
	home, err := c.o.Home(ctx)
	if err != nil {
		return err
	}
	p.trusted, err = c.o.RBAC.Allowed(ctx, everywhere(q, home, "trustServer"))
	return err
}

// everywhere is the question whether a caller may assign roles in the whole of
// the server's own tenant.
func everywhere(q *arm.Request, home, operation string) rbac.Request {
	return rbac.Request{
		Principal: q.Principal, Plane: "management", Operation: actionCluster + operation, Action: actionGrant, Object: "/", TenantID: home,
	}
}

// trustedByAll is the stronger demand of mayRegister.
func (c *Clusters) trustedByAll(ctx context.Context, q *arm.Request, operation, why string) error {
	home, err := c.o.Home(ctx)
	if err != nil {
		return err
	}
	_, err = c.o.RBAC.Authorize(ctx, everywhere(q, home, operation))
	if fault.Is(err, fault.Forbidden) {
		return fault.Wrap(err, fault.Forbidden, "AuthorizationFailed",
			"%s So this needs '%s' over scope '/' in the server's own tenant, which the client with object id '%s' does not have. Let an operator register the cluster, or register it with keySource Fetched and without a program.",
			why, actionGrant, q.Principal.ObjectID)
	}
	return err
}

// apply puts a registration into a cluster.
func (a *cluster) apply(p *parsed, body *clusterBody, now time.Time) error {
	switch {
	case p.source == fetched:
		a.Keys, a.KeysUpdated = nil, time.Time{}
	case p.keys != nil:
		a.Keys, a.KeysUpdated = p.keys, now.UTC()
	case a.KeySource != pinned || a.Issuer != p.issuer:
		return fault.BadRequest(codeRegistration, "properties.podkey.jwks is missing: the keys that are to be pinned.")
	}
	a.Issuer, a.KeySource = p.issuer, p.source
	if p.access != nil {
		u, err := url.Parse(p.access.Server)
		if err != nil {
			return err
		}
		a.Server, a.TrustedServer = u.Hostname(), p.trusted
	}
	if v := body.Properties.Version; v != "" {
		if !validVersion(v) {
			return fault.BadRequest(codeRegistration, "properties.kubernetesVersion must be a version such as 1.33.1.")
		}
		a.Version = v
	}
	if sp := body.Properties.ServicePrincipal; sp != nil && sp.ClientID != "" && !strings.EqualFold(sp.ClientID, noServicePrincipal) {
		if uuid.Validate(sp.ClientID) != nil || len(sp.ClientID) != 36 {
			return fault.BadRequest(codeRegistration, "properties.servicePrincipalProfile.clientId must be a client id (a GUID).")
		}
		a.ServicePrincipal = strings.ToLower(sp.ClientID)
	}
	return nil
}

// validVersion reports whether s looks like a version of Kubernetes.
func validVersion(s string) bool {
	if len(s) > 64 || s[0] < '0' || s[0] > '9' {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && !strings.ContainsRune(".+-", r)
	})
}

// touch marks a change.
func (a *cluster) touch(now time.Time) {
	a.Updated, a.ETag = now.UTC(), uuid.NewString()
}

// save stores what put has judged, unless the cluster is not any more as it
// was then: rights were asked for that change and no other.
func (c *Clusters) save(w http.ResponseWriter, r *http.Request, q *arm.Request, have, next *cluster, reg *parsed, existed bool) error {
	ctx := r.Context()
	next.touch(c.o.Now())
	if !existed {
		next.Created = next.Updated
	}
	err := c.s.Update(ctx, func(tx *store.Tx) error {
		now, ok, err := c.clusters.Get(tx, keyOf(q.ID))
		if err != nil {
			return err
		}
		if ok != existed || now.ETag != have.ETag {
			return fault.Conflict("OperationNotAllowed", "Another operation changed the managed cluster '%s' meanwhile. Try again.", next.Name)
		}
		if !existed || next.Issuer != have.Issuer {
			if err := c.mustBeFree(tx, next); err != nil {
				return err
			}
		}
		if reg != nil && reg.access != nil {
			if err := c.kubeconfigs.Put(tx, keyOf(q.ID), *reg.access); err != nil {
				return err
			}
		}
		return c.clusters.Put(tx, keyOf(q.ID), *next)
	})
	if err != nil {
		return err
	}
	status := http.StatusOK
	if !existed {
		status = http.StatusCreated
		if err := q.StillThere(ctx, func(ctx context.Context) error { return c.remove(ctx, q.ID, "") }); err != nil {
			return err
		}
	}
	if next.Operation.State == updating {
		c.runs.kick()
		announce(w, q, next)
	}
	return writeCluster(w, status, next)
}

// mustBeFree refuses an issuer that another cluster has. The other one is not
// named: the caller may not be allowed to know it.
func (c *Clusters) mustBeFree(tx *store.Tx, next *cluster) error {
	same, err := c.clusters.By(tx, "issuer", next.Issuer)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(same, func(e store.Entry[cluster]) bool { return e.Err != nil || !strings.EqualFold(e.Value.ID, next.ID) }) {
		return fault.Conflict("IssuerInUse", "The issuer '%s' belongs to another registered cluster. Each cluster needs one of its own: start its API server with another --service-account-issuer.", next.Issuer)
	}
	return nil
}

// pushKeys replaces the pinned keys: all of them, so that a key that is not
// in the new set signs for nobody from then on. A rotation pushes the set with
// both keys first, as the cluster publishes it.
func (c *Clusters) pushKeys(w http.ResponseWriter, r *http.Request, q *arm.Request) error {
	id := q.ID.Parent()
	if err := q.Authorize(r.Context(), actionGrant, id); err != nil {
		return err
	}
	var in struct {
		JWKS json.RawMessage `json:"jwks"`
	}
	if err := web.DecodeJSON(r, codeContent, &in); err != nil {
		return err
	}
	keys, err := parseKeySet(in.JWKS)
	if err != nil {
		return fault.BadRequest(codeRegistration, "jwks: %s.", err)
	}
	now, err := c.change(r, id, func(_ *store.Tx, a *cluster) error {
		note(r.Context(), a.Issuer, keys)
		if a.KeySource != pinned {
			return fault.Conflict("KeysAreFetched", "The keys of the cluster '%s' are fetched from its issuer. To pin them, register it again with keySource Pinned.", a.Name)
		}
		a.Keys, a.KeysUpdated = keys, c.o.Now().UTC()
		return nil
	})
	if err != nil {
		return err
	}
	return writeCluster(w, http.StatusOK, &now)
}
