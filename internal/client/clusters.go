package client

import (
	"context"
	"strings"
)

// VersionClusters is the api-version of managed clusters that we send.
const VersionClusters = "2025-10-01"

// Cluster is a registered cluster, as the management API shows it.
type Cluster struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Location   string `json:"location"`
	Properties struct {
		State   string `json:"provisioningState"` // Updating while work in the cluster is under way
		Version string `json:"kubernetesVersion,omitempty"`
		Server  string `json:"fqdn,omitempty"` // host of the API server
		OIDC    struct {
			Issuer string `json:"issuerURL"`
		} `json:"oidcIssuerProfile"`
		Security struct {
			WorkloadIdentity struct {
				Enabled bool `json:"enabled"`
			} `json:"workloadIdentity"`
		} `json:"securityProfile"`
		Podkey struct {
			KeySource   string   `json:"keySource"` // Pinned or Fetched
			KeyIDs      []string `json:"keyIds"`
			KeysUpdated string   `json:"keysUpdatedAt,omitempty"`
			Kubeconfig  bool     `json:"hasKubeconfig"`
			ToInstall   []string `json:"toInstall"` // what podkey install must bring
			Error       *struct {
				Code    string `json:"code"`
				Message string `json:"message"`
			} `json:"error,omitempty"` // why the last work in the cluster failed
		} `json:"podkey"`
	} `json:"properties"`
}

// Issuer is the issuer of the cluster's tokens.
func (c *Cluster) Issuer() string { return c.Properties.OIDC.Issuer }

// Group is the name of the cluster's resource group.
func (c *Cluster) Group() string {
	parts := strings.Split(c.ID, "/") // "", subscriptions, S, resourceGroups, G, ...
	if len(parts) < 5 {
		return ""
	}
	return parts[4]
}

// Clusters lists the registered clusters of the operator's subscription.
func (c *Client) Clusters(ctx context.Context) ([]Cluster, error) {
	return listAll[Cluster](ctx, c, "/subscriptions/"+c.Operator.SubscriptionID+
		"/providers/Microsoft.ContainerService/managedClusters?api-version="+VersionClusters)
}
