package connect

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/podkey/podkey/internal/text"
)

// Outcomes of phases.
const (
	Exists  = "exists"
	Made    = "made"
	Changed = "changed"
	Removed = "removed"
	Kept    = "kept"
	Skipped = "skipped"
	Known   = "known" // found out, where there is nothing to make
)

// Step is one phase of a plan.
type Step struct {
	Phase   string
	Outcome string
	Notes   []string

	detail  func() string // asked when the phase was done
	actions []action
}

// Detail says what the outcome is about.
func (s *Step) Detail() string {
	if s.detail == nil {
		return ""
	}
	return s.detail()
}

// Plan is what is to be done, in order.
type Plan struct {
	Steps    []*Step
	Identity *Identity
	Vault    *Vault
	Issuer   string

	c    *Connection
	took map[string]time.Duration // by the survey
}

// action is one change: done by requests, or shown as the commands that do
// the same.
type action interface {
	do(ctx context.Context, c *Connection) error
	commands(c *Connection) []string
}

func constant(format string, args ...any) func() string {
	s := fmt.Sprintf(format, args...)
	return func() string { return s }
}

// Plan decides what is to be done, from the state alone. The problems of all
// phases are found before anything is done.
func (c *Connection) Plan(s *State) (*Plan, error) {
	p := &planner{r: &c.Request, s: s, problems: slices.Clone(s.problems)}
	p.group()
	p.identity()
	p.vault()
	p.permission()
	p.issuer()
	p.credential()
	p.account()
	p.check()
	out := &Plan{Steps: p.steps, Identity: p.id, Vault: p.v, Issuer: s.Issuer, c: c, took: s.took}
	return out, p.problems.err()
}

// planner plans one phase after the other. id and v are what later phases
// work with: there already, or to be made.
type planner struct {
	r        *Request
	s        *State
	id       *Identity
	v        *Vault
	steps    []*Step
	problems Problems
}

// step adds a phase; nil if it is skipped, or cannot be planned because of a
// problem of its own.
func (p *planner) step(phase, outcome string, detail func() string) *Step {
	st := &Step{Phase: phase, Outcome: outcome, detail: detail}
	if p.r.Skip[phase] {
		st.Outcome, st.detail = Skipped, nil
	}
	p.steps = append(p.steps, st)
	return st
}

func (p *planner) failed(phase string) bool {
	return slices.ContainsFunc(p.problems, func(x *Problem) bool { return x.Phase == phase })
}

// blocked reports that there is nothing to plan for a phase: it is skipped, or
// something that was reported already stands in its way.
func (p *planner) blocked(phase string, needs ...string) bool {
	if p.r.Skip[phase] {
		p.step(phase, Skipped, nil)
		return true
	}
	return p.failed(phase) || slices.ContainsFunc(needs, p.failed)
}

func (p *planner) location() string {
	if p.r.Location != "" || p.s.Group == nil {
		return p.r.Location
	}
	return p.s.Group.Location
}

func (p *planner) group() {
	if p.blocked(PhaseGroup) {
		return
	}
	switch {
	case p.r.Group == "":
		p.step(PhaseGroup, Known, constant("that of the identity and of the vault"))
	case p.s.Group == nil:
		p.problems.addf(PhaseGroup, "az group create --name "+quote(p.r.Group)+" --location westeurope", "there is no resource group %s", text.Printable(p.r.Group))
	default:
		p.step(PhaseGroup, Exists, constant("%s in %s", text.Printable(p.s.Group.Name), p.s.Group.Location))
	}
}

func (p *planner) identity() {
	const phase = PhaseIdentity
	p.id = p.s.Identity
	if p.blocked(phase, PhaseGroup) {
		return
	}
	r := p.r
	switch {
	case r.Identity == "" && r.Application == "":
		p.problems.addf(phase, "give --identity NAME or --application NAME", "no identity is named")
	case p.id != nil && !p.id.missing():
		p.step(phase, Exists, p.id.label)
	case p.id != nil: // an application without service principal
		p.make(phase, &makeApplication{id: p.id, principalOnly: true})
	case !r.Create:
		what, hint := "managed identity "+r.Identity, "add --create to have it made"
		if r.Application != "" {
			what = "application " + r.Application
		} else if r.Group == "" {
			hint += ", with -g GROUP to say where"
		} else {
			what += " in the resource group " + r.Group
		}
		p.problems.addf(phase, hint, "there is no %s", text.Printable(what))
	case r.Application != "":
		if isGUID(r.Application) {
			p.problems.addf(phase, "give the name of the application that is to be made", "there is no application with the client id %s", r.Application)
			return
		}
		p.id = &Identity{Application: true, Name: r.Application, TenantID: p.s.TenantID}
		p.make(phase, &makeApplication{id: p.id})
	case r.Group == "" || isGUID(r.Identity):
		p.problems.addf(phase, "give its name, and -g GROUP", "to make a managed identity takes a name and a resource group")
	default:
		p.id = &Identity{
			ID:   "/subscriptions/" + p.s.SubscriptionID + "/resourceGroups/" + r.Group + typeIdentity + "/" + r.Identity,
			Name: r.Identity, Group: r.Group, Location: p.location(), TenantID: p.s.TenantID,
		}
		p.make(phase, &makeIdentity{p.id})
	}
}

func (p *planner) make(phase string, a action) {
	st := p.step(phase, Made, p.id.label)
	st.actions = []action{a}
}

func (p *planner) vault() {
	const phase = PhaseVault
	p.v = p.s.Vault
	if p.blocked(phase, PhaseGroup) {
		return
	}
	r := p.r
	label := func() string {
		model := "access policies"
		if p.v.RBAC {
			model = "roles"
		}
		return text.Printable(p.v.Name) + " (" + model + ")"
	}
	switch {
	case r.Vault == "":
		p.problems.addf(phase, "give --vault NAME", "no vault is named")
	case p.v != nil:
		p.step(phase, Exists, label)
	case !r.Create:
		p.problems.addf(phase, "add --create to have it made; if it was deleted: az keyvault recover --name "+quote(r.Vault), "there is no vault %s", text.Printable(r.Vault))
	case r.Group == "":
		p.problems.addf(phase, "say where with -g GROUP", "to make a vault takes a resource group")
	default:
		p.v = &Vault{
			ID:   "/subscriptions/" + p.s.SubscriptionID + "/resourceGroups/" + r.Group + typeVault + "/" + r.Vault,
			Name: r.Vault, Group: r.Group, Location: p.location(), TenantID: p.s.TenantID, RBAC: !r.Policies,
		}
		st := p.step(phase, Made, label)
		st.Notes = append(st.Notes, "it is empty; who is to fill it needs a role such as Key Vault Secrets Officer on it")
		st.actions = []action{&makeVault{p.v}}
	}
}

// parties reports that identity and vault are known to a phase.
func (p *planner) parties(phase string, vault bool) bool {
	if p.id == nil {
		if !p.failed(PhaseIdentity) {
			p.problems.addf(phase, "do not skip "+PhaseIdentity, "there is no identity, and the phase that makes it is skipped")
		}
		return false
	}
	if vault && p.v == nil {
		if !p.failed(PhaseVault) {
			p.problems.addf(phase, "give --vault NAME, and do not skip "+PhaseVault, "there is no vault, and the phase that makes it is skipped")
		}
		return false
	}
	return true
}

func (p *planner) permission() {
	const phase = PhasePermission
	if p.blocked(phase, PhaseGroup) || !p.parties(phase, true) {
		return
	}
	want, err := p.r.Want.Normal()
	switch {
	case err != nil:
		p.problems.add(phase, "", err)
	case want.Empty():
		p.problems.addf(phase, "for example --secrets get,list", "no permission is asked for")
	case p.v.RBAC:
		p.roles(want)
	default:
		p.policy(want)
	}
}

func (p *planner) roles(want Permissions) {
	const phase = PhasePermission
	given, by := grantedBy(p.s.Assignments, p.v.ID)
	left := want.minus(&given)
	if left.Empty() {
		p.step(phase, Exists, constant("%s by %s", want, strings.Join(by, ", ")))
		return
	}
	roles, more := RolesFor(left)
	var names []string
	for _, r := range roles {
		names = append(names, r.Name)
	}
	st := p.step(phase, Made, constant("%s on %s", strings.Join(names, ", "), text.Printable(p.v.Name)))
	if more = more.minus(&given); !more.Empty() {
		st.Notes = append(st.Notes, "there is no built-in role for exactly "+left.String()+": these also give "+more.String())
	}
	for _, r := range roles {
		st.actions = append(st.actions, &assignRole{scope: p.v.ID, role: r, id: p.id})
	}
}

// policyOf is what an access policy gives a principal now.
func policyOf(v *Vault, id *Identity) Permissions {
	for _, have := range v.Policies {
		if strings.EqualFold(have.ObjectID, id.PrincipalID) && have.ApplicationID == "" && !id.missing() {
			return have.Permissions
		}
	}
	return Permissions{}
}

func (p *planner) policy(want Permissions) {
	have := policyOf(p.v, p.id)
	left := want.minus(&have)
	if left.Empty() {
		p.step(PhasePermission, Exists, constant("%s by access policy", want))
		return
	}
	outcome := Made
	if !have.Empty() {
		outcome = Changed
	}
	before := parsePermissions(p.v.Tags[policyTag(p.id.PrincipalID)])
	st := p.step(PhasePermission, outcome, constant("access policy on %s gives %s", text.Printable(p.v.Name), have.union(&want)))
	st.actions = []action{&addPolicy{vault: p.v, id: p.id, add: left, all: have.union(&want), record: before.union(&left)}}
}

// policyTag is the vault's tag that tells what connect added to the access
// policy of a principal.
func policyTag(principal string) string { return markTag + "-" + strings.ToLower(principal) }

func (p *planner) issuer() {
	if p.blocked(PhaseIssuer) {
		return
	}
	if p.s.Issuer == "" {
		p.problems.addf(PhaseIssuer, "give --issuer URL, or a cluster", "nothing tells the issuer of the service account's tokens")
		return
	}
	st := p.step(PhaseIssuer, Known, constant("%s (%s)", text.Printable(p.s.Issuer), p.s.IssuerSource))
	st.Notes = p.s.IssuerNotes
}

func (p *planner) credential() {
	const phase = PhaseCredential
	if p.blocked(phase, PhaseIssuer, PhaseGroup) || !p.parties(phase, false) {
		return
	}
	if p.s.Issuer == "" {
		p.problems.addf(phase, "give --issuer URL", "nothing tells the issuer of the service account's tokens")
		return
	}
	issuer, subject, audience := p.s.Issuer, p.r.subject(), p.r.audience()
	want := Credential{Name: CredentialName(issuer, subject), Issuer: issuer, Subject: subject, Audiences: []string{audience}}
	if p.id.Application {
		want.Description = markText
	}
	var notes []string
	for _, have := range p.s.Credentials {
		name := text.Printable(have.Name)
		switch {
		case have.Issuer == issuer && have.Subject == subject && slices.Equal(have.Audiences, want.Audiences):
			p.step(phase, Exists, constant("%s trusts %s", name, subject))
			return
		case have.Issuer == issuer && have.Subject == subject:
			p.problems.addf(phase, "give --audience as it is there, or remove it: "+(&removeCredential{p.id, have.Name}).line(),
				"the credential %s trusts this service account for the audience %s, not %s, and there can be no second one for it", name, printableList(have.Audiences), text.Printable(audience))
			return
		case strings.EqualFold(have.Name, want.Name):
			p.problems.addf(phase, "remove it: "+(&removeCredential{p.id, have.Name}).line(), "a credential for something else has the name %s", name)
			return
		case have.Subject == subject && strings.TrimRight(have.Issuer, "/") == strings.TrimRight(issuer, "/"):
			notes = append(notes, "the credential "+name+" never matches: its issuer differs from the cluster's by the slash at the end")
		case have.Issuer == issuer && strings.EqualFold(have.Subject, subject):
			notes = append(notes, "the credential "+name+" never matches: its subject differs in upper and lower case")
		}
	}
	if len(p.s.Credentials) >= MaxCredentials {
		p.problems.addf(phase, "remove one that is not needed, or use another identity for this service account", "%s has %d federated credentials, and there can be no more", p.id.label(), len(p.s.Credentials))
		return
	}
	st := p.step(phase, Made, constant("%s trusts %s", want.Name, subject))
	st.Notes = notes
	st.actions = []action{&makeCredential{p.id, want}}
}

// accountMark is the annotation of a service account that tells what connect
// did to it.
type accountMark struct {
	Made bool               `json:"made,omitempty"`
	Had  map[string]*string `json:"had,omitempty"` // what an annotation was before; null: not there
	Set  map[string]string  `json:"set,omitempty"` // what it was set to
}

func readMark(a *Account) (m accountMark, marked bool) {
	raw, marked := a.Annotations[markAnnotation]
	_ = json.Unmarshal([]byte(raw), &m) // not ours then: nothing is undone by it
	ours := func(key string) bool { return key == AnnotationClientID || key == AnnotationTenantID }
	maps.DeleteFunc(m.Had, func(k string, _ *string) bool { return !ours(k) })
	maps.DeleteFunc(m.Set, func(k, _ string) bool { return !ours(k) })
	if m.Had == nil {
		m.Had = map[string]*string{}
	}
	if m.Set == nil {
		m.Set = map[string]string{}
	}
	return m, marked
}

func (m accountMark) String() string {
	b, _ := json.Marshal(m) // strings and booleans only
	return string(b)
}

func (p *planner) account() {
	const phase = PhaseAccount
	if p.blocked(phase, PhaseGroup) || !p.parties(phase, false) {
		return
	}
	ns, name := p.r.Namespace, p.r.Account
	label := constant("%s/%s", ns, name)
	if !p.s.Objects {
		p.step(phase, Exists, constant("%s/%s (the built-in cluster has every service account)", ns, name))
		return
	}
	st := &Step{Phase: phase, detail: label}
	if p.s.Account == nil {
		if !p.s.Namespace && !p.r.Create {
			p.problems.addf(phase, "add --create to have it made, or: kubectl create namespace "+quote(ns), "there is no namespace %s", text.Printable(ns))
			return
		}
		if !p.s.Namespace {
			st.actions = append(st.actions, &makeNamespace{ns})
			st.Notes = append(st.Notes, "its namespace too")
		}
		st.Outcome = Made
		st.actions = append(st.actions, &makeAccount{ns: ns, name: name, id: p.id, tenant: p.id.TenantID != p.s.TenantID})
		p.steps = append(p.steps, st)
		return
	}
	have := p.s.Account
	want := map[string]string{AnnotationClientID: p.id.ClientID}
	if t := have.Annotations[AnnotationTenantID]; t != p.id.TenantID && (t != "" || p.id.TenantID != p.s.TenantID) {
		want[AnnotationTenantID] = p.id.TenantID
	}
	mark, _ := readMark(have)
	change := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(want)) {
		old, there := have.Annotations[key]
		if there && old == want[key] && old != "" {
			continue
		}
		if there && old != "" && !p.r.Replace {
			p.problems.addf(phase, "if it is to change, add --replace; podkey disconnect puts it back", "the service account %s/%s has %s: %s already, for another identity than %s", ns, name, key, text.Printable(old), p.id.label())
			return
		}
		change[key] = want[key]
		if _, ours := mark.Set[key]; !ours || mark.Set[key] != old {
			mark.Had[key] = nil
			if there {
				mark.Had[key] = &old
			}
		}
	}
	if len(change) == 0 {
		st.Outcome = Exists
		p.steps = append(p.steps, st)
		return
	}
	st.Outcome = Changed
	st.actions = []action{&annotateAccount{ns: ns, name: name, version: have.ResourceVersion, id: p.id, keys: slices.Sorted(maps.Keys(change)), mark: mark, replace: p.r.Replace}}
	p.steps = append(p.steps, st)
}

func (p *planner) check() {
	if p.blocked(PhaseCheck) {
		return
	}
	p.step(PhaseCheck, Known, constant("what the pods' template must have is below"))
}

// Report is told of each phase when it is done.
type Report func(s *Step, took time.Duration)

// Changes reports whether there is anything to do.
func (p *Plan) Changes() bool {
	return slices.ContainsFunc(p.Steps, func(s *Step) bool { return len(s.actions) > 0 })
}

// Do does what is planned. It stops at the first failure; what was done until
// then stays, and the same command goes on from there.
func (p *Plan) Do(ctx context.Context, report Report) error {
	for _, s := range p.Steps {
		start := p.c.now()
		for _, a := range s.actions {
			if err := p.c.persist(ctx, func() error { return a.do(ctx, p.c) }); err != nil {
				return &Problem{s.Phase, err, "what was done until now stays; the same command goes on from here"}
			}
		}
		report(s, p.took[s.Phase]+p.c.now().Sub(start))
	}
	return nil
}

// Tries of what fails until a cloud has copied what was made a moment ago.
const (
	tries    = 7
	tryAgain = 5 * time.Second
)

// persist tries again where Azure has not yet seen everywhere what was just
// made, or works on another change of the same thing.
func (c *Connection) persist(ctx context.Context, do func() error) error {
	for n := 1; ; n++ {
		err := do()
		if n == tries || c.Cloud.Podkey || !isRefusal(err, "PrincipalNotFound", "Request_ResourceNotFound", "NoBackingResource",
			"ConcurrentFederatedIdentityCredentialsWritesForSingleManagedIdentity") {
			return err
		}
		if err := c.wait(ctx, tryAgain); err != nil {
			return err
		}
	}
}

// toDo is an outcome before it has come.
func toDo(outcome string) string {
	switch outcome {
	case Made:
		return "to be made"
	case Changed:
		return "to be changed"
	case Removed:
		return "to be removed"
	}
	return outcome
}

// Commands is the plan as a script of az and kubectl, for a POSIX shell.
func (p *Plan) Commands() string {
	var b strings.Builder
	if p.c.Cloud.Podkey {
		b.WriteString("# The Podkey server is reached by: podkey exec -- sh\n")
	}
	if p.Changes() {
		b.WriteString(words("az", "account", "set", "--subscription", p.c.Cloud.SubscriptionID) + "\n")
	}
	for _, s := range p.Steps {
		fmt.Fprintf(&b, "\n# %s: %s", s.Phase, toDo(s.Outcome))
		if d := s.Detail(); d != "" {
			b.WriteString(", " + text.Printable(d)) // one line: what follows is run
		}
		b.WriteByte('\n')
		for _, n := range s.Notes {
			b.WriteString("#   " + text.Printable(n) + "\n")
		}
		for _, a := range s.actions {
			for _, line := range a.commands(p.c) {
				b.WriteString(line + "\n")
			}
		}
	}
	return b.String()
}
