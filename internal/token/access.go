package token

import (
	"errors"
	"fmt"
)

// Access is the claims of an access token that we mint, in Entra's spelling.
// Version 1.0 tokens carry AppID and AppIDACR, version 2.0 tokens Azp and
// AzpACR; the rest is shared. Times are Unix seconds. Members that do not
// apply are left out. The order is that of Entra's tokens.
type Access struct {
	Audience  string `json:"aud"`
	Issuer    string `json:"iss"`
	IssuedAt  int64  `json:"iat"`
	NotBefore int64  `json:"nbf"`
	Expiry    int64  `json:"exp"`

	AIO       string   `json:"aio,omitempty"`                // opaque in Entra; nothing reads it
	AMR       []string `json:"amr,omitempty"`                // how a user signed in: "pwd", "fed"
	AppID     string   `json:"appid,omitempty"`              // v1: client id of the caller
	AppIDACR  string   `json:"appidacr,omitempty"`           // v1: "0" public client, "1" secret, "2" certificate or assertion
	Azp       string   `json:"azp,omitempty"`                // v2: client id of the caller
	AzpACR    string   `json:"azpacr,omitempty"`             // v2: as AppIDACR
	Groups    []string `json:"groups,omitempty"`             // object ids
	IDP       string   `json:"idp,omitempty"`                // v1: issuer that authenticated the subject
	IDType    string   `json:"idtyp,omitempty"`              // "app" for app-only tokens, "user" for those that act as a user
	Name      string   `json:"name,omitempty"`               // display name of a user
	ObjectID  string   `json:"oid,omitempty"`                // service principal or user
	Preferred string   `json:"preferred_username,omitempty"` // v2: user principal name
	RH        string   `json:"rh,omitempty"`                 // opaque in Entra
	Roles     []string `json:"roles,omitempty"`              // app roles granted to the caller
	Scope     string   `json:"scp,omitempty"`                // delegated permissions, blank-separated; absent from app-only tokens
	SessionID string   `json:"sid,omitempty"`                // of the user's sign-in
	Subject   string   `json:"sub"`                          // equal to ObjectID for app-only tokens; of a user, another one for each client
	TenantID  string   `json:"tid,omitempty"`                // GUID
	Unique    string   `json:"unique_name,omitempty"`        // v1: user principal name
	UPN       string   `json:"upn,omitempty"`                // user principal name
	UTI       string   `json:"uti,omitempty"`                // unique id of the token
	Version   string   `json:"ver"`                          // Version1 or Version2
	AzRID     string   `json:"xms_az_rid,omitempty"`         // ARM id of the machine that asked, on some sources
	CC        []string `json:"xms_cc,omitempty"`             // client capabilities; "cp1" if continuous access evaluation was asked for
	MIRID     string   `json:"xms_mirid,omitempty"`          // ARM id of the managed identity
}

// The versions of access tokens.
const (
	Version1 = "1.0"
	Version2 = "2.0"
)

// Client returns the client id of the caller, whichever version the token is.
func (a *Access) Client() string {
	if a.AppID != "" {
		return a.AppID
	}
	return a.Azp
}

// parseAccess reads the claims of a token whose signature is ours. It is
// strict all the same: what an id token or a cluster's token lacks is not
// guessed, and a claim of another type is not converted.
func parseAccess(payload []byte) (*Access, error) {
	a := &Access{}
	err := members(payload, func(name, value []byte) error {
		var err error
		switch to := a.claim(string(name)).(type) {
		case *string:
			*to, err = stringValue(value)
		case *int64:
			*to, err = seconds(value)
		case *[]string:
			*to, err = stringList(value)
		}
		if err != nil {
			return fmt.Errorf("claim %s: %w", name, err)
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case a.Expiry == 0:
		return nil, errors.New("no claim exp")
	case a.Issuer == "" || a.Audience == "" || a.Subject == "" || a.ObjectID == "" || a.TenantID == "" || a.Client() == "":
		return nil, errors.New("a claim is missing that every access token has")
	case a.Version != Version1 && a.Version != Version2:
		return nil, errors.New("unknown version")
	}
	return a, nil
}

// claim returns a pointer to the field of a claim, or nil.
func (a *Access) claim(name string) any {
	switch name {
	case "aud":
		return &a.Audience
	case "iss":
		return &a.Issuer
	case "iat":
		return &a.IssuedAt
	case "nbf":
		return &a.NotBefore
	case "exp":
		return &a.Expiry
	case "aio":
		return &a.AIO
	case "amr":
		return &a.AMR
	case "appid":
		return &a.AppID
	case "appidacr":
		return &a.AppIDACR
	case "azp":
		return &a.Azp
	case "azpacr":
		return &a.AzpACR
	case "groups":
		return &a.Groups
	case "idp":
		return &a.IDP
	case "idtyp":
		return &a.IDType
	case "name":
		return &a.Name
	case "oid":
		return &a.ObjectID
	case "preferred_username":
		return &a.Preferred
	case "rh":
		return &a.RH
	case "roles":
		return &a.Roles
	case "scp":
		return &a.Scope
	case "sid":
		return &a.SessionID
	case "sub":
		return &a.Subject
	case "tid":
		return &a.TenantID
	case "unique_name":
		return &a.Unique
	case "upn":
		return &a.UPN
	case "uti":
		return &a.UTI
	case "ver":
		return &a.Version
	case "xms_az_rid":
		return &a.AzRID
	case "xms_cc":
		return &a.CC
	case "xms_mirid":
		return &a.MIRID
	default:
		return nil
	}
}
