package rbac_test

import (
	"strings"
	"testing"

	"github.com/podkey/podkey/internal/audit"
	"github.com/podkey/podkey/internal/server/rbac"
)

// TestMembersAndOwners: who needs no role is still a known and enabled
// principal of the object's tenant.
func TestMembersAndOwners(t *testing.T) {
	f := newFixture(t)
	const object = "/providers/Microsoft.Directory/applications/x"
	member, other, stranger := f.identity(tenantA), f.identity(tenantA), f.identity(tenantB)
	read := func(p audit.Principal) rbac.Request {
		r := control(p, "Microsoft.Directory/applications/read", object)
		r.Members = true
		return r
	}
	write := func(p audit.Principal) rbac.Request {
		r := control(p, "Microsoft.Directory/applications/write", object)
		r.Owners = []string{strings.ToUpper(member.ObjectID), stranger.ObjectID}
		return r
	}
	f.want(read(member), true)
	f.want(read(stranger), false)
	f.want(read(audit.Principal{}), false)
	f.want(read(audit.Principal{ObjectID: guid(999), TenantID: tenantA}), false)
	f.want(write(member), true)
	f.want(write(other), false)
	f.want(write(stranger), false)
	f.want(control(member, "Microsoft.Directory/applications/write", object), false)
	if g, err := f.Authorize(t.Context(), write(member)); err != nil || g.AssignmentID != "" {
		t.Errorf("%+v %v", g, err)
	}
	if line := f.out.last(t); line["decision"] != "allow" || !strings.Contains(line["reason"], "owns") {
		t.Errorf("%v", line)
	}
	if err := f.directory.EnableServicePrincipal(t.Context(), member.ObjectID, false); err != nil {
		t.Fatal(err)
	}
	f.want(read(member), false)
	f.want(write(member), false)
}
