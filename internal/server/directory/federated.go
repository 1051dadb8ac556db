package directory

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/store"
)

// FederatedCredential says that tokens of a foreign issuer stand for an
// application or managed identity. All three of issuer, subject and audience
// are compared exactly; see [Match]. In place of the subject it may have an
// expression.
type FederatedCredential struct {
	Name        string   `json:"name"`                 // 3 to 120 of A-Z a-z 0-9 _ -, and = at the end; the first a letter or digit; unique per owner in any case
	Issuer      string   `json:"issuer"`               // https URL of up to 600 characters
	Subject     string   `json:"subject"`              // up to 600 characters; empty if there is an expression
	Expression  string   `json:"expression,omitempty"` // see [Expression]; up to 600 characters, and at most 20 of an owner have one
	Audiences   []string `json:"audiences"`
	Description string   `json:"description,omitempty"` // up to 600 characters
}

type federatedRecord struct {
	Owner string `json:"owner"`
	FederatedCredential
	Created time.Time `json:"created"`
	Updated time.Time `json:"updated"`
}

// maxFederatedText is the longest issuer, subject, audience and description,
// in characters.
const maxFederatedText = 600

// maxFlexible is how many credentials of an owner may have an expression: a
// presented assertion is compared with all of an issuer's.
const maxFlexible = 20

// assertionKey is the index value that finds the one credential of an owner
// for an issuer and subject. Issuers have no line break, so different pairs
// have different keys.
func assertionKey(owner, issuer, subject string) string {
	return owner + "\n" + issuer + "\n" + subject
}

func federatedKey(owner, name string) string { return owner + "/" + strings.ToLower(name) }

// PutFederated creates or replaces a credential of an application (by object
// id) or managed identity (by principal id). Faults: Invalid for a value that
// breaks a rule, for an issuer and subject that another credential of the
// owner has (inner code IssuerSubjectExists), and above the limit (inner code
// LimitReached); Missing for an unknown owner.
//
// Writes to one owner may run at the same time: the transaction sees all
// credentials of the owner, so neither the limit nor the uniqueness can be
// passed by two at once. (Azure answers 409 instead.)
func (d *Directory) PutFederated(ctx context.Context, owner string, c FederatedCredential) (created bool, err error) {
	return d.writeFederated(ctx, owner, c.Name, func(*FederatedCredential) (FederatedCredential, error) { return c, nil })
}

// CreateFederated is [Directory.PutFederated] of a credential that must not
// exist: one of the name is a fault of kind Clash.
func (d *Directory) CreateFederated(ctx context.Context, owner string, c FederatedCredential) error {
	_, err := d.writeFederated(ctx, owner, c.Name, func(old *FederatedCredential) (FederatedCredential, error) {
		if old != nil {
			return c, fault.Conflict("Request_MultipleObjectsWithSameKeyValue", "The federated identity credential '%s' exists already.", old.Name)
		}
		return c, nil
	})
	return err
}

// ChangeFederated lets change edit a credential, except its name. One that
// does not exist is a fault of kind Missing. change may run several times.
func (d *Directory) ChangeFederated(ctx context.Context, owner, name string, change func(*FederatedCredential) error) error {
	_, err := d.writeFederated(ctx, owner, name, func(old *FederatedCredential) (FederatedCredential, error) {
		if old == nil {
			return FederatedCredential{}, fault.NotFound("Request_ResourceNotFound", "The federated identity credential '%s' does not exist.", clip(name))
		}
		c := *old
		err := change(&c)
		c.Name = old.Name
		return c, err
	})
	return err
}

// writeFederated stores what next makes of the credential with a name, which
// is nil if there is none.
func (d *Directory) writeFederated(ctx context.Context, owner, name string, next func(old *FederatedCredential) (FederatedCredential, error)) (created bool, err error) {
	id, _ := CanonicalID(owner)
	key := federatedKey(id, name)
	err = d.s.Update(ctx, func(tx *store.Tx) error {
		if err := d.mustHaveOwner(tx, id); err != nil {
			return err
		}
		old, ok, err := d.federated.Get(tx, key)
		if err != nil {
			return err
		}
		var had *FederatedCredential
		if created = !ok; ok {
			had = &old.FederatedCredential
		}
		c, err := next(had)
		if err != nil {
			return err
		}
		if err := d.checkFederated(&c); err != nil {
			return err
		}
		rec := federatedRecord{Owner: id, FederatedCredential: c, Created: d.now().UTC()}
		rec.Updated = rec.Created
		if ok {
			rec.Name, rec.Created = old.Name, old.Created
		}
		if err := d.mustFit(tx, key, &rec, created); err != nil {
			return err
		}
		return d.federated.Put(tx, key, rec)
	})
	return created, err
}

// mustFit refuses a credential that another one of the owner excludes, or
// that is one too many.
func (d *Directory) mustFit(tx *store.Tx, key string, rec *federatedRecord, created bool) error {
	all, err := d.federated.List(tx, rec.Owner+"/", "", 0)
	if err != nil {
		return err
	}
	flexible := 0
	for _, e := range all {
		if e.Err != nil {
			return e.Err
		}
		if e.Key == key {
			continue
		}
		if e.Value.Expression != "" {
			flexible++
		}
		if e.Value.Issuer == rec.Issuer && e.Value.Subject == rec.Subject && e.Value.Expression == rec.Expression {
			return &fault.Error{Kind: fault.Invalid, Code: "BadRequest", Inner: "IssuerSubjectExists",
				Message: "Issuer and subject combination already exists for this Managed Identity. The federated identity credential '" + e.Value.Name + "' has it."}
		}
	}
	if created && len(all) >= d.limit {
		return &fault.Error{Kind: fault.Invalid, Code: "BadRequest", Inner: "LimitReached",
			Message: fmt.Sprintf("Too many federated identity credentials: at most %d can be configured for one application or managed identity.", d.limit)}
	}
	if rec.Expression != "" && flexible >= maxFlexible {
		return &fault.Error{Kind: fault.Invalid, Code: "BadRequest", Inner: "LimitReached",
			Message: fmt.Sprintf("Too many federated identity credentials with a claims matching expression: at most %d can be configured for one application or managed identity.", maxFlexible)}
	}
	return nil
}

// mustHaveOwner makes sure that the owner of credentials exists when the
// transaction commits, so that none is left behind by a deletion meanwhile.
func (d *Directory) mustHaveOwner(tx *store.Tx, id string) error {
	sp, ok, err := d.principals.Get(tx, id)
	if err != nil || ok && sp.Kind == KindManagedIdentity {
		return err
	}
	if _, ok, err = d.applications.Get(tx, id); err != nil || ok {
		return err
	}
	return fault.NotFound("ParentResourceNotFound", "The application or managed identity that the credential belongs to does not exist.")
}

// Federated finds a credential by the name of its owner and its own name.
func (d *Directory) Federated(ctx context.Context, owner, name string) (FederatedCredential, bool, error) {
	id, _ := CanonicalID(owner)
	rec, ok, err := d.federated.Load(ctx, federatedKey(id, name))
	return rec.FederatedCredential, ok, err
}

// FederatedAll lists the credentials of an owner, in order of name.
func (d *Directory) FederatedAll(ctx context.Context, owner string) ([]FederatedCredential, error) {
	id, ok := CanonicalID(owner)
	if !ok {
		return nil, nil
	}
	recs, err := values(d.federated.Scan(ctx, id+"/", "", 0))
	cs := make([]FederatedCredential, len(recs))
	for i := range recs {
		cs[i] = recs[i].FederatedCredential
	}
	return cs, err
}

// DeleteFederated removes a credential.
func (d *Directory) DeleteFederated(ctx context.Context, owner, name string) (existed bool, err error) {
	id, _ := CanonicalID(owner)
	key := federatedKey(id, name)
	err = d.s.Update(ctx, func(tx *store.Tx) error {
		if _, existed, err = d.federated.Get(tx, key); err != nil || !existed {
			return err
		}
		d.federated.Delete(tx, key)
		return nil
	})
	return existed, err
}

// checkFederated applies the rules for one credential's own values.
func (d *Directory) checkFederated(c *FederatedCredential) error {
	bad := func(format string, args ...any) error { return fault.BadRequest("BadRequest", format, args...) }
	if !ValidFederatedName(c.Name) {
		return bad("The federated identity credential name '%s' is invalid. It must have 3 to 120 characters, letters, digits, '-' and '_' only, and begin with a letter or digit.", clip(c.Name))
	}
	if err := d.checkIssuer(c.Issuer); err != "" {
		return bad("The issuer of the federated identity credential %s.", err)
	}
	if c.Expression != "" {
		if c.Subject != "" {
			return bad("A federated identity credential has either a subject or a claims matching expression, not both.")
		}
		if _, err := ParseExpression(c.Expression); err != nil {
			return err
		}
	}
	if len(c.Audiences) != 1 {
		return bad("Federated identity credentials must have exactly one audience.")
	}
	for _, f := range []struct {
		name, value string
		optional    bool
	}{
		{"subject", c.Subject, c.Expression != ""},
		{"audience", c.Audiences[0], false},
		{"description", c.Description, true},
	} {
		switch {
		case f.value == "" && !f.optional:
			return bad("The %s of the federated identity credential must not be empty.", f.name)
		case !utf8.ValidString(f.value) || strings.ContainsFunc(f.value, unicode.IsControl):
			return bad("The %s of the federated identity credential has characters that are not allowed.", f.name)
		case utf8.RuneCountInString(f.value) > maxFederatedText:
			return bad("The %s of the federated identity credential has more than %d characters.", f.name, maxFederatedText)
		case !f.optional && strings.TrimSpace(f.value) != f.value:
			// A token would have to carry the blank too: always a mistake.
			return bad("The %s of the federated identity credential must not begin or end with a blank.", f.name)
		}
	}
	return nil
}

// ValidFederatedName reports whether s can name a federated credential. The
// documented rule has no '=', but azwi names its credentials by padded base64,
// and Entra ID takes them.
func ValidFederatedName(s string) bool {
	if len(s) > 120 {
		return false
	}
	s = strings.TrimSuffix(strings.TrimSuffix(s, "="), "=")
	if len(s) < 3 || s[0] == '-' || s[0] == '_' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

// checkIssuer says what is wrong with an issuer, or "". Only the form is
// checked: whether the address may be asked is decided when it is.
func (d *Directory) checkIssuer(issuer string) string {
	if issuer == "" {
		return "must not be empty"
	}
	if len(issuer) > maxFederatedText {
		return "has more than 600 characters"
	}
	u, err := url.Parse(issuer)
	if err != nil || !printableASCII(issuer) || u.Opaque != "" || u.Hostname() == "" {
		return "must be a valid URL"
	}
	if u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(issuer, "#") {
		return "must not have user information, a query or a fragment"
	}
	switch {
	case u.Scheme == "https":
		return ""
	case u.Scheme == "http" && d.loop && isLoopback(u.Hostname()):
		return ""
	case u.Scheme == "http" && d.loop:
		return "must be an https URL, or an http URL of a loopback address"
	}
	return "must be an https URL"
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
