package connect

import (
	"fmt"
	"slices"
	"strings"

	"github.com/podkey/podkey/internal/text"
)

// Permissions are what may be done with the objects of a vault, in the words
// of access policies.
type Permissions struct {
	Secrets      []string `json:"secrets,omitempty"`
	Keys         []string `json:"keys,omitempty"`
	Certificates []string `json:"certificates,omitempty"`
}

// Known permissions of each kind of object; also the order in which they are
// shown.
var (
	secretPermissions = []string{"get", "list", "set", "delete", "backup", "restore", "recover", "purge"}
	keyPermissions    = []string{"get", "list", "create", "import", "update", "delete", "backup", "restore", "recover", "purge",
		"encrypt", "decrypt", "wrapKey", "unwrapKey", "sign", "verify", "release", "rotate", "getrotationpolicy", "setrotationpolicy"}
	certificatePermissions = []string{"get", "list", "create", "import", "update", "delete", "backup", "restore", "recover", "purge",
		"managecontacts", "manageissuers", "getissuers", "listissuers", "setissuers", "deleteissuers"}
)

// kinds walks over the three lists.
func (p *Permissions) kinds() []*[]string { return []*[]string{&p.Secrets, &p.Keys, &p.Certificates} }

var (
	kindNames = []string{"secrets", "keys", "certificates"}
	kindFlags = []string{"--secret-permissions", "--key-permissions", "--certificate-permissions"}
	kindKnown = [][]string{secretPermissions, keyPermissions, certificatePermissions}
)

// Normal checks the names, in whatever letters they are, and puts them in order.
func (p *Permissions) Normal() (Permissions, error) {
	var out Permissions
	for i, list := range p.kinds() {
		var have []string
		for _, name := range *list {
			at := slices.IndexFunc(kindKnown[i], func(k string) bool { return strings.EqualFold(k, strings.TrimSpace(name)) })
			if at < 0 {
				return out, fmt.Errorf("%q is not a permission on %s: use %s", text.Printable(name), kindNames[i], strings.Join(kindKnown[i], ", "))
			}
			have = append(have, kindKnown[i][at])
		}
		*out.kinds()[i] = ordered(have, kindKnown[i])
	}
	return out, nil
}

// ordered is the set of names in the order of known.
func ordered(names, known []string) []string {
	var out []string
	for _, k := range known {
		if slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, k) }) {
			out = append(out, k)
		}
	}
	return out
}

// Empty reports that nothing is permitted.
func (p *Permissions) Empty() bool {
	return len(p.Secrets) == 0 && len(p.Keys) == 0 && len(p.Certificates) == 0
}

// combine applies a rule to each kind.
func (p *Permissions) combine(q *Permissions, rule func(a, b []string, name string) bool) Permissions {
	var out Permissions
	for i, list := range p.kinds() {
		a, b := *list, *q.kinds()[i]
		for _, name := range kindKnown[i] {
			if rule(a, b, name) {
				*out.kinds()[i] = append(*out.kinds()[i], name)
			}
		}
	}
	return out
}

func has(list []string, name string) bool {
	return slices.ContainsFunc(list, func(n string) bool { return strings.EqualFold(n, name) || strings.EqualFold(n, "all") })
}

func (p *Permissions) union(q *Permissions) Permissions {
	return p.combine(q, func(a, b []string, n string) bool { return has(a, n) || has(b, n) })
}

func (p *Permissions) minus(q *Permissions) Permissions {
	return p.combine(q, func(a, b []string, n string) bool { return has(a, n) && !has(b, n) })
}

func (p *Permissions) both(q *Permissions) Permissions {
	return p.combine(q, func(a, b []string, n string) bool { return has(a, n) && has(b, n) })
}

// String is the permissions for people, and in the vault's tag:
// "secrets:get,list;keys:get".
func (p Permissions) String() string {
	var out []string
	for i, list := range p.kinds() {
		if len(*list) > 0 {
			out = append(out, kindNames[i]+":"+strings.Join(*list, ","))
		}
	}
	return strings.Join(out, ";")
}

// parsePermissions reads what String wrote. What it does not understand it
// leaves out, since it is used to know what may be taken away.
func parsePermissions(s string) Permissions {
	var out Permissions
	for part := range strings.SplitSeq(s, ";") {
		kind, names, _ := strings.Cut(part, ":")
		if i := slices.Index(kindNames, kind); i >= 0 {
			*out.kinds()[i] = ordered(strings.Split(names, ","), kindKnown[i])
		}
	}
	return out
}

// Role is a built-in role for the objects of vaults.
type Role struct {
	Name, ID string
	can      Permissions
}

var all = Permissions{Secrets: secretPermissions, Keys: keyPermissions, Certificates: certificatePermissions}

// The roles, those that can do less first.
var (
	read         = []string{"get", "list"}
	vaultReader  = Role{"Key Vault Reader", "21090545-7ca7-4776-b22c-e363652d74d2", Permissions{[]string{"list"}, read, read}}
	secretsUser  = Role{"Key Vault Secrets User", "4633458b-17de-408a-b874-0445c86b69e6", Permissions{Secrets: read}}
	encryption   = Role{"Key Vault Crypto Service Encryption User", "e147488a-f6f5-4113-8e2d-b22465e65bf6", Permissions{Keys: []string{"get", "list", "wrapKey", "unwrapKey"}}}
	cryptoUser   = Role{"Key Vault Crypto User", "12338af0-0e69-4776-bea7-57ae8d297424", Permissions{Keys: []string{"get", "list", "update", "backup", "encrypt", "decrypt", "wrapKey", "unwrapKey", "sign", "verify"}}}
	secretsOwner = Role{"Key Vault Secrets Officer", "b86a8fe4-44ce-4948-aee5-eccb2c155cd7", Permissions{Secrets: secretPermissions}}
	cryptoOwner  = Role{"Key Vault Crypto Officer", "14b46e9e-c2b7-41b4-b07b-48a6ebf60603", Permissions{Keys: keyPermissions}}
	certOwner    = Role{"Key Vault Certificates Officer", "a4417e6f-fecd-4de8-b567-7b0420556985", Permissions{Certificates: certificatePermissions}}
	everything   = Role{"Key Vault Administrator", "00482a5a-887f-4fb3-b363-3b7fe8e74483", all}

	// Chosen from, in this order; the administrator's role is only recognised.
	choices = []Role{vaultReader, secretsUser, encryption, cryptoUser, secretsOwner, cryptoOwner, certOwner}
	known   = append(slices.Clone(choices), everything)
)

// RolesFor chooses the roles that give the permissions, as small as the
// built-in ones are: for each kind the first that gives all of it. more names
// what they give beyond that.
func RolesFor(want Permissions) (roles []Role, more Permissions) {
	var given Permissions
	for i, list := range want.kinds() {
		var part Permissions
		*part.kinds()[i] = *list
		if left := part.minus(&given); left.Empty() {
			continue
		}
		for _, r := range choices {
			if left := part.minus(&r.can); left.Empty() {
				roles = append(roles, r)
				given = given.union(&r.can)
				break
			}
		}
	}
	return roles, given.minus(&want)
}

// grantedBy is what a principal may do by the assignments that hold at a
// scope, as far as the built-in roles for vaults tell; and by which.
func grantedBy(assignments []Assignment, scope string) (given Permissions, names []string) {
	scope = strings.ToLower(scope)
	for _, a := range assignments {
		at := strings.TrimRight(strings.ToLower(a.Scope), "/")
		if scope != at && !strings.HasPrefix(scope, at+"/") {
			continue // below the vault: of one object
		}
		for _, r := range known {
			if r.ID == a.Role {
				given = given.union(&r.can)
				names = append(names, r.Name)
			}
		}
	}
	slices.Sort(names)
	return given, slices.Compact(names)
}
