// Package rbac decides who may do what, and writes the decision down.
//
// [RBAC.Authorize] is the one place where a caller is allowed or refused: by
// role assignments, or, for a vault that has them, by its access policies. It
// owns the built-in role definitions, the custom ones of each tenant, the
// role assignments and the matching of all. It guarantees that
//
//   - what no rule allows is refused: an empty action, an unnamed caller, a
//     caller or a rule of another tenant than the object's, and a caller that
//     the directory no longer knows or has disabled, whatever its token says;
//   - a decision is in the audit log before it is returned, and a decision
//     that cannot be written is a refusal;
//   - a change of an assignment or of a custom role counts from the next
//     decision on, and no assignment speaks of a role that is not there.
//
// Scopes, actions and ids are compared without regard to case, as Azure does.
package rbac

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/podkey/podkey/internal/audit"
	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/store"
)

// Options adjust an RBAC. The zero value suits a server.
type Options struct {
	Now func() time.Time // clock of createdOn and updatedOn; time.Now if nil
}

// RBAC holds assignments and decides. Create with [New]; safe for concurrent
// use.
type RBAC struct {
	store       *store.Store
	directory   *directory.Directory
	log         *audit.Log
	now         func() time.Time
	assignments *store.Table[Assignment]
	custom      *store.Table[RoleDefinition] // by tenant and GUID
	roles       map[string]*role             // the built-in ones, by lower-case GUID
	held        heldCache
}

// New declares the tables of role assignments and custom roles. Call it before Store.Load.
func New(s *store.Store, d *directory.Directory, l *audit.Log, o Options) *RBAC {
	r := &RBAC{store: s, directory: d, log: l, now: o.Now, roles: compileRoles(builtIn)}
	if r.now == nil {
		r.now = time.Now
	}
	r.assignments = store.NewTable(s, "roleassignment", store.TableOptions[Assignment]{
		Mode: store.Plain,
		Indexes: map[string]func(*Assignment) []string{
			"principal": func(a *Assignment) []string { return []string{a.PrincipalID} },
			"name":      func(a *Assignment) []string { return []string{a.TenantID + "/" + a.Name} },
			"role":      func(a *Assignment) []string { return []string{a.TenantID + "/" + a.RoleDefinitionID} },
		},
	})
	r.custom = store.NewTable(s, "roledefinition", store.TableOptions[RoleDefinition]{
		Mode:    store.Plain,
		Indexes: map[string]func(*RoleDefinition) []string{"name": func(d *RoleDefinition) []string { return []string{nameKey(d)} }},
	})
	return r
}

// Request is one question: may this principal do this to that object?
type Request struct {
	Principal audit.Principal
	Plane     string // for the audit line, such as "vault"
	Operation string // for the audit line, such as "SecretGet"; Action if empty

	Action string // such as "Microsoft.KeyVault/vaults/secrets/getSecret/action"
	Data   bool   // Action is a data action
	Object string // ARM id of the object, any case; "/" is the tenant
	// TenantID is the tenant that owns the object. It must be set: a principal
	// of another tenant is refused, and so is everybody if it is empty.
	TenantID string

	// RoleDefinitionID is the GUID of the role that an assignment gives. It must
	// be set when Action writes or deletes a role assignment: some roles may
	// hand out certain others only, and count as refusing without it.
	RoleDefinitionID string

	// Members lets every principal of the tenant through that the directory
	// knows, and Owners those whose object it is, by object id: for the
	// directory, which people read and look after without a role. Everybody
	// else needs one.
	Members bool
	Owners  []string

	// UsePolicies makes Policies decide instead of role assignments, for a
	// vault in the access-policy model: PolicyKind is keys, secrets,
	// certificates or storage, PolicyPermission a permission such as get.
	UsePolicies      bool
	Policies         []AccessPolicy
	PolicyKind       string
	PolicyPermission string
}

// Grant says by what a request was allowed.
type Grant struct {
	AssignmentID string // GUID of the role assignment; empty under access policies
}

// Denied is the refusal of a request that was understood. It carries what a
// plane needs to word its own message. It wraps a fault of kind Forbidden
// with the wording of the management API.
type Denied struct {
	Principal audit.Principal
	Action    string
	Object    string // as it was asked for
	// ByPolicies is set if access policies decided, which lacked
	// PolicyPermission in PolicyKind.
	ByPolicies       bool
	PolicyKind       string
	PolicyPermission string
	// Reason says what was missing and what the caller has instead. It is for
	// the operator: it names other scopes, which the caller must not learn of.
	Reason string
}

// Error is for the log.
func (d *Denied) Error() string {
	return fmt.Sprintf("denied: %s may not %s on %s: %s", d.Principal.ObjectID, d.Action, d.Object, d.Reason)
}

// Unwrap returns the fault that the management API answers with.
func (d *Denied) Unwrap() error {
	who := d.Principal.Name
	if who == "" {
		who = d.Principal.AppID
	}
	return fault.New(fault.Forbidden, "AuthorizationFailed",
		"The client '%s' with object id '%s' does not have authorization to perform action '%s' over scope '%s' or the scope is invalid. If access was recently granted, please refresh your credentials.",
		who, d.Principal.ObjectID, d.Action, d.Object)
}

// decision is the outcome of one request.
type decision struct {
	allowed    bool
	reason     string // for the audit line
	via        string // for the audit line
	assignment string // GUID
}

// Authorize decides, writes the audit line and returns what allowed the
// request. A refusal is a *[Denied]; any other error is a failure of ours,
// and a refusal too.
func (r *RBAC) Authorize(ctx context.Context, req Request) (Grant, error) {
	d, err := r.decide(ctx, &req)
	if err != nil {
		return Grant{}, err
	}
	rec := audit.Record{
		Plane:     req.Plane,
		Operation: req.Operation,
		Object:    strings.ToLower(req.Object),
		Principal: req.Principal,
		Decision:  audit.Deny,
		Reason:    d.reason,
		Via:       d.via,
	}
	if d.allowed {
		rec.Decision = audit.Allow
	}
	if rec.Operation == "" {
		rec.Operation = req.Action
	}
	if err := r.log.Write(ctx, rec); err != nil {
		return Grant{}, fmt.Errorf("write down a decision: %w", err)
	}
	if !d.allowed {
		return Grant{}, &Denied{
			Principal:        req.Principal,
			Action:           req.Action,
			Object:           req.Object,
			ByPolicies:       req.UsePolicies,
			PolicyKind:       req.PolicyKind,
			PolicyPermission: req.PolicyPermission,
			Reason:           d.reason,
		}
	}
	return Grant{AssignmentID: d.assignment}, nil
}

// Allowed decides without an audit line. It is only for leaving out items of
// a listing that was itself authorised.
func (r *RBAC) Allowed(ctx context.Context, req Request) (bool, error) {
	d, err := r.decide(ctx, &req)
	return d.allowed, err
}

// decide answers the request. The reasons of refusals are found after the
// decision, so that an allowed request does not pay for them.
func (r *RBAC) decide(ctx context.Context, req *Request) (decision, error) {
	p := &req.Principal
	switch {
	case p.ObjectID == "" || p.TenantID == "":
		return decision{reason: "the caller is not identified"}, nil
	case req.Action == "" || !strings.HasPrefix(req.Object, "/"):
		return decision{reason: "the request names no action or no object"}, nil
	case !strings.EqualFold(p.TenantID, req.TenantID):
		return decision{reason: "the caller belongs to another tenant than the object"}, nil
	}
	known, err := r.known(ctx, p)
	if err != nil {
		return decision{}, err
	}
	if !known {
		return decision{reason: "the caller is deleted or disabled in the directory"}, nil
	}
	switch {
	case slices.ContainsFunc(req.Owners, func(id string) bool { return strings.EqualFold(id, p.ObjectID) }):
		return decision{allowed: true, reason: "the caller owns the object"}, nil
	case req.Members:
		return decision{allowed: true, reason: "every member of the tenant may"}, nil
	case req.UsePolicies:
		return decideByPolicies(req), nil
	}
	return r.decideByRoles(ctx, req)
}

// known reports whether the directory still has the caller, enabled and in
// the token's tenant: a token outlives the identity it was issued to.
func (r *RBAC) known(ctx context.Context, p *audit.Principal) (bool, error) {
	sp, ok, err := r.directory.ServicePrincipal(ctx, p.ObjectID)
	if err != nil {
		return false, fmt.Errorf("find the caller: %w", err)
	}
	if ok {
		return sp.Enabled && strings.EqualFold(sp.TenantID, p.TenantID), nil
	}
	u, ok, err := r.directory.User(ctx, p.TenantID, p.ObjectID)
	if err != nil {
		return false, fmt.Errorf("find the caller: %w", err)
	}
	return ok && u.Enabled && strings.EqualFold(u.ObjectID, p.ObjectID), nil
}

func (r *RBAC) decideByRoles(ctx context.Context, req *Request) (decision, error) {
	object := strings.TrimSuffix(req.Object, "/")
	for i := -1; i < len(req.Principal.Groups); i++ {
		id := req.Principal.ObjectID
		if i >= 0 {
			id = req.Principal.Groups[i]
		}
		held, err := r.holdings(ctx, id)
		if err != nil {
			return decision{}, err
		}
		for j := range held {
			if h := &held[j]; h.grants(req, object) {
				return decision{allowed: true, reason: h.reason, via: h.id, assignment: h.name}, nil
			}
		}
	}
	reason, err := r.explain(ctx, req, object)
	return decision{reason: reason}, err
}

// explain says, for the operator, why no assignment of the caller allows the
// request: which roles it has at the object, and where it has one that would
// do.
func (r *RBAC) explain(ctx context.Context, req *Request, object string) (string, error) {
	var here, elsewhere []string
	for _, id := range append([]string{req.Principal.ObjectID}, req.Principal.Groups...) {
		held, err := r.holdings(ctx, id)
		if err != nil {
			return "", err
		}
		for _, h := range held {
			if !strings.EqualFold(h.tenant, req.TenantID) {
				continue
			}
			if covers(h.scope, object) {
				here = append(here, h.role.def.Name)
			} else if h.role.allows(req.Action, req.Data) {
				elsewhere = append(elsewhere, h.reason)
			}
		}
	}
	const most = 5
	s := "no role assignment at or above the object allows it"
	if len(here) > 0 {
		s += "; the caller has there: " + strings.Join(here[:min(len(here), most)], ", ")
	}
	if len(elsewhere) > 0 {
		s += "; elsewhere: " + strings.Join(elsewhere[:min(len(elsewhere), most)], ", ")
	}
	return s, nil
}
