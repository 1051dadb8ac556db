package directory

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
)

// Presented is what an assertion says of itself, before anything of it has
// been believed.
type Presented struct {
	Issuer    string
	Subject   string
	Audiences []string // the aud claim: one or several

	// Claims are all claims as a JSON object, for credentials with an
	// expression; without it such a credential sees the subject alone.
	Claims []byte

	decoded map[string]json.RawMessage // of Claims, once they were needed
}

// claim returns a claim that is a text.
func (p *Presented) claim(name string) (text string, ok bool) {
	if name == "sub" {
		return p.Subject, true
	}
	if p.decoded == nil && json.Unmarshal(p.Claims, &p.decoded) != nil {
		return "", false
	}
	raw := p.decoded[name]
	if len(raw) == 0 || raw[0] != '"' || json.Unmarshal(raw, &text) != nil {
		return "", false
	}
	return text, true
}

// Fields of a federated credential, in the order in which they are compared.
const (
	FieldIssuer   = "issuer"
	FieldSubject  = "subject"
	FieldAudience = "audience"
)

// Mismatch says why no credential matches an assertion. It is for the
// operator; of it, the client learns Field and the values that it presented.
type Mismatch struct {
	Field string // the first field that no credential gets past; empty if there are no credentials at all

	// Nearest is the credential that comes nearest among those that get as far
	// as any; Expected and Found are its and the assertion's value of Field.
	Nearest  FederatedCredential
	Expected string
	Found    string
	Hint     string   // how the two values relate, one of the Hint constants or empty
	Differs  []string // every field in which Nearest differs, in order of comparison
}

// Hints: the mistakes that people make, and that are hard to see.
const (
	HintSlash = "they differ only by a closing slash"
	HintCase  = "they differ only in upper and lower case"
	HintBlank = "they differ only by blanks at an end"
)

// Match finds the credential that an assertion satisfies: issuer, subject and
// one of the audiences must be equal to the credential's, byte for byte; in
// place of the subject, a credential may have an expression that must hold. An
// assertion with several audiences satisfies it with any of them, as usual
// for tokens. cs must be one owner's credentials; at most one without
// expression then matches.
func Match(cs []FederatedCredential, p Presented) (FederatedCredential, bool) {
	for _, c := range cs {
		if matches(&c, &p) {
			return c, true
		}
	}
	return FederatedCredential{}, false
}

func matches(c *FederatedCredential, p *Presented) bool {
	return c.Issuer == p.Issuer && matchesSubject(c, p) &&
		len(c.Audiences) == 1 && slices.Contains(p.Audiences, c.Audiences[0])
}

// matchesSubject compares the subject, or asks the expression that a
// credential has instead. An expression that cannot be read holds of nothing.
func matchesSubject(c *FederatedCredential, p *Presented) bool {
	if c.Expression == "" {
		return c.Subject == p.Subject
	}
	e, err := ParseExpression(c.Expression)
	return err == nil && e.Holds(p.claim)
}

// Nearest explains why [Match] found nothing among cs: it names the first
// field, in the order issuer, subject, audience, that no credential gets
// past, and the credential that comes nearest. If one does match, the result
// is the zero Mismatch. It reads each credential a few times whatever is
// presented, so a hostile assertion cannot make it slow.
func Nearest(cs []FederatedCredential, p Presented) Mismatch {
	var best Mismatch
	var bestRank rank
	for _, c := range cs {
		m := mismatch(&c, &p)
		if m.Field == "" {
			return Mismatch{}
		}
		if r := m.rank(); best.Field == "" || r.before(bestRank) {
			best, bestRank = m, r
		}
	}
	return best
}

// mismatch compares one credential; Field is empty if it matches.
func mismatch(c *FederatedCredential, p *Presented) Mismatch {
	m := Mismatch{Nearest: *c}
	differs := func(field, expected, found string) {
		if m.Field == "" {
			m.Field, m.Expected, m.Found, m.Hint = field, expected, found, hint(expected, found)
		}
		m.Differs = append(m.Differs, field)
	}
	if c.Issuer != p.Issuer {
		differs(FieldIssuer, c.Issuer, p.Issuer)
	}
	if !matchesSubject(c, p) {
		differs(FieldSubject, c.Subject+c.Expression, p.Subject) // it has one of the two
	}
	want := strings.Join(c.Audiences, ", ")
	if len(c.Audiences) != 1 || !slices.Contains(p.Audiences, want) {
		differs(FieldAudience, want, strings.Join(p.Audiences, ", "))
	}
	return m
}

// rank orders mismatches: smaller is nearer in each member, the first member
// that differs decides.
type rank struct {
	reached  int // 0 if only the audience is wrong, 2 if the issuer is
	fields   int // number of fields that differ
	hint     int // 0 if the values differ by a mistake we know
	distance int // bytes between the common beginning and the common end
	name     string
}

func (m *Mismatch) rank() rank {
	r := rank{fields: len(m.Differs), hint: 1, distance: distance(m.Expected, m.Found), name: m.Nearest.Name}
	switch m.Field {
	case FieldIssuer:
		r.reached = 2
	case FieldSubject:
		r.reached = 1
	}
	if m.Hint != "" {
		r.hint = 0
	}
	return r
}

func (r rank) before(o rank) bool {
	switch {
	case r.reached != o.reached:
		return r.reached < o.reached
	case r.fields != o.fields:
		return r.fields < o.fields
	case r.hint != o.hint:
		return r.hint < o.hint
	case r.distance != o.distance:
		return r.distance < o.distance
	}
	return r.name < o.name
}

func hint(a, b string) string {
	switch {
	case strings.TrimSuffix(a, "/") == strings.TrimSuffix(b, "/"):
		return HintSlash
	case strings.EqualFold(a, b):
		return HintCase
	case strings.TrimSpace(a) == strings.TrimSpace(b):
		return HintBlank
	}
	return ""
}

// distance is how many bytes of the longer text lie between the beginning and
// the end that both have in common. An edit distance would cost the product
// of the lengths, and one of the texts is the caller's.
func distance(a, b string) int {
	longer := max(len(a), len(b))
	n := min(len(a), len(b))
	i := 0
	for i < n && a[i] == b[i] {
		i++
	}
	j := 0
	for j < n-i && a[len(a)-1-j] == b[len(b)-1-j] {
		j++
	}
	return longer - i - j
}

// MatchFederated is [Match] over the stored credentials of an owner (object
// id of an application, principal id of a managed identity). If none matches,
// the mismatch is not nil and explains it.
func (d *Directory) MatchFederated(ctx context.Context, owner string, p Presented) (FederatedCredential, *Mismatch, error) {
	id, _ := CanonicalID(owner)
	recs, err := d.federated.Find(ctx, "assertion", assertionKey(id, p.Issuer, p.Subject))
	if err != nil {
		return FederatedCredential{}, nil, err
	}
	if c, ok := matching(recs, id, &p); ok {
		return c, nil, nil
	}
	// Those with an expression have no subject.
	if recs, err = d.federated.Find(ctx, "assertion", assertionKey(id, p.Issuer, "")); err != nil {
		return FederatedCredential{}, nil, err
	}
	if c, ok := matching(recs, id, &p); ok {
		return c, nil, nil
	}
	all, err := d.FederatedAll(ctx, id)
	if err != nil {
		return FederatedCredential{}, nil, err
	}
	// One written since the first look counts.
	if c, ok := Match(all, p); ok {
		return c, nil, nil
	}
	m := Nearest(all, p)
	return FederatedCredential{}, &m, nil
}

// matching returns the first of an owner's records that an assertion
// satisfies.
func matching(recs []federatedRecord, owner string, p *Presented) (FederatedCredential, bool) {
	for i := range recs {
		if recs[i].Owner == owner && matches(&recs[i].FederatedCredential, p) {
			return recs[i].FederatedCredential, true
		}
	}
	return FederatedCredential{}, false
}
