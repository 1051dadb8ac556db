package sts

import (
	"errors"
	"strings"

	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/token"
)

// byAssertion authenticates a client by a JWT. One that a client signed
// itself has the client id as its issuer; one of a federated identity
// provider has a URL.
func (x *exchange) byAssertion(raw string) (proof, error) {
	a, err := token.ParseAssertion(raw)
	if err != nil {
		return proof{}, errAssertionMalformed(err).because("%v", err)
	}
	if !strings.Contains(a.Issuer, "://") {
		return x.byCertificate(a)
	}
	return x.byFederation(a)
}

// byFederation authenticates a client by the token of a foreign issuer. The
// three names are compared first, so that keys are only ever fetched from
// issuers that somebody with permission has written into a credential; then
// time, then the signature. Nothing is done for the client before all of them
// have passed.
//
// An assertion may be presented again until it expires, as in Entra: SDKs
// send the same one again when a connection breaks, and several processes of
// a pod share one file.
func (x *exchange) byFederation(a *token.Assertion) (proof, error) {
	own, err := x.isOwnToken(a)
	if err != nil {
		return proof{}, err
	}
	if own {
		return proof{}, errOwnToken().because("the assertion is a token of ours, issued by %q", echo(a.Issuer))
	}
	cred, mismatch, err := x.Directory.MatchFederated(x.ctx, x.client.Owner, directory.Presented{
		Issuer: a.Issuer, Subject: a.Subject, Audiences: a.Audience, Claims: a.Payload,
	})
	if err != nil {
		return proof{}, err
	}
	if mismatch != nil {
		return proof{}, errMismatch(&x.client, mismatch)
	}
	if err := x.inTime(a); err != nil {
		return proof{}, err
	}
	if err := x.Foreign.VerifyAssertion(x.ctx, a); err != nil {
		return proof{}, foreignError(a, err)
	}
	return proof{class: "2", via: "federatedIdentityCredentials/" + cred.Name}, nil
}

// isOwnToken reports whether an assertion is, or says it is, a token of this
// service: by its issuer under any of our names, or by the key, since a token
// that was issued by a bare address may be presented at another one. Clusters
// whose issuer we are have another origin and other keys.
func (x *exchange) isOwnToken(a *token.Assertion) (bool, error) {
	issuer := strings.ToLower(a.Issuer)
	for _, n := range x.allNames(x.call) {
		if strings.HasPrefix(issuer, strings.ToLower(n.Login)+"/") || strings.HasPrefix(issuer, strings.ToLower(n.STS)+"/") {
			return true, nil
		}
	}
	keys, err := x.Keys.Public(x.ctx, token.Tenant)
	return err == nil && len(keys.Key(a.KeyID)) > 0, err
}

// inTime checks the validity of an assertion.
func (x *exchange) inTime(a *token.Assertion) error {
	if a.InTime(x.now, token.Leeway) {
		return nil
	}
	from := a.NotBefore
	if from.IsZero() {
		from = a.IssuedAt
	}
	return errAssertionTime(x.now, from, a.Expiry).because("now %s, valid from %s to %s", isoTime(x.now), isoTime(from), isoTime(a.Expiry))
}

// foreignError answers for a signature that could not be verified. Addresses
// and causes are for the operator alone: to the client they would make the
// server a probe of its network.
func foreignError(a *token.Assertion, err error) error {
	f, ok := errors.AsType[*token.ForeignError](err)
	if !ok {
		return err
	}
	var e *Error
	switch f.Kind {
	case token.Unreachable:
		e = errForeignUnreachable()
	case token.Unparsable:
		e = errForeignUnparsable()
	case token.NoKey:
		e = errForeignKey(a.KeyID, a.Issuer)
	case token.BadAlgorithm:
		e = errSignature("The signing algorithm is not supported: RS256 is required.", a.KeyID)
	default:
		e = errSignature("The signature is not that of the key.", a.KeyID)
	}
	e.Err = err
	return e.because("%v", err)
}
