// Package connect lets a Kubernetes service account use a vault: it makes what
// is missing of a managed identity or application, a vault, a permission, a
// federated credential and an annotated service account, and takes away again
// what it made.
//
// It owns the order of the phases, the rules of what may be made or changed,
// and the marks by which it later knows what was its own. Everything is read
// first ([Connection.Survey]); what is to be done follows from that alone
// ([Connection.Plan]); only then is anything done ([Plan.Do]). The same plan is
// what a dry run prints as commands ([Plan.Commands]), so that the two cannot
// differ. It guarantees that a second run changes nothing, that nothing is
// done when the check of any phase fails, and that nothing is removed that
// does not bear its mark.
//
// The same requests go to Azure and to a Podkey server, through the pipeline
// of Azure's own SDK, with its sign-in, retries and limits. The SDK's packages
// of typed resources are for the tests alone: the directory has none, so that
// a second manner of asking, refusing and paging would stand beside theirs for
// a dozen requests.
package connect

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/podkey/podkey/internal/text"
)

// Phases of connect, in their order. Disconnect has those that make something,
// from the last to the first.
const (
	PhaseGroup      = "resource-group"
	PhaseIdentity   = "identity"
	PhaseVault      = "vault"
	PhasePermission = "permission"
	PhaseIssuer     = "issuer"
	PhaseCredential = "federated-credential"
	PhaseAccount    = "service-account"
	PhaseCheck      = "check"
)

// Phases returns the names of connect's phases in their order.
func Phases() []string {
	return []string{PhaseGroup, PhaseIdentity, PhaseVault, PhasePermission, PhaseIssuer, PhaseCredential, PhaseAccount, PhaseCheck}
}

// DisconnectPhases returns the names of disconnect's phases in their order.
func DisconnectPhases() []string {
	return []string{PhaseAccount, PhaseCredential, PhasePermission, PhaseIdentity, PhaseVault}
}

// Annotations of service accounts that pods are injected by.
const (
	AnnotationClientID   = "azure.workload.identity/client-id"
	AnnotationTenantID   = "azure.workload.identity/tenant-id"
	AnnotationExpiration = "azure.workload.identity/service-account-token-expiration"
)

// Audience is what service-account tokens are made for, unless told otherwise.
const Audience = "api://AzureADTokenExchange"

// MaxCredentials is how many federated credentials one identity can have.
const MaxCredentials = 20

// The marks of what connect made: a tag of identities, applications and
// vaults; the description of role assignments and of applications'
// credentials; an annotation of service accounts and namespaces. The
// credentials of managed identities carry nothing but a name, so theirs is
// the mark: see [CredentialName].
const (
	markTag        = "podkey-connect" // value: made; with -<object id>, the permissions that an access policy was given
	markMade       = "made"
	markText       = "made by podkey connect"
	markAnnotation = "podkey.io/connect"
)

// CredentialName is the name that connect gives to the federated credential
// for an issuer and a subject. The hash in it is what disconnect recognises
// its own credentials by.
func CredentialName(issuer, subject string) string {
	sum := sha256.Sum256([]byte(issuer + "\n" + subject))
	readable := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return '-'
	}, strings.TrimPrefix(subject, "system:serviceaccount:"))
	const most = 120 - len("podkey--") - 16
	if len(readable) > most {
		readable = readable[:most]
	}
	return "podkey-" + readable + "-" + hex.EncodeToString(sum[:8])
}

// Subject is the subject of a service account's tokens.
func Subject(namespace, account string) string {
	return "system:serviceaccount:" + namespace + ":" + account
}

// Skips reads a list of phases to skip, and says which are valid if one is not.
func Skips(names, valid []string) (map[string]bool, error) {
	skip := map[string]bool{}
	for _, n := range names {
		if n = strings.TrimSpace(n); n == "" {
			continue
		}
		if !slices.Contains(valid, n) {
			return nil, fmt.Errorf("failed to compute skip phases: phase '%s' not found. Valid phases are: %v", text.Printable(n), valid)
		}
		skip[n] = true
	}
	return skip, nil
}

// Problem is what stands in a phase's way, and what to type about it.
type Problem struct {
	Phase string
	Err   error
	What  string // to type next; may have several lines
}

func (p *Problem) Error() string { return p.Phase + ": " + p.Err.Error() }

// Unwrap returns the cause.
func (p *Problem) Unwrap() error { return p.Err }

// Hint says what to type next.
func (p *Problem) Hint() string { return p.What }

// Problems are those of several phases. Nothing was done.
type Problems []*Problem

func (p Problems) Error() string {
	var all []string
	for _, one := range p {
		all = append(all, one.Error())
	}
	return strings.Join(all, "; ")
}

// Unwrap returns them one by one.
func (p Problems) Unwrap() []error {
	var all []error
	for _, one := range p {
		all = append(all, one)
	}
	return all
}

// Hint says what to type about each of them.
func (p Problems) Hint() string {
	var all []string
	for _, one := range p {
		h := one.What
		if inner, ok := errors.AsType[interface {
			error
			Hint() string
		}](one.Err); ok && h == "" {
			h = inner.Hint()
		}
		if h != "" && !slices.Contains(all, h) {
			all = append(all, h)
		}
	}
	return strings.Join(all, "\n  ")
}

func (p *Problems) add(phase, hint string, err error) {
	if err != nil {
		*p = append(*p, &Problem{phase, err, hint})
	}
}

func (p *Problems) addf(phase, hint, format string, args ...any) {
	p.add(phase, hint, fmt.Errorf(format, args...))
}

func (p Problems) err() error {
	if len(p) == 0 {
		return nil
	}
	return p
}
