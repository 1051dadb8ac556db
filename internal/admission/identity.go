package admission

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/podkey/podkey/internal/text"
)

// prefix is that of every label and annotation that is read: of a service
// account, nothing else needs to be known.
const prefix = "azure.workload.identity/"

// The labels and annotations.
const (
	useLabel             = prefix + "use" // brings the pod here: the API server looks at it, Mutate does not
	clientIDAnnotation   = prefix + "client-id"
	tenantIDAnnotation   = prefix + "tenant-id"
	expirationAnnotation = prefix + "service-account-token-expiration"
	skipAnnotation       = prefix + "skip-containers"
	injectAnnotation     = prefix + "inject-proxy-sidecar"
	portAnnotation       = prefix + "proxy-sidecar-port"
	protocolAnnotation   = prefix + "proxy-protocol"

	mirrorAnnotation = "kubernetes.io/config.mirror"
)

// ServiceAccount is what the rules need to know of one.
type ServiceAccount struct {
	Name, Namespace string
	Annotations     map[string]string
}

// ErrNotFound is what errors of a [Lookup] wrap when there is no such service
// account.
var ErrNotFound = errors.New("service account not found")

// Lookup finds a service account.
type Lookup func(ctx context.Context, namespace, name string) (ServiceAccount, error)

// Reason is why a pod was refused; the values are a closed set.
type Reason string

// The reasons.
const (
	BadReview         Reason = "review"          // not an AdmissionReview of a pod
	BadServiceAccount Reason = "service_account" // missing, or not to be had
	BadExpiration     Reason = "expiration"
	BadProxy          Reason = "proxy"
	BadMount          Reason = "mount"
	TooLarge          Reason = "size"
)

// denial refuses a pod.
type denial struct {
	reason  Reason
	message string
}

// Error implements error.
func (d *denial) Error() string { return d.message }

// clip makes a foreign text fit to be repeated.
func clip(s string) string { return text.Clip(s, 253) }

// account finds the service account of a pod.
func account(ctx context.Context, lookup Lookup, namespace, name string) (ServiceAccount, *denial) {
	sa, err := lookup(ctx, namespace, name)
	switch {
	case err == nil:
		sa.Namespace, sa.Name = namespace, name
		return sa, sa.check()
	case errors.Is(err, ErrNotFound):
		return sa, &denial{BadServiceAccount, "serviceaccounts " + strconv.Quote(clip(name)) + " not found in namespace " + clip(namespace) +
			": create it, or correct serviceAccountName"}
	default:
		return sa, &denial{BadServiceAccount, "service account " + clip(namespace) + "/" + clip(name) + ": " + text.Clip(err.Error(), 500)}
	}
}

// MaxValue is the longest annotation of a service account that is taken, in
// bytes. Of a longer one, a cache may keep any part that is longer than this.
const MaxValue = 256

// AccountAnnotations are those of a service account that are read.
func AccountAnnotations() []string {
	return []string{clientIDAnnotation, tenantIDAnnotation, expirationAnnotation}
}

// check refuses annotations that no identity has and that would do harm. All
// others are taken as they are, and Entra ID is the one to judge them.
func (a *ServiceAccount) check() *denial {
	for _, key := range []string{clientIDAnnotation, tenantIDAnnotation} {
		v := a.Annotations[key]
		switch {
		case len(v) > MaxValue:
			return &denial{BadServiceAccount, a.String() + ", annotation " + key + ": longer than " + strconv.Itoa(MaxValue) + " bytes"}
		case strings.Contains(v, "$"):
			// Kubernetes would put the container's other variables in place
			// of $(NAME): a password, say, which would be sent and logged.
			return &denial{BadServiceAccount, a.String() + ", annotation " + key + ": " + strconv.Quote(clip(v)) +
				" has a dollar sign in it: write the id itself, nothing is filled in"}
		}
	}
	return nil
}

// String is how messages name it.
func (a *ServiceAccount) String() string {
	return "service account " + clip(a.Namespace) + "/" + clip(a.Name)
}

// tenant is the tenant of a service account. A present annotation counts, even
// an empty one, which leaves the variable out.
func (a *ServiceAccount) tenant(fallback string) string {
	if t, ok := a.Annotations[tenantIDAnnotation]; ok {
		return t
	}
	return fallback
}

// Bounds and default of a token's lifetime, in seconds.
const (
	minExpiration     = 3600
	maxExpiration     = 86400
	defaultExpiration = 3600
)

// expiration is the lifetime of tokens: the pod's annotation, else the service
// account's. An empty one is as good as none.
func expiration(annotations pairs, a *ServiceAccount) (int64, *denial) {
	if v, _ := annotations.get(expirationAnnotation); v != "" {
		n, err := parseExpiration(v)
		if err != nil {
			return 0, &denial{BadExpiration, "the pod's annotation " + expirationAnnotation + ": " + err.Error()}
		}
		return n, nil
	}
	if v := a.Annotations[expirationAnnotation]; v != "" {
		n, err := parseExpiration(v)
		if err != nil {
			return 0, &denial{BadExpiration, a.String() + ", annotation " + expirationAnnotation + ": " + err.Error()}
		}
		return n, nil
	}
	return defaultExpiration, nil
}

func parseExpiration(v string) (int64, error) {
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		return 0, numberError(err)
	}
	if n < minExpiration || n > maxExpiration {
		return 0, errors.New("token expiration " + strconv.FormatInt(n, 10) + " not valid. Expected value to be between 3600 and 86400")
	}
	return n, nil
}

// numberError is the parser's error without the whole of a very long text.
func numberError(err error) error {
	var e *strconv.NumError
	if errors.As(err, &e) {
		return &strconv.NumError{Func: e.Func, Num: clip(e.Num), Err: e.Err}
	}
	return err
}
