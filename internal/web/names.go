package web

import "strings"

// Names is one set of names that the server answers for. Every URL in an
// answer is built from the set that the request came in by, so that a client
// which knows us by Azure's names never sees another.
type Names struct {
	Login      string // origin of the token service, such as https://login.podkey.localhost:8443
	Management string // origin of the management API
	Graph      string // origin of the directory API
	Issuer     string // origin of cluster issuers' documents
	Portal     string // origin of the console
	Vault      string // host suffix of vaults, with port if not 443, such as vault.podkey.localhost:8443
	STS        string // origin of the v1 issuer: https://sts.windows.net, or Login for own names
}

// VaultURL is the origin of a vault, without a closing slash.
func (n *Names) VaultURL(vault string) string { return "https://" + vault + "." + n.Vault }

// VaultResource is the resource that a vault's challenge names and that
// tokens for it carry as audience. SDKs demand that the vault's host ends in
// "." + its host, some with the port.
func (n *Names) VaultResource() string { return "https://" + n.Vault }

// IssuerV1 is the iss of version 1.0 tokens of a tenant.
func (n *Names) IssuerV1(tenant string) string { return n.STS + "/" + tenant + "/" }

// IssuerV2 is the iss of version 2.0 tokens of a tenant.
func (n *Names) IssuerV2(tenant string) string { return n.Login + "/" + tenant + "/v2.0" }

// OwnNames returns the names under domain, which may carry a port.
func OwnNames(domain string) *Names {
	login := "https://login." + domain
	return &Names{
		Login:      login,
		Management: "https://management." + domain,
		Graph:      "https://graph." + domain,
		Issuer:     "https://issuer." + domain,
		Portal:     "https://portal." + domain,
		Vault:      "vault." + domain,
		STS:        login,
	}
}

// AzureNames returns the public cloud's names. Azure has no one host for
// clusters' issuers and the console is not impersonated: those stay own's.
func AzureNames(own *Names) *Names {
	return &Names{
		Login:      "https://login.microsoftonline.com",
		Management: "https://management.azure.com",
		Graph:      "https://graph.microsoft.com",
		Issuer:     own.Issuer,
		Portal:     own.Portal,
		Vault:      "vault.azure.net",
		STS:        "https://sts.windows.net",
	}
}

// At returns a copy whose login, management and graph share one origin: the
// set for requests to a bare address such as https://127.0.0.1:8443, where
// the three planes' paths do not collide. Token issuers stay those of n.
func (n *Names) At(origin string) *Names {
	c := *n
	c.Login, c.Management, c.Graph = origin, origin, origin
	return &c
}

// Host returns the host, with port if there is one, of an origin.
func Host(origin string) string { return strings.TrimPrefix(origin, "https://") }
