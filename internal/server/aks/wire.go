package aks

import (
	"net/http"
	"time"

	"github.com/podkey/podkey/internal/server/arm"
	"github.com/podkey/podkey/internal/web"
)

// wireCluster is a managed cluster in answers. Much of it is there because a
// client fails without it; what says anything is true of a registered cluster.
type wireCluster struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Type       string            `json:"type"`
	Location   string            `json:"location"`
	Tags       map[string]string `json:"tags"`
	ETag       string            `json:"eTag"`
	SKU        wireSKU           `json:"sku"` // az update writes this one if there is none
	Properties wireProperties    `json:"properties"`
}

type wireSKU struct {
	Name string `json:"name"`
	Tier string `json:"tier"`
}

type wireProperties struct {
	ProvisioningState string `json:"provisioningState"`
	DNSPrefix         string `json:"dnsPrefix"`
	FQDN              string `json:"fqdn,omitempty"`
	Version           string `json:"kubernetesVersion,omitempty"`
	CurrentVersion    string `json:"currentKubernetesVersion,omitempty"`
	EnableRBAC        bool   `json:"enableRBAC"`
	// az update refuses a cluster without a pool and without a network profile.
	// The nodes are not ours to know of: the one pool has no number.
	AgentPools []wirePool  `json:"agentPoolProfiles"`
	Network    wireNetwork `json:"networkProfile"`
	// az show fails without it. There is no managed identity of ours in the
	// cluster, so there is no identity and no identityProfile either.
	ServicePrincipal wireServicePrincipal `json:"servicePrincipalProfile"`
	OIDC             wireOIDC             `json:"oidcIssuerProfile"`
	Security         wireSecurity         `json:"securityProfile"`
	Podkey           wirePodkey           `json:"podkey"`
}

type wirePool struct {
	Name   string `json:"name"`
	Mode   string `json:"mode"`
	OSType string `json:"osType"`
}

type wireNetwork struct {
	Plugin string `json:"networkPlugin"` // "none": the cluster brought its own
}

type wireServicePrincipal struct {
	ClientID string `json:"clientId"`
}

type wireOIDC struct {
	Enabled bool   `json:"enabled"`
	Issuer  string `json:"issuerURL"` // so on the wire; az prints issuerUrl
}

type wireSecurity struct {
	WorkloadIdentity wireEnabled `json:"workloadIdentity"`
}

type wireEnabled struct {
	Enabled bool `json:"enabled"`
}

// wirePodkey is what only a registered cluster has.
type wirePodkey struct {
	Issuer      string     `json:"issuer"`
	KeySource   keySource  `json:"keySource"`
	KeyIDs      []string   `json:"keyIds"`
	KeysUpdated *time.Time `json:"keysUpdatedAt,omitempty"`
	Kubeconfig  bool       `json:"hasKubeconfig"`
	// ToInstall is what the cluster was asked to have and `podkey install` brings.
	ToInstall []string `json:"toInstall"`
	// Error is why the last operation failed.
	Error *arm.ErrorDetail `json:"error,omitempty"`
}

// noServicePrincipal is what clusters show that have no service principal.
const noServicePrincipal = "msi"

// componentWebhook is the part of `podkey install` that workload identity needs.
const componentWebhook = "workload-identity-webhook"

func wireOf(c *cluster) wireCluster {
	out := wireCluster{
		ID: c.ID, Name: c.Name, Type: typeCluster, Location: c.Location, Tags: c.Tags, ETag: c.ETag,
		SKU: wireSKU{Name: "Base", Tier: "Free"},
		Properties: wireProperties{
			ProvisioningState: string(c.provisioningState()), DNSPrefix: c.Name, FQDN: c.Server,
			Version: c.Version, CurrentVersion: c.Version, EnableRBAC: true,
			AgentPools:       []wirePool{{Name: "registered", Mode: "System", OSType: "Linux"}},
			Network:          wireNetwork{Plugin: "none"},
			ServicePrincipal: wireServicePrincipal{ClientID: noServicePrincipal},
			OIDC:             wireOIDC{Enabled: true, Issuer: c.Issuer},
			Security:         wireSecurity{WorkloadIdentity: wireEnabled{c.WorkloadIdentity}},
			Podkey: wirePodkey{
				Issuer: c.Issuer, KeySource: c.KeySource, KeyIDs: []string{}, Kubeconfig: c.Server != "", ToInstall: []string{},
			},
		},
	}
	if out.Tags == nil {
		out.Tags = map[string]string{}
	}
	if c.ServicePrincipal != "" {
		out.Properties.ServicePrincipal.ClientID = c.ServicePrincipal
	}
	p := &out.Properties.Podkey
	for _, k := range c.Keys {
		p.KeyIDs = append(p.KeyIDs, k.ID)
	}
	if c.KeySource == pinned {
		p.KeysUpdated = &c.KeysUpdated
	}
	p.Error = c.Operation.Error
	if c.WorkloadIdentity && c.Webhook != present {
		p.ToInstall = append(p.ToInstall, componentWebhook)
	}
	return out
}

func writeCluster(w http.ResponseWriter, status int, c *cluster) error {
	w.Header().Set("ETag", `"`+c.ETag+`"`)
	return web.WriteJSON(w, status, wireOf(c))
}
