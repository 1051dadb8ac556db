package rbac

import (
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/podkey/podkey/internal/fault"
)

// AccessPolicy is one entry of a vault's access policies, in the JSON of the
// management API.
type AccessPolicy struct {
	TenantID string `json:"tenantId"`
	ObjectID string `json:"objectId"` // user, service principal or group
	// ApplicationID, if set, limits the entry to tokens that this client
	// obtained for the object id.
	ApplicationID string      `json:"applicationId,omitempty"`
	Permissions   Permissions `json:"permissions"`
}

// Permissions of an access policy, by kind of object. Names are compared
// without regard to case and kept as they were given; "all" stands for every
// one of its kind.
type Permissions struct {
	Keys         []string `json:"keys,omitzero"`
	Secrets      []string `json:"secrets,omitzero"`
	Certificates []string `json:"certificates,omitzero"`
	Storage      []string `json:"storage,omitzero"`
}

// of returns the permissions of one kind; none for a kind there is not.
func (p *Permissions) of(kind string) []string {
	switch kind {
	case "keys":
		return p.Keys
	case "secrets":
		return p.Secrets
	case "certificates":
		return p.Certificates
	case "storage":
		return p.Storage
	}
	return nil
}

// all is the permission that stands for every one of its kind.
const all = "all"

var permissionNames = map[string][]string{
	"keys": {
		all, "get", "list", "update", "create", "import", "delete", "recover", "backup", "restore",
		"decrypt", "encrypt", "unwrapkey", "wrapkey", "verify", "sign",
		"purge", "release", "rotate", "getrotationpolicy", "setrotationpolicy",
	},
	"secrets": {all, "get", "list", "set", "delete", "recover", "backup", "restore", "purge"},
	"certificates": {
		all, "get", "list", "delete", "create", "import", "update", "managecontacts",
		"getissuers", "listissuers", "setissuers", "deleteissuers", "manageissuers",
		"recover", "backup", "restore", "purge",
	},
	"storage": {
		all, "get", "list", "delete", "set", "update", "regeneratekey", "recover", "backup", "restore", "purge",
		"getsas", "listsas", "deletesas", "setsas",
	},
}

// MaxAccessPolicies is the greatest number of entries that a vault may have.
const MaxAccessPolicies = 1024

// CheckPolicies refuses entries that could not have an effect or not the one
// meant: bad ids, unknown permissions, two entries for the same object and
// application, too many.
func CheckPolicies(policies []AccessPolicy) error {
	if len(policies) > MaxAccessPolicies {
		return fault.BadRequest("BadRequest", "A vault can have at most %d access policies.", MaxAccessPolicies)
	}
	seen := make(map[string]bool, len(policies))
	for i := range policies {
		p := &policies[i]
		if uuid.Validate(p.TenantID) != nil || uuid.Validate(p.ObjectID) != nil ||
			p.ApplicationID != "" && uuid.Validate(p.ApplicationID) != nil {
			return fault.BadRequest("BadRequest", "An invalid value was provided for 'accessPolicies': tenantId, objectId and applicationId must be GUIDs.")
		}
		for kind, known := range permissionNames {
			for _, name := range p.Permissions.of(kind) {
				if !slices.Contains(known, strings.ToLower(name)) {
					return fault.BadRequest("BadRequest", "An invalid value was provided for 'accessPolicies': '%.40q' is not a permission for %s.", name, kind)
				}
			}
		}
		key := p.Key()
		if seen[key] {
			return fault.BadRequest("BadRequest", "An invalid value was provided for 'accessPolicies': there are two entries for object id '%s'.", p.ObjectID)
		}
		seen[key] = true
	}
	return nil
}

// Key is equal for entries that are for the same caller: a vault has one
// entry for each.
func (p *AccessPolicy) Key() string {
	return strings.ToLower(p.TenantID + "/" + p.ObjectID + "/" + p.ApplicationID)
}

// decideByPolicies answers a request about a vault in the access-policy
// model. Entries of several groups add up.
func decideByPolicies(req *Request) decision {
	p := &req.Principal
	for i := range req.Policies {
		e := &req.Policies[i]
		if !strings.EqualFold(e.TenantID, req.TenantID) ||
			e.ApplicationID != "" && !strings.EqualFold(e.ApplicationID, p.AppID) ||
			!isOneOf(e.ObjectID, p.ObjectID, p.Groups) {
			continue
		}
		for _, name := range e.Permissions.of(req.PolicyKind) {
			if strings.EqualFold(name, req.PolicyPermission) || strings.EqualFold(name, all) {
				return decision{allowed: true, reason: "access policy", via: e.ObjectID}
			}
		}
	}
	return decision{reason: "no access policy of the vault gives the caller " + req.PolicyKind + " " + req.PolicyPermission}
}

func isOneOf(id, oid string, groups []string) bool {
	if id == "" {
		return false
	}
	if strings.EqualFold(id, oid) {
		return true
	}
	for _, g := range groups {
		if strings.EqualFold(id, g) {
			return true
		}
	}
	return false
}

// Empty reports whether there is no permission of any kind.
func (p *Permissions) Empty() bool {
	return len(p.Keys)+len(p.Secrets)+len(p.Certificates)+len(p.Storage) == 0
}
