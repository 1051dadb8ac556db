package connect

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/podkey/podkey/internal/text"
)

// Disconnection is what disconnect found. Identity is nil if there is none any
// more.
type Disconnection struct {
	State
	Vaults []*Vault // those that have a mark for the identity
	Clear  bool     // the vault, if it was made by connect, goes too
}

// SurveyDisconnect reads what there is to undo. The identity is the one named,
// or that of the service account.
func (c *Connection) SurveyDisconnect(ctx context.Context) (*Disconnection, error) {
	r := &c.Request
	d := &Disconnection{State: State{TenantID: c.Cloud.TenantID, SubscriptionID: c.Cloud.SubscriptionID, Objects: c.Cluster != nil && c.Cluster.kube != nil}}
	fail := func(phase string, err error) (*Disconnection, error) {
		if p, ok := errors.AsType[*Problem](err); ok {
			return nil, Problems{p}
		}
		return nil, Problems{{phase, err, ""}}
	}
	var err error
	if d.Objects {
		if d.Account, d.Namespace, err = c.Cluster.account(ctx, r.Namespace, r.Account); err != nil {
			return fail(PhaseAccount, err)
		}
	}
	if r.Identity == "" && r.Application == "" {
		if d.Account == nil || d.Account.Annotations[AnnotationClientID] == "" {
			return fail(PhaseIdentity, &Problem{PhaseIdentity, fmt.Errorf("no service account %s/%s tells which identity is meant", text.Printable(r.Namespace), text.Printable(r.Account)), "give --identity NAME or --application NAME"})
		}
		named := d.Account.Annotations[AnnotationClientID]
		if err := c.identityOf(ctx, d, named); err != nil {
			return fail(PhaseIdentity, err)
		}
	} else if err := c.readIdentity(ctx, &d.State); err != nil {
		return fail(PhaseIdentity, err)
	}
	if d.Identity == nil {
		return d, nil
	}
	if err := c.readIssuer(ctx, &d.State); err != nil && d.Issuer == "" {
		d.IssuerNotes = append(d.IssuerNotes, text.Printable(err.Error()))
	} else if err != nil {
		return fail(PhaseIssuer, err)
	}
	if d.Credentials, err = c.Cloud.credentials(ctx, d.Identity); err != nil {
		return fail(PhaseCredential, err)
	}
	if d.Identity.missing() {
		return d, nil
	}
	if d.Assignments, err = c.Cloud.assignments(ctx, c.Cloud.subscription(), d.Identity.PrincipalID); err != nil {
		return fail(PhasePermission, err)
	}
	every, err := c.Cloud.vaults(ctx)
	if err != nil {
		return fail(PhaseVault, err)
	}
	for i := range every {
		v := every[i].vault()
		named := strings.EqualFold(r.Vault, v.Name) || strings.EqualFold(r.Vault, v.ID)
		_, marked := v.Tags[policyTag(d.Identity.PrincipalID)]
		marked = marked || slices.ContainsFunc(d.Assignments, func(a Assignment) bool { return a.Description == markText && strings.EqualFold(a.Scope, v.ID) })
		if named || marked && r.Vault == "" {
			d.Vaults = append(d.Vaults, v)
		}
	}
	return d, nil
}

// identityOf finds the identity with a client id, of either sort.
func (c *Connection) identityOf(ctx context.Context, d *Disconnection, clientID string) error {
	find := *c
	find.Request.Identity, find.Request.Group = clientID, ""
	if err := find.readIdentity(ctx, &d.State); err != nil || d.Identity != nil {
		return err
	}
	if !isGUID(clientID) {
		return nil
	}
	find.Request.Application = clientID
	return find.readIdentity(ctx, &d.State)
}

// PlanDisconnect decides what is to be undone, from what was found alone.
func (c *Connection) PlanDisconnect(d *Disconnection) (*Plan, error) {
	p := &undoer{r: &c.Request, d: d}
	p.account()
	p.credential()
	p.permission()
	p.identity()
	p.vault()
	return &Plan{Steps: p.steps, Identity: d.Identity, Issuer: d.Issuer, c: c}, p.problems.err()
}

type undoer struct {
	r        *Request
	d        *Disconnection
	steps    []*Step
	problems Problems
	others   int // credentials of the identity that stay
}

func (p *undoer) step(phase, outcome string, detail func() string, actions ...action) *Step {
	st := &Step{Phase: phase, Outcome: outcome, detail: detail, actions: actions}
	if p.r.Skip[phase] {
		*st = Step{Phase: phase, Outcome: Skipped}
	}
	p.steps = append(p.steps, st)
	return st
}

func (p *undoer) account() {
	const phase = PhaseAccount
	ns, name := p.r.Namespace, p.r.Account
	label := ns + "/" + name
	a := p.d.Account
	if a == nil {
		why := " is not there"
		if !p.d.Objects {
			why = " is of the built-in cluster"
		}
		p.step(phase, Known, constant("%s%s", label, why))
		return
	}
	mark, marked := readMark(a)
	if !marked {
		p.step(phase, Kept, constant("%s: connect did not change it", label))
		return
	}
	if id := p.d.Identity; id != nil && mark.Set[AnnotationClientID] != "" && mark.Set[AnnotationClientID] != id.ClientID {
		p.step(phase, Kept, constant("%s: it was connected with another identity, client id %s", label, text.Printable(mark.Set[AnnotationClientID])))
		return
	}
	foreign := slices.ContainsFunc(keysOf(a.Annotations), func(k string) bool {
		_, ours := mark.Set[k]
		return k != markAnnotation && (!ours || a.Annotations[k] != mark.Set[k])
	})
	if mark.Made && !foreign && !a.used {
		p.step(phase, Removed, constant("%s", label), &removeAccount{ns, name, a})
		return
	}
	set := map[string]*string{markAnnotation: nil}
	var notes []string
	for _, k := range keysOf(mark.Set) {
		if a.Annotations[k] != mark.Set[k] {
			notes = append(notes, k+" was changed since, and stays")
			continue
		}
		set[k] = mark.Had[k]
	}
	st := p.step(phase, Changed, constant("%s: its annotations are as before", label), &restoreAccount{ns, name, a, set})
	if mark.Made {
		notes = append(notes, "it was made by connect, but others have added to it: it stays")
	}
	if st.Outcome != Skipped {
		st.Notes = notes
	}
}

func keysOf(m map[string]string) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// noIdentity covers the phases that need the identity when it is not there.
func (p *undoer) noIdentity(phase string) bool {
	if p.d.Identity != nil {
		return false
	}
	p.step(phase, Known, constant("the identity is not there"))
	return true
}

func (p *undoer) credential() {
	const phase = PhaseCredential
	if p.noIdentity(phase) {
		return
	}
	subject := p.r.subject()
	var ours []Credential
	others := 0
	for _, f := range p.d.Credentials {
		if f.Subject == subject && f.Name == CredentialName(f.Issuer, f.Subject) && (p.d.Issuer == "" || f.Issuer == p.d.Issuer) {
			ours = append(ours, f)
		} else {
			others++
		}
	}
	p.others = others
	switch {
	case len(ours) > 1:
		p.problems.addf(phase, "say which with --issuer URL", "%d clusters are connected by credentials for %s, and nothing tells which is meant", len(ours), subject)
	case p.r.Skip[phase]:
		p.others += len(ours)
		p.step(phase, Skipped, nil)
	case len(ours) == 0:
		p.step(phase, Known, constant("%s has none for %s that connect made", p.d.Identity.label(), subject))
	default:
		p.step(phase, Removed, constant("%s", ours[0].Name), &removeCredential{p.d.Identity, ours[0].Name})
	}
}

func (p *undoer) permission() {
	const phase = PhasePermission
	if p.noIdentity(phase) {
		return
	}
	var actions []action
	var what []string
	for _, a := range p.d.Assignments {
		if a.Description == markText && p.ofVault(a.Scope) {
			actions = append(actions, &removeAssignment{a.ID})
			what = append(what, "a role on "+lastOf(a.Scope))
		}
	}
	for _, v := range p.d.Vaults {
		record := parsePermissions(v.Tags[policyTag(p.d.Identity.PrincipalID)])
		have := policyOf(v, p.d.Identity)
		if take := record.both(&have); !record.Empty() {
			stay := have.minus(&take)
			actions = append(actions, &removePolicy{vault: v, id: p.d.Identity, take: take, all: stay, whole: stay.Empty()})
			what = append(what, record.String()+" on "+v.Name)
		}
	}
	switch {
	case len(actions) == 0:
		p.step(phase, Known, constant("connect gave none"))
	case p.others > 0:
		p.step(phase, Kept, constant("%s: %s", strings.Join(what, ", "), p.inUse()))
	default:
		p.step(phase, Removed, constant("%s", strings.Join(what, ", ")), actions...)
	}
}

// ofVault reports whether a scope is in question: any, or the vault named.
func (p *undoer) ofVault(scope string) bool {
	return p.r.Vault == "" || strings.EqualFold(lastOf(scope), lastOf(p.r.Vault))
}

func lastOf(id string) string { return id[strings.LastIndex(id, "/")+1:] }

func (p *undoer) inUse() string {
	return fmt.Sprintf("%d other federated credentials of the identity use it", p.others)
}

func (p *undoer) identity() {
	const phase = PhaseIdentity
	if p.noIdentity(phase) {
		return
	}
	id := p.d.Identity
	foreign := 0
	for _, a := range p.d.Assignments {
		if a.Description != markText || !p.ofVault(a.Scope) {
			foreign++
		}
	}
	switch {
	case !id.made:
		p.step(phase, Kept, constant("%s: connect did not make it", id.label()))
	case p.others > 0:
		p.step(phase, Kept, constant("%s: %s", id.label(), p.inUse()))
	case foreign > 0:
		p.step(phase, Kept, constant("%s: it has %d other roles", id.label(), foreign))
	case p.r.Skip[PhasePermission]:
		p.step(phase, Kept, constant("%s: its permission is kept", id.label()))
	default:
		p.step(phase, Removed, constant("%s", id.label()), &removeIdentity{id})
	}
}

// vault keeps vaults: what is in them is not connect's.
func (p *undoer) vault() {
	const phase = PhaseVault
	i := slices.IndexFunc(p.d.Vaults, func(v *Vault) bool { return v.Tags[markTag] == markMade })
	switch {
	case i < 0:
		p.step(phase, Kept, constant("connect made none that is named here"))
	case !p.d.Clear:
		v := p.d.Vaults[i]
		st := p.step(phase, Kept, constant("%s: it may hold what others need", text.Printable(v.Name)))
		if st.Outcome != Skipped {
			st.Notes = []string{"if nobody needs it: add --delete-vault, or " + (&removeVault{v}).commands(nil)[0]}
		}
	default:
		v := p.d.Vaults[i]
		p.step(phase, Removed, constant("%s (softly: az keyvault recover --name %s)", text.Printable(v.Name), quote(v.Name)), &removeVault{v})
	}
}
