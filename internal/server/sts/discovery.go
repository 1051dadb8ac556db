package sts

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/token"
	"github.com/podkey/podkey/internal/web"
)

// openIDDocument is a tenant's discovery document, with Entra's members in
// Entra's order, as far as there is something behind them.
type openIDDocument struct {
	TokenEndpoint         string   `json:"token_endpoint"`
	TokenAuthMethods      []string `json:"token_endpoint_auth_methods_supported"`
	JWKSURI               string   `json:"jwks_uri"`
	ResponseModes         []string `json:"response_modes_supported"`
	SubjectTypes          []string `json:"subject_types_supported"`
	IDTokenAlgorithms     []string `json:"id_token_signing_alg_values_supported"`
	ResponseTypes         []string `json:"response_types_supported"`
	GrantTypes            []string `json:"grant_types_supported"`
	ChallengeMethods      []string `json:"code_challenge_methods_supported"`
	Scopes                []string `json:"scopes_supported"`
	Issuer                string   `json:"issuer"`
	RequestURISupported   bool     `json:"request_uri_parameter_supported"`
	AuthorizationEndpoint string   `json:"authorization_endpoint"`
	DeviceEndpoint        string   `json:"device_authorization_endpoint"`
	HTTPLogout            bool     `json:"http_logout_supported"`
	FrontchannelLogout    bool     `json:"frontchannel_logout_supported"`
	EndSessionEndpoint    string   `json:"end_session_endpoint"`
	Claims                []string `json:"claims_supported"`
	TenantRegion          *string  `json:"tenant_region_scope"`
	CloudInstance         string   `json:"cloud_instance_name"`
	CloudGraphHost        string   `json:"cloud_graph_host_name"`
	GraphHost             string   `json:"msgraph_host"`
	RBACURL               string   `json:"rbac_url"`
}

// openIDConfiguration serves the discovery document of version 1 or 2.
//
// Below /adfs there is only one document, of version 2.0 whatever the path:
// MSAL asks for it without a version and goes on to send a scope, and MSAL for
// Go demands an issuer with the authority's host, which that of version 1.0
// need not have. The endpoints are those at the root.
func (s *service) openIDConfiguration(version int) web.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		realm, err := s.realm(r)
		if err != nil {
			return discoveryError(err)
		}
		n := web.CallOf(r.Context()).Names
		base := n.Login + "/" + realm.segment
		oauth, keys, issuer := base+"/oauth2/v2.0", base+"/discovery/v2.0/keys", n.IssuerV2(realm.id())
		if version == 1 && !realm.adfs {
			oauth, keys, issuer = base+"/oauth2", base+"/discovery/keys", n.IssuerV1(realm.id())
		}
		doc := openIDDocument{
			TokenEndpoint:         oauth + "/token",
			TokenAuthMethods:      []string{"client_secret_post", "private_key_jwt", "client_secret_basic", "none"},
			JWKSURI:               keys,
			ResponseModes:         []string{modeQuery, modeFragment, modePost},
			SubjectTypes:          []string{"pairwise"},
			IDTokenAlgorithms:     []string{"RS256"},
			ResponseTypes:         []string{"code"},
			GrantTypes:            s.grantTypes(),
			ChallengeMethods:      []string{"S256"},
			Scopes:                []string{"openid", "profile", "email", "offline_access"},
			Issuer:                issuer,
			AuthorizationEndpoint: oauth + "/authorize",
			DeviceEndpoint:        oauth + "/devicecode",
			EndSessionEndpoint:    oauth + "/logout",
			Claims: []string{"sub", "iss", "aud", "exp", "iat", "nbf", "auth_time", "amr", "nonce", "preferred_username",
				"name", "oid", "sid", "tid", "uti", "ver"},
			CloudInstance:  cloudInstance(n),
			CloudGraphHost: web.Host(n.Graph),
			GraphHost:      web.Host(n.Graph),
			RBACURL:        n.Management,
		}
		if n == s.Azure {
			doc.CloudGraphHost, doc.RBACURL = "graph.windows.net", "https://pas.windows.net"
		}
		if !realm.any() {
			region := "WW"
			doc.TenantRegion = &region
		}
		w.Header()["Cache-Control"] = cacheable
		return web.WriteJSON(w, http.StatusOK, doc)
	}
}

// grantTypes are the ways to get a token that are open.
func (s *service) grantTypes() []string {
	types := []string{grantClient, grantCode, grantRefresh, grantDevice}
	if !s.SignIn.DisablePasswords {
		types = append(types, grantPassword)
	}
	return types
}

// discoveryError is Entra's one difference between the token endpoint and the
// documents: here an unknown tenant is an invalid tenant, not an invalid
// request.
func discoveryError(err error) error {
	if e, ok := err.(*Error); ok && (e.Code == 90002 || e.Code == 900023) {
		e.OAuth = invalidTenant
	}
	return err
}

// cacheable is how long documents and keys may be kept: much shorter than new
// keys are published ahead of their first use.
var cacheable = []string{"max-age=3600, private"}

// cloudInstance is the login host without its first label, as in
// microsoftonline.com.
func cloudInstance(n *web.Names) string {
	host := web.Host(n.Login)
	if rest, ok := strings.CutPrefix(host, "login."); ok {
		return rest
	}
	return host
}

// keys serves the keys that tokens of a tenant are signed with. All tenants
// share them. Version 2 says for which issuer each is.
func (s *service) keys(version int) web.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		realm, err := s.realm(r)
		if err != nil {
			return discoveryError(err)
		}
		set, err := s.Keys.JWKS(r.Context(), token.Tenant)
		if err != nil {
			return err
		}
		if version == 2 {
			n := web.CallOf(r.Context()).Names
			for i := range set.Keys {
				set.Keys[i].Issuer, set.Keys[i].CloudInstanceName = n.IssuerV2(realm.id()), cloudInstance(n)
			}
		}
		w.Header()["Cache-Control"] = cacheable
		return web.WriteJSON(w, http.StatusOK, set)
	}
}

// instance is one cloud's hosts in the answer of instance discovery.
type instance struct {
	PreferredNetwork string   `json:"preferred_network"`
	PreferredCache   string   `json:"preferred_cache"`
	Aliases          []string `json:"aliases"`
}

type instanceDocument struct {
	TenantDiscoveryEndpoint string     `json:"tenant_discovery_endpoint"`
	APIVersion              string     `json:"api-version"`
	Metadata                []instance `json:"metadata"`
}

// azureHosts are the names of the public cloud's token service; the first one
// is where clients are sent.
var azureHosts = []string{"login.microsoftonline.com", "login.windows.net", "login.microsoft.com", "sts.windows.net"}

// instanceDiscovery tells a client whether a host is a token service that it
// may trust, and where its documents are.
func (s *service) instanceDiscovery(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	asked := query.Get("authorization_endpoint")
	if asked == "" {
		return errMissing("authorization_endpoint")
	}
	u, err := url.Parse(asked)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		return errUnknownInstance(asked)
	}
	host := strings.TrimSuffix(strings.ToLower(u.Host), ":443")
	path := strings.Split(strings.Trim(strings.ToLower(u.Path), "/"), "/")
	if !namesTenant(path[0]) {
		return errTenantMalformed(path[0])
	}
	metadata := s.instances(web.CallOf(r.Context()))
	if !slices.ContainsFunc(metadata, func(i instance) bool { return slices.Contains(i.Aliases, host) }) {
		if !s.servesLogin(host) {
			return errUnknownInstance(host)
		}
		metadata = append(metadata, instance{host, host, []string{host}})
	}
	document := "/v2.0/.well-known/openid-configuration"
	if len(path) > 1 && !slices.Contains(path, "v2.0") {
		document = "/.well-known/openid-configuration"
	}
	version := query.Get("api-version")
	if version != "1.0" {
		version = "1.1"
	}
	return web.WriteJSON(w, http.StatusOK, instanceDocument{
		TenantDiscoveryEndpoint: "https://" + host + "/" + path[0] + document,
		APIVersion:              version,
		Metadata:                metadata,
	})
}

// instances lists the clouds that we are, the one that was asked first.
func (s *service) instances(call *web.Call) []instance {
	var list []instance
	for _, n := range s.allNames(call) {
		host := strings.TrimSuffix(web.Host(n.Login), ":443")
		i := instance{host, host, []string{host}}
		if n == s.Azure {
			i.Aliases = azureHosts
		}
		if !slices.ContainsFunc(list, func(have instance) bool { return have.PreferredNetwork == host }) {
			list = append(list, i)
		}
	}
	return list
}

// servesLogin accepts the hosts that are ours besides the names: regional
// ones, which are a label before our own, and what the assembly knows of.
func (s *service) servesLogin(host string) bool {
	label, ok := strings.CutSuffix(host, "."+web.Host(s.Own.Login))
	if ok && label != "" && !strings.ContainsAny(label, "./:@") {
		return true
	}
	return s.ServesLogin != nil && s.ServesLogin(host)
}

// namesTenant reports whether a path segment can stand for a tenant, or is
// the one that stands before tenants in the AD FS form.
func namesTenant(segment string) bool {
	switch segment {
	case "common", "organizations", "consumers", "adfs":
		return true
	}
	_, guid := directory.CanonicalID(segment)
	return guid || directory.ValidDomain(segment)
}
