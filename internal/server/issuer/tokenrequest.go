package issuer

import (
	"fmt"
	"net/http"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"

	"github.com/podkey/podkey/internal/token"
	"github.com/podkey/podkey/internal/web"
)

// Limits of a TokenRequest. Kubernetes' minimum; its maximum is the
// administrator's, ours is the longest that a key is published for.
const (
	minSeconds     = 600
	maxSeconds     = 86400
	defaultSeconds = 3600
	maxAudiences   = 16
	maxAudience    = 600 // bytes; as long as a federated credential's may be
)

const (
	requestKind    = "TokenRequest"
	requestVersion = "authentication.k8s.io/v1"
)

// tokenRequest is the TokenRequest of authentication.k8s.io/v1, in and out.
type tokenRequest struct {
	Kind       string             `json:"kind"`
	APIVersion string             `json:"apiVersion"`
	Metadata   objectMeta         `json:"metadata"`
	Spec       tokenRequestSpec   `json:"spec"`
	Status     tokenRequestStatus `json:"status"`
}

type objectMeta struct {
	Name              string     `json:"name,omitempty"`
	Namespace         string     `json:"namespace,omitempty"`
	CreationTimestamp *time.Time `json:"creationTimestamp"`
}

type tokenRequestSpec struct {
	Audiences         []string         `json:"audiences"`
	ExpirationSeconds *int64           `json:"expirationSeconds"`
	BoundObjectRef    *objectReference `json:"boundObjectRef"`
}

type objectReference struct {
	Kind       string `json:"kind,omitempty"`
	APIVersion string `json:"apiVersion,omitempty"`
	Name       string `json:"name,omitempty"`
	UID        string `json:"uid,omitempty"`
}

type tokenRequestStatus struct {
	Token      string     `json:"token"`
	Expiration *time.Time `json:"expirationTimestamp"`
}

// serviceAccountClaims are those of a projected token.
type serviceAccountClaims struct {
	Audience   []string         `json:"aud"`
	Expiry     int64            `json:"exp"`
	IssuedAt   int64            `json:"iat"`
	Issuer     string           `json:"iss"`
	ID         string           `json:"jti"`
	Kubernetes kubernetesClaims `json:"kubernetes.io"`
	NotBefore  int64            `json:"nbf"`
	Subject    string           `json:"sub"`
}

type kubernetesClaims struct {
	Namespace      string        `json:"namespace"`
	Pod            *objectClaims `json:"pod,omitempty"`
	ServiceAccount objectClaims  `json:"serviceaccount"`
}

type objectClaims struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
}

// createToken answers a TokenRequest. Who calls and whether they may is
// settled before the body is looked at.
func (h *Handler) createToken(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	caller, err := web.Authenticate(r, h.Authenticate)
	if err != nil {
		return err
	}
	cluster, err := h.cluster(r)
	if err != nil {
		return err
	}
	namespace, name := r.PathValue("namespace"), r.PathValue("name")
	if !isLabel(namespace) {
		return badRequest("the namespace must be a DNS-1123 label: at most 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit")
	}
	if !isSubdomain(name) {
		return badRequest("the name of the service account must be a DNS-1123 subdomain: at most 253 of a-z, 0-9, '-' and '.', each part beginning and ending with a letter or digit")
	}
	if err := h.Authorize(ctx, caller, ActionIssueToken, ServiceAccountObject(cluster, namespace, name)); err != nil {
		return err
	}
	var req tokenRequest
	if err := web.DecodeJSON(r, "BadRequest", &req); err != nil {
		return err
	}
	if err := req.check(namespace, name); err != nil {
		return err
	}
	issuer := URL(h.Own, cluster)
	if len(req.Spec.Audiences) == 0 {
		req.Spec.Audiences = []string{issuer}
	}
	if req.Spec.ExpirationSeconds == nil {
		d := int64(defaultSeconds)
		req.Spec.ExpirationSeconds = &d
	}
	now := h.now().UTC().Truncate(time.Second)
	expiry := now.Add(time.Duration(*req.Spec.ExpirationSeconds) * time.Second)
	claims := serviceAccountClaims{
		Audience: req.Spec.Audiences, Issuer: issuer, ID: uuid.NewString(),
		Subject:  "system:serviceaccount:" + namespace + ":" + name,
		IssuedAt: now.Unix(), NotBefore: now.Unix(), Expiry: expiry.Unix(),
		Kubernetes: kubernetesClaims{
			Namespace:      namespace,
			ServiceAccount: objectClaims{name, stableUID(cluster, namespace, "serviceaccount", name)},
		},
	}
	if pod := req.Spec.BoundObjectRef; pod != nil {
		if pod.UID == "" {
			pod.UID = stableUID(cluster, namespace, "pod", pod.Name)
		}
		claims.Kubernetes.Pod = &objectClaims{pod.Name, pod.UID}
	}
	// Kubernetes signs RS256, and Entra accepts nothing else.
	signed, err := h.Keys.Sign(ctx, token.Cluster(cluster), jose.RS256, &claims)
	if err != nil {
		return err
	}
	web.CallOf(ctx).Note("serviceaccount", claims.Subject)
	req.Kind, req.APIVersion = requestKind, requestVersion
	req.Metadata = objectMeta{Name: name, Namespace: namespace, CreationTimestamp: &now}
	req.Status = tokenRequestStatus{Token: signed, Expiration: &expiry}
	w.Header().Set("Cache-Control", "no-store")
	return web.WriteJSON(w, http.StatusCreated, &req)
}

// uidSpace is the namespace of our name-based UUIDs.
var uidSpace = uuid.NewSHA1(uuid.NameSpaceURL, []byte("https://podkey.dev/cluster-objects"))

// stableUID gives an object of a cluster without objects the same uid every
// time. The parts hold no slash.
func stableUID(cluster, namespace, kind, name string) string {
	return uuid.NewSHA1(uidSpace, []byte(cluster+"/"+namespace+"/"+kind+"/"+name)).String()
}

// check compares a request with the rules and with the path that it came by.
func (t *tokenRequest) check(namespace, name string) error {
	if t.Kind != "" && t.Kind != requestKind || t.APIVersion != "" && t.APIVersion != requestVersion {
		return badRequest("the body must be a " + requestKind + " of " + requestVersion)
	}
	if t.Metadata.Name != "" && t.Metadata.Name != name || t.Metadata.Namespace != "" && t.Metadata.Namespace != namespace {
		return badRequest("the name and namespace in the body, if any, must be those in the path")
	}
	var causes []cause
	invalid := func(field, format string, args ...any) {
		causes = append(causes, cause{Reason: "FieldValueInvalid", Field: field, Message: "Invalid value: " + fmt.Sprintf(format, args...)})
	}
	if s := t.Spec.ExpirationSeconds; s != nil && *s < minSeconds {
		invalid("spec.expirationSeconds", "%d: may not specify a duration less than 10 minutes", *s)
	} else if s != nil && *s > maxSeconds {
		invalid("spec.expirationSeconds", "%d: may not specify a duration larger than 24 hours", *s)
	}
	if len(t.Spec.Audiences) > maxAudiences {
		invalid("spec.audiences", "more than %d audiences", maxAudiences)
	}
	for i, a := range t.Spec.Audiences {
		if a == "" || len(a) > maxAudience {
			invalid(fmt.Sprintf("spec.audiences[%d]", i), "an audience has 1 to %d bytes", maxAudience)
			break
		}
	}
	if ref := t.Spec.BoundObjectRef; ref != nil {
		switch {
		case ref.Kind != "Pod" || ref.APIVersion != "" && ref.APIVersion != "v1":
			invalid("spec.boundObjectRef.kind", "tokens can be bound to a Pod of v1 only")
		case !isSubdomain(ref.Name):
			invalid("spec.boundObjectRef.name", "must be a DNS-1123 subdomain")
		case ref.UID != "" && uuid.Validate(ref.UID) != nil:
			invalid("spec.boundObjectRef.uid", "must be a UUID")
		}
	}
	if len(causes) > 0 {
		return &statusError{
			code: http.StatusUnprocessableEntity, reason: "Invalid",
			message: fmt.Sprintf("%s.%s %q is invalid: %s: %s", requestKind, "authentication.k8s.io", name, causes[0].Field, causes[0].Message),
			details: &details{Name: name, Group: "authentication.k8s.io", Kind: requestKind, Causes: causes},
		}
	}
	return nil
}
