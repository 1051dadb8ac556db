package sts

import (
	"errors"
	"time"

	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/server/session"
)

// The refusals of people's sign-in, with Entra's numbers.

// wrongPassword is the number of [errCredentials].
const wrongPassword = 50126

// errCredentials says nothing about which of the two was wrong, nor whether
// there is such a user.
func errCredentials() *Error {
	return badRequest(wrongPassword, invalidGrant, "Error validating credentials due to invalid username or password.")
}

// errTooManyGuesses is the same for users that exist and others. It is quiet:
// what it refuses was not looked at.
func errTooManyGuesses(wait time.Duration) *Error {
	e := badRequest(50053, invalidGrant, "You've tried to sign in too many times with an incorrect user ID or password. Try again later.")
	e.RetryAfter, e.Quiet = wait, true
	return e
}

func errThrottled(wait time.Duration) *Error {
	e := refuse(429, 90055, temporarily, "The request was throttled because there were too many of its kind.")
	e.RetryAfter, e.Quiet = wait, true
	return e
}

func errPasswordsOff() *Error {
	return badRequest(70003, unsupportedGrant, "Sign-in with a password is switched off here. Sign in with a browser or a device code.")
}

// errNotPublic is the refusal of a way that proves nothing about the client. A
// secret would not help: what is missing is the mark.
func errNotPublic(c *directory.Client) *Error {
	return badClient(7000218, "This way of signing in is for public clients; mark application '%s' as one, or send people to a registered redirect URI.", c.AppID)
}

func errNotMultiTenant(clientID string) *Error {
	return badRequest(50194, invalidRequest, "Application '%s' is not configured as a multi-tenant application. Use a tenant-specific endpoint.", echo(clientID))
}

func errUserGone() *Error {
	return badRequest(500341, invalidGrant, "The user account has been deleted from the directory. Sign in as another user.")
}

func errUserDisabled() *Error {
	return badRequest(50057, invalidGrant, "The user account is disabled.")
}

func errRevoked() *Error {
	return badRequest(50173, invalidGrant, "The provided grant has expired due to it being revoked, a fresh auth token is needed. The user might have changed or reset their password.")
}

func errOtherTenant(user string, t *directory.Tenant) *Error {
	return badRequest(50020, invalidGrant, "User account '%s' does not exist in tenant '%s' and cannot access the application in that tenant.", echo(user), tenantName(t))
}

// errNotAgreed is the refusal of more than the person has agreed to.
func errNotAgreed(c *directory.Client) *Error {
	return badRequest(65001, invalidGrant, "The user or administrator has not consented to use the application with ID '%s' named '%s'. Send an interactive authorization request for this user and resource.", c.AppID, echo(c.DisplayName))
}

func errOtherClient() *Error {
	return badRequest(70000, invalidGrant, "Provided grant is invalid or malformed. It was issued to another client.")
}

func errRedirectDiffers() *Error {
	return badRequest(500112, invalidGrant, "The reply address does not match the reply address provided when requesting Authorization code.")
}

func errVerifier() *Error {
	return badRequest(501481, invalidGrant, "The Code_Verifier does not match the code_challenge supplied in the authorization request.")
}

// errRefresh is the refusal of a refresh token.
func errRefresh(err error) error {
	switch {
	case errors.Is(err, session.ErrUnknown):
		return badRequest(70000, invalidGrant, "Provided grant is invalid or malformed.")
	case errors.Is(err, session.ErrExpired):
		return badRequest(70008, invalidGrant, "The refresh token has expired. Send a new interactive authorization request for this user and resource.")
	case errors.Is(err, session.ErrIdle):
		return badRequest(700082, invalidGrant, "The refresh token has expired due to inactivity. Send a new interactive authorization request for this user and resource.")
	case errors.Is(err, session.ErrReused):
		return errRevoked().because("a refresh token was presented again after it had been replaced: all of its sign-in are revoked")
	}
	return err
}

// errCode is the refusal of an authorization code.
func errCode(err error) error {
	switch {
	case errors.Is(err, session.ErrUnknown):
		return badRequest(70000, invalidGrant, "Provided grant is invalid or malformed.")
	case errors.Is(err, session.ErrExpired):
		return badRequest(70008, invalidGrant, "The provided authorization code has expired. Send a new interactive authorization request for this user and resource.")
	case errors.Is(err, session.ErrReused):
		return badRequest(54005, invalidGrant, "OAuth2 Authorization code was already redeemed, please retry with a new valid code or use an existing refresh token.").
			because("an authorization code was presented again: the refresh tokens that it gave are revoked")
	}
	return err
}

// deviceExpired is the number of [errDeviceExpired].
const deviceExpired = 70020

func errDeviceExpired() *Error {
	return badRequest(deviceExpired, "expired_token", "OAuth 2.0 device flow error. The device code has expired. Ask for a new one.")
}

// errDevice is the refusal of a device code, or the news that there is none
// yet.
func errDevice(err error) error {
	switch {
	case errors.Is(err, session.ErrPending):
		e := badRequest(70016, "authorization_pending", "OAuth 2.0 device flow error. Authorization is pending. Continue polling.")
		e.Quiet = true
		return e
	case errors.Is(err, session.ErrDeclined):
		e := badRequest(70018, "authorization_declined", "OAuth 2.0 device flow error. The user has declined.")
		e.Quiet = true // it was written down when the person declined
		return e
	case errors.Is(err, session.ErrUnknown):
		return badRequest(70019, "bad_verification_code", "OAuth 2.0 device flow error. The device code is not known, or no longer.")
	case errors.Is(err, session.ErrExpired):
		return errDeviceExpired()
	case errors.Is(err, session.ErrReused):
		return badRequest(54005, invalidGrant, "The device code was already redeemed. Ask for a new one.").
			because("a device code was presented again: the refresh tokens that it gave are revoked")
	}
	return err
}
