package connect

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/podkey/podkey/internal/text"
)

// Request says what is to be connected.
type Request struct {
	Namespace, Account string
	Identity           string // name, client id or resource id of a managed identity
	Application        string // or name or client id of an application
	Group              string // resource group of what is named only
	Location           string // of what is made; that of the group if empty
	Vault              string // name or resource id
	Policies           bool   // a vault that is made has access policies, not roles
	Want               Permissions
	Issuer             string // else that of ManagedCluster, else the API server's own
	ManagedCluster     string // name or resource id of a managed cluster
	Audience           string // [Audience] if empty
	Create             bool   // what is missing may be made
	Replace            bool   // a service account may change its identity
	Skip               map[string]bool
	CheckSecret        string // read by the proof; if empty, one that is not there is asked for
}

// Connection is a request with where it is to be done.
type Connection struct {
	Cloud   *Cloud
	Cluster *Cluster // may be nil if no phase needs it
	Request Request

	Now  func() time.Time                                 // clock; time.Now if nil
	Wait func(ctx context.Context, d time.Duration) error // between tries; real time if nil
}

func (c *Connection) now() time.Time {
	if c.Now != nil {
		return c.Now()
	}
	return time.Now()
}

func (c *Connection) wait(ctx context.Context, d time.Duration) error {
	if c.Wait != nil {
		return c.Wait(ctx, d)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *Request) audience() string {
	if r.Audience != "" {
		return r.Audience
	}
	return Audience
}

func (r *Request) subject() string { return Subject(r.Namespace, r.Account) }

// does reports whether one of the phases is to be done.
func (r *Request) does(phases ...string) bool {
	for _, p := range phases {
		if !r.Skip[p] {
			return true
		}
	}
	return false
}

// State is what there is, as far as the request's phases need to know. It is
// all that a plan is made from.
type State struct {
	TenantID       string // of who signs in
	SubscriptionID string

	Group       *resource // nil if there is none of that name, or none was named
	Identity    *Identity // nil if there is none
	Credentials []Credential
	Vault       *Vault // nil if there is none
	Assignments []Assignment

	Issuer       string // of the service account's tokens
	IssuerSource string // who says so
	IssuerNotes  []string

	Namespace bool
	Account   *Account // nil if there is none
	Objects   bool     // the cluster has objects: it is not the built-in one

	problems Problems
	took     map[string]time.Duration
}

// Survey reads what there is. What it cannot find out is a problem of the
// phase that needs it, which Plan reports with all others.
func (c *Connection) Survey(ctx context.Context) *State {
	s := &State{
		TenantID: c.Cloud.TenantID, SubscriptionID: c.Cloud.SubscriptionID,
		Objects: c.Cluster != nil && c.Cluster.kube != nil, took: map[string]time.Duration{},
	}
	r := &c.Request
	section := func(phase string, needed bool, read func() error) {
		if !needed {
			return
		}
		start := c.now()
		err := read()
		s.took[phase] += c.now().Sub(start)
		if p, ok := errors.AsType[*Problem](err); ok {
			s.problems = append(s.problems, p)
		} else {
			s.problems.add(phase, "", err)
		}
	}
	section(PhaseGroup, r.Group != "" && r.does(PhaseGroup, PhaseIdentity, PhaseVault), func() error { return c.readGroup(ctx, s) })
	section(PhaseIdentity, r.does(PhaseIdentity, PhasePermission, PhaseCredential, PhaseAccount, PhaseCheck), func() error { return c.readIdentity(ctx, s) })
	section(PhaseVault, r.Vault != "" && r.does(PhaseVault, PhasePermission, PhaseCheck), func() error { return c.readVault(ctx, s) })
	section(PhasePermission, s.Identity != nil && !s.Identity.missing() && s.Vault != nil && s.Vault.RBAC && r.does(PhasePermission), func() (err error) {
		s.Assignments, err = c.Cloud.assignments(ctx, s.Vault.ID, s.Identity.PrincipalID)
		return err
	})
	section(PhaseIssuer, r.does(PhaseIssuer, PhaseCredential), func() error { return c.readIssuer(ctx, s) })
	section(PhaseCredential, s.Identity != nil && r.does(PhaseCredential), func() (err error) {
		s.Credentials, err = c.Cloud.credentials(ctx, s.Identity)
		return err
	})
	section(PhaseAccount, s.Objects && r.does(PhaseAccount), func() (err error) {
		s.Account, s.Namespace, err = c.Cluster.account(ctx, r.Namespace, r.Account)
		return err
	})
	return s
}

func (c *Connection) readGroup(ctx context.Context, s *State) error {
	var g resource
	err := c.Cloud.manage(ctx, http.MethodGet, c.Cloud.groupPath(c.Request.Group), versionGroup, nil, &g)
	if isMissing(err) {
		return nil
	}
	if err == nil {
		s.Group = &g
	}
	return err
}

func (c *Connection) readIdentity(ctx context.Context, s *State) (err error) {
	r := &c.Request
	switch {
	case r.Application != "":
		s.Identity, err = c.Cloud.application(ctx, r.Application)
		return err
	case strings.HasPrefix(r.Identity, "/"):
		var w wireIdentity
		err := c.Cloud.manage(ctx, http.MethodGet, r.Identity, versionIdentity, nil, &w)
		if isMissing(err) {
			return &Problem{PhaseIdentity, fmt.Errorf("there is no managed identity %s", text.Printable(r.Identity)), "az identity list --query [].id"}
		}
		s.Identity = w.identity()
		return err
	case r.Identity == "":
		return nil // Plan says so
	}
	every, err := c.Cloud.identities(ctx)
	if err != nil {
		return err
	}
	var found []*Identity
	for i := range every {
		id := every[i].identity()
		named := strings.EqualFold(id.Name, r.Identity) && (r.Group == "" || strings.EqualFold(id.Group, r.Group))
		if named || strings.EqualFold(id.ClientID, r.Identity) {
			found = append(found, id)
		}
	}
	if len(found) > 1 {
		var groups []string
		for _, id := range found {
			groups = append(groups, id.Group)
		}
		return &Problem{PhaseIdentity, fmt.Errorf("%d managed identities are named %s, in the resource groups %s", len(found), text.Printable(r.Identity), printableList(groups)), "say which with -g GROUP"}
	}
	if len(found) == 1 {
		s.Identity = found[0]
	}
	return nil
}

func (c *Connection) readVault(ctx context.Context, s *State) error {
	r := &c.Request
	if strings.HasPrefix(r.Vault, "/") {
		var w wireVault
		err := c.Cloud.manage(ctx, http.MethodGet, r.Vault, versionVault, nil, &w)
		if isMissing(err) {
			return &Problem{PhaseVault, fmt.Errorf("there is no vault %s", text.Printable(r.Vault)), "az keyvault list --query [].id"}
		}
		s.Vault = w.vault()
		return err
	}
	every, err := c.Cloud.vaults(ctx)
	if err != nil {
		return err
	}
	for i := range every {
		if strings.EqualFold(every[i].Name, r.Vault) { // names are unique in a cloud
			s.Vault = every[i].vault()
		}
	}
	return nil
}

// readIssuer finds the issuer. It must be the one of the cluster's tokens to
// the last byte, so whatever else tells it is compared with the cluster's own
// word, where that can be had.
func (c *Connection) readIssuer(ctx context.Context, s *State) error {
	r := &c.Request
	s.Issuer, s.IssuerSource = r.Issuer, "as given"
	if r.ManagedCluster != "" {
		id := r.ManagedCluster
		if !strings.HasPrefix(id, "/") {
			if r.Group == "" {
				return &Problem{PhaseIssuer, errors.New("a managed cluster is named, but not its resource group"), "say which with -g GROUP, or give the cluster's resource id"}
			}
			id = c.Cloud.groupPath(r.Group) + "/providers/Microsoft.ContainerService/managedClusters/" + id
		}
		issuer, err := c.Cloud.clusterIssuer(ctx, id)
		if isMissing(err) {
			return &Problem{PhaseIssuer, fmt.Errorf("there is no managed cluster %s", text.Printable(r.ManagedCluster)), "podkey cluster list, or az aks list -o table"}
		}
		if err != nil {
			return err
		}
		if err := sameIssuer(issuer, "the managed cluster's", s.Issuer); err != nil {
			return err
		}
		s.Issuer, s.IssuerSource = issuer, "of the managed cluster"
	}
	if c.Cluster == nil {
		return nil
	}
	own, err := c.Cluster.discover(ctx)
	switch {
	case err != nil && s.Issuer == "":
		return &Problem{PhaseIssuer, err, "give it by --issuer URL: kubectl get --raw /.well-known/openid-configuration, as somebody who may"}
	case err != nil:
		s.IssuerNotes = append(s.IssuerNotes, "not compared with the cluster's own word: "+text.Printable(err.Error()))
		return nil
	}
	if err := sameIssuer(own, "the API server's", s.Issuer); err != nil {
		return err
	}
	if s.Issuer == "" {
		s.IssuerSource = "by the API server"
	}
	s.Issuer = own
	return nil
}

// sameIssuer compares what a cluster says with what was given, if anything.
func sameIssuer(right, whose, given string) error {
	if given == "" || given == right {
		return nil
	}
	differ := ""
	if strings.TrimRight(given, "/") == strings.TrimRight(right, "/") {
		differ = ": they differ by the slash at the end, and that counts"
	}
	return &Problem{PhaseIssuer, fmt.Errorf("the issuer %s is not %s, %s%s", text.Printable(given), whose, text.Printable(right), differ),
		"leave --issuer out, or give it as the cluster says: --issuer " + quote(right)}
}
