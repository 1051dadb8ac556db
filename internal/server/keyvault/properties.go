package keyvault

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/server/rbac"
)

// Values of publicNetworkAccess, and of networkAcls.
const (
	accessEnabled  = "Enabled"
	accessDisabled = "Disabled"
	actionAllow    = "Allow"
	actionDeny     = "Deny"
)

// maxNetworkRules bounds each list of network rules.
const maxNetworkRules = 1000

func badProperty(format string, args ...any) error {
	return fault.BadRequest("BadRequest", format, args...)
}

// apply puts what a request names into the vault. Soft delete cannot be
// switched off, purge protection not switched off again, and the retention
// not changed once the vault exists: whoever takes over an account must not
// be able to shorten what the vault promised.
func (v *Vault) apply(p *Properties, created bool) error {
	if p.TenantID != "" && !strings.EqualFold(p.TenantID, v.TenantID) {
		return badProperty("The tenantId '%.40s' is not the tenant of the vault's subscription, '%s'.", p.TenantID, v.TenantID)
	}
	if err := v.applySKU(p.SKU, created); err != nil {
		return err
	}
	if p.EnableSoftDelete != nil && !*p.EnableSoftDelete {
		return badProperty(`The property "enableSoftDelete" cannot be set to false. Soft delete is always on.`)
	}
	if p.RetentionDays != nil {
		switch days := *p.RetentionDays; {
		case days < minRetention || days > maxRetention:
			return badProperty(`The property "softDeleteRetentionInDays" must be between %d and %d.`, minRetention, maxRetention)
		case !created && days != v.RetentionDays:
			return badProperty(`The property "softDeleteRetentionInDays" has been set already and it can't be modified.`)
		default:
			v.RetentionDays = days
		}
	}
	if p.PurgeProtection != nil {
		if v.PurgeProtection && !*p.PurgeProtection {
			return badProperty(`The property "enablePurgeProtection" cannot be set to false. Enabling the purge protection for a vault is an irreversible action.`)
		}
		v.PurgeProtection = *p.PurgeProtection
	}
	if p.AccessPolicies != nil {
		if err := v.checkPolicies(*p.AccessPolicies); err != nil {
			return err
		}
		v.AccessPolicies = *p.AccessPolicies
	}
	set(&v.EnableRBAC, p.EnableRBAC)
	set(&v.EnabledForDeployment, p.EnabledForDeployment)
	set(&v.EnabledForDiskEncryption, p.EnabledForDiskEncryption)
	set(&v.EnabledForTemplateDeployment, p.EnabledForTemplateDeployment)
	return v.applyNetwork(p)
}

func set(field *bool, value *bool) {
	if value != nil {
		*field = *value
	}
}

func (v *Vault) applySKU(s *SKU, created bool) error {
	if s == nil {
		if created {
			return badProperty("The property 'sku' is required.")
		}
		return nil
	}
	if !strings.EqualFold(s.Family, "A") {
		return badProperty("The sku family must be 'A'.")
	}
	name, ok := oneOf(s.Name, "standard", "premium")
	if !ok {
		return badProperty("The sku name must be 'standard' or 'premium'.")
	}
	v.SKU = SKU{Family: "A", Name: name}
	return nil
}

// oneOf returns the choice that value names in any case.
func oneOf(value string, choices ...string) (string, bool) {
	for _, c := range choices {
		if strings.EqualFold(value, c) {
			return c, true
		}
	}
	return "", false
}

func (v *Vault) applyNetwork(p *Properties) error {
	if p.PublicNetworkAccess != nil {
		access, ok := oneOf(*p.PublicNetworkAccess, accessEnabled, accessDisabled)
		if !ok {
			return badProperty("The property 'publicNetworkAccess' must be 'Enabled' or 'Disabled'.")
		}
		v.PublicNetworkAccess = access
	}
	if p.NetworkACLs == nil {
		return nil
	}
	n := *p.NetworkACLs
	var ok bool
	if n.DefaultAction == "" {
		n.DefaultAction = actionAllow
	}
	if n.DefaultAction, ok = oneOf(n.DefaultAction, actionAllow, actionDeny); !ok {
		return badProperty("The property 'networkAcls.defaultAction' must be 'Allow' or 'Deny'.")
	}
	if n.Bypass == "" {
		n.Bypass = "AzureServices"
	}
	if n.Bypass, ok = oneOf(n.Bypass, "AzureServices", "None"); !ok {
		return badProperty("The property 'networkAcls.bypass' must be 'AzureServices' or 'None'.")
	}
	if len(n.IPRules) > maxNetworkRules || len(n.VirtualNetworkRules) > maxNetworkRules {
		return badProperty("A vault can have at most %d network rules of a kind.", maxNetworkRules)
	}
	n.IPRules = append([]IPRule{}, n.IPRules...) // an array in JSON, also if there are none
	n.VirtualNetworkRules = append([]VirtualNetworkRule{}, n.VirtualNetworkRules...)
	for _, r := range n.IPRules {
		if _, ok := r.prefix(); !ok {
			return badProperty("The value '%.60s' of 'networkAcls.ipRules' is not an address or a range of addresses.", r.Value)
		}
	}
	v.NetworkACLs = &n
	return nil
}

// prefix is the range of addresses that the rule admits.
func (r IPRule) prefix() (netip.Prefix, bool) {
	if strings.Contains(r.Value, "/") {
		p, err := netip.ParsePrefix(r.Value)
		return p, err == nil
	}
	a, err := netip.ParseAddr(r.Value)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, a.BitLen()), true
}

// checkPolicies refuses access policies that are malformed or speak of
// another tenant, whose principals could never use them.
func (v *Vault) checkPolicies(policies []rbac.AccessPolicy) error {
	if err := rbac.CheckPolicies(policies); err != nil {
		return err
	}
	for _, p := range policies {
		if !strings.EqualFold(p.TenantID, v.TenantID) {
			return badProperty("An invalid value was provided for 'accessPolicies': the tenantId must be that of the vault, '%s'.", v.TenantID)
		}
	}
	return nil
}

// mergePolicies returns a new list; neither argument is changed.
func mergePolicies(old []rbac.AccessPolicy, c PolicyChange, given []rbac.AccessPolicy) ([]rbac.AccessPolicy, error) {
	if c != AddPolicies && c != ReplacePolicies && c != RemovePolicies {
		return nil, badProperty("The operation on access policies must be 'add', 'replace' or 'remove'.")
	}
	merged := slices.Clone(old)
	at := make(map[string]int, len(merged))
	for i := range merged {
		at[merged[i].Key()] = i
	}
	for i := range given {
		g := &given[i]
		key := g.Key()
		j, had := at[key]
		switch {
		case !had && c != RemovePolicies:
			at[key] = len(merged)
			merged = append(merged, *g)
		case !had:
		case c == ReplacePolicies:
			merged[j] = *g
		default:
			merged[j].Permissions = mergePermissions(merged[j].Permissions, c, g.Permissions)
		}
	}
	if c == RemovePolicies { // only then can one be left with nothing that had something
		merged = slices.DeleteFunc(merged, func(e rbac.AccessPolicy) bool { return e.Permissions.Empty() })
	}
	return merged, nil
}

func mergePermissions(old rbac.Permissions, c PolicyChange, given rbac.Permissions) rbac.Permissions {
	merge := func(old, given []string) []string {
		if c == AddPolicies {
			return union(old, given)
		}
		return without(old, given)
	}
	return rbac.Permissions{
		Keys:         merge(old.Keys, given.Keys),
		Secrets:      merge(old.Secrets, given.Secrets),
		Certificates: merge(old.Certificates, given.Certificates),
		Storage:      merge(old.Storage, given.Storage),
	}
}

func union(a, b []string) []string {
	out := slices.Clone(a)
	for _, s := range b {
		if !containsFold(out, s) {
			out = append(out, s)
		}
	}
	return out
}

func without(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return containsFold(b, s) })
}

func containsFold(list []string, s string) bool {
	return slices.ContainsFunc(list, func(e string) bool { return strings.EqualFold(e, s) })
}
