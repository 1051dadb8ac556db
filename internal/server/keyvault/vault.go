package keyvault

import (
	"strings"
	"time"

	"github.com/podkey/podkey/internal/server/rbac"
)

// Vault is a vault as it is stored, live or deleted.
type Vault struct {
	UID            string            `json:"uid"` // random; what the vault's records are keyed by
	ID             string            `json:"id"`  // ARM id in display case
	Name           string            `json:"name"`
	SubscriptionID string            `json:"subscriptionId"`
	ResourceGroup  string            `json:"resourceGroup"`
	Location       string            `json:"location"`
	TenantID       string            `json:"tenantId"` // lower case
	Tags           map[string]string `json:"tags,omitempty"`

	SKU                          SKU                 `json:"sku"`
	AccessPolicies               []rbac.AccessPolicy `json:"accessPolicies,omitempty"`
	EnableRBAC                   bool                `json:"enableRbacAuthorization"` // else AccessPolicies decide
	RetentionDays                int                 `json:"softDeleteRetentionInDays"`
	PurgeProtection              bool                `json:"enablePurgeProtection,omitempty"`
	EnabledForDeployment         bool                `json:"enabledForDeployment,omitempty"`
	EnabledForDiskEncryption     bool                `json:"enabledForDiskEncryption,omitempty"`
	EnabledForTemplateDeployment bool                `json:"enabledForTemplateDeployment,omitempty"`
	NetworkACLs                  *NetworkACLs        `json:"networkAcls,omitempty"` // nil allows every address
	PublicNetworkAccess          string              `json:"publicNetworkAccess"`   // Enabled or Disabled

	Created   time.Time `json:"created"`
	CreatedBy string    `json:"createdBy"` // object id of the caller
	Updated   time.Time `json:"updated"`
	UpdatedBy string    `json:"updatedBy"`

	Deleted *DeletedVault `json:"deleted,omitempty"` // set on deleted vaults
}

// DeletedVault says when a vault was deleted and when it will be purged.
type DeletedVault struct {
	DeletedAt time.Time `json:"deletedAt"`
	PurgeAt   time.Time `json:"purgeAt"`
	DeletedBy string    `json:"deletedBy"`
}

// SKU is the tier of a vault.
type SKU struct {
	Family string `json:"family"` // A
	Name   string `json:"name"`   // standard or premium
}

// NetworkACLs are a vault's network rules, in the JSON of the management API.
// Rules of virtual networks are kept but admit nobody: no address is in one.
type NetworkACLs struct {
	Bypass              string               `json:"bypass"`        // AzureServices or None
	DefaultAction       string               `json:"defaultAction"` // Allow or Deny
	IPRules             []IPRule             `json:"ipRules"`
	VirtualNetworkRules []VirtualNetworkRule `json:"virtualNetworkRules"`
}

// IPRule admits an address or a range in CIDR notation.
type IPRule struct {
	Value string `json:"value"`
}

// VirtualNetworkRule names a subnet.
type VirtualNetworkRule struct {
	ID                     string `json:"id"`
	IgnoreMissingEndpoints bool   `json:"ignoreMissingVnetServiceEndpoint,omitempty"`
}

func (v *Vault) subscriptionKey() string { return groupKey(v.SubscriptionID, "") }

func (v *Vault) groupKey() string { return groupKey(v.SubscriptionID, v.ResourceGroup) }

// RecoveryLevel is what the vault promises for deleted objects, as attributes
// of objects spell it.
func (v *Vault) RecoveryLevel() string {
	switch {
	case v.RetentionDays >= maxRetention && v.PurgeProtection:
		return "Recoverable"
	case v.RetentionDays >= maxRetention:
		return "Recoverable+Purgeable"
	case v.PurgeProtection:
		return "CustomizedRecoverable"
	}
	return "CustomizedRecoverable+Purgeable"
}

// label names the vault in messages, as the service does.
func (v *Vault) label() string { return v.Name + ";location=" + v.Location }

// Bounds and default of softDeleteRetentionInDays.
const (
	minRetention = 7
	maxRetention = 90
)

// Properties are what a request says about a vault, in the JSON of the
// management API. In a request, absent members are nil: they take their
// default when the vault is made and leave it as it is afterwards. Members
// that the server decides, such as vaultUri, are ignored.
type Properties struct {
	TenantID                     string               `json:"tenantId,omitempty"`
	SKU                          *SKU                 `json:"sku,omitempty"`
	AccessPolicies               *[]rbac.AccessPolicy `json:"accessPolicies,omitempty"`
	EnableRBAC                   *bool                `json:"enableRbacAuthorization,omitempty"`
	EnableSoftDelete             *bool                `json:"enableSoftDelete,omitempty"`
	RetentionDays                *int                 `json:"softDeleteRetentionInDays,omitempty"`
	PurgeProtection              *bool                `json:"enablePurgeProtection,omitempty"`
	EnabledForDeployment         *bool                `json:"enabledForDeployment,omitempty"`
	EnabledForDiskEncryption     *bool                `json:"enabledForDiskEncryption,omitempty"`
	EnabledForTemplateDeployment *bool                `json:"enabledForTemplateDeployment,omitempty"`
	NetworkACLs                  *NetworkACLs         `json:"networkAcls,omitempty"`
	PublicNetworkAccess          *string              `json:"publicNetworkAccess,omitempty"`
	CreateMode                   string               `json:"createMode,omitempty"` // default or recover; requests only
}

// Properties returns the vault's properties as the management API shows
// them, all but vaultUri and provisioningState. Purge protection is absent
// unless it is on, and accessPolicies is never null.
func (v *Vault) Properties() Properties {
	policies := v.AccessPolicies
	if policies == nil {
		policies = []rbac.AccessPolicy{}
	}
	softDelete := true
	p := Properties{
		TenantID:                     v.TenantID,
		SKU:                          &v.SKU,
		AccessPolicies:               &policies,
		EnableRBAC:                   &v.EnableRBAC,
		EnableSoftDelete:             &softDelete,
		RetentionDays:                &v.RetentionDays,
		EnabledForDeployment:         &v.EnabledForDeployment,
		EnabledForDiskEncryption:     &v.EnabledForDiskEncryption,
		EnabledForTemplateDeployment: &v.EnabledForTemplateDeployment,
		NetworkACLs:                  v.NetworkACLs,
		PublicNetworkAccess:          &v.PublicNetworkAccess,
	}
	if v.PurgeProtection {
		p.PurgeProtection = &v.PurgeProtection
	}
	return p
}

// ValidVaultName reports whether a vault may have the name: 3 to 24 letters,
// digits and hyphens, beginning with a letter, ending with a letter or digit,
// without two hyphens in a row.
func ValidVaultName(name string) bool {
	if len(name) < 3 || len(name) > 24 || strings.Contains(name, "--") || name[len(name)-1] == '-' || !isLetter(name[0]) {
		return false
	}
	return validName(name)
}

// validName reports whether a name consists of letters, digits and hyphens,
// all ASCII, and has 1 to 127 of them: the rule for objects in a vault. So
// lower-casing is all there is to comparing names, and a name is always one
// segment of a path, an id and a key.
func validName(name string) bool {
	if name == "" || len(name) > 127 {
		return false
	}
	for i := range len(name) {
		if c := name[i]; c != '-' && !isLetter(c) && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
