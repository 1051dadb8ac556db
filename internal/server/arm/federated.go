package arm

import (
	"context"
	"net/http"
	"strings"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/web"
)

const (
	typeFederated   = typeIdentity + "/federatedIdentityCredentials"
	actionFederated = typeFederated + "/"
)

func (h *Handler) registerFederated() {
	h.Register(ResourceType{
		Name: typeFederated,
		Find: h.findFederated,
		Routes: []Route{
			{Method: "GET", Collection: true, Levels: AtGroup, Action: actionFederated + "read", Visible: true, Handle: h.listFederated},
			{Method: "GET", Levels: AtGroup, Action: actionFederated + "read", Handle: h.getFederated},
			{Method: "PUT", Levels: AtGroup, Action: actionFederated + "write", Handle: h.putFederated},
			{Method: "DELETE", Levels: AtGroup, Action: actionFederated + "delete", Handle: h.deleteFederated},
		},
	})
}

// identityOf returns the identity that a credential, or their collection,
// belongs to. The pipeline has seen it a moment ago.
func (h *Handler) identityOf(ctx context.Context, id ID) (directory.ManagedIdentity, error) {
	m, ok, err := h.o.Directory.Identity(ctx, id.Parent().Key())
	if err == nil && !ok {
		err = notFound(id.Parent())
	}
	return m, err
}

func (h *Handler) findFederated(ctx context.Context, _ string, id ID) (string, bool, error) {
	m, ok, err := h.o.Directory.Identity(ctx, id.Parent().Key())
	if err != nil || !ok {
		return "", false, err
	}
	c, ok, err := h.o.Directory.Federated(ctx, m.PrincipalID, id.Name())
	return federatedID(&m, &c), ok, err
}

func federatedID(m *directory.ManagedIdentity, c *directory.FederatedCredential) string {
	return m.ResourceID + "/federatedIdentityCredentials/" + c.Name
}

type wireFederated struct {
	ID         string              `json:"id"`
	Name       string              `json:"name"`
	Type       string              `json:"type"`
	Properties federatedProperties `json:"properties"`
}

type federatedProperties struct {
	Issuer     string          `json:"issuer"`
	Subject    string          `json:"subject,omitempty"`
	Audiences  []string        `json:"audiences"`
	Expression *wireExpression `json:"claimsMatchingExpression,omitempty"` // in place of the subject
}

type wireExpression struct {
	Value           string `json:"value"`
	LanguageVersion int    `json:"languageVersion"`
}

// expressionVersion is the version of the language of expressions.
const expressionVersion = 1

func federatedWire(m *directory.ManagedIdentity, c *directory.FederatedCredential) wireFederated {
	out := wireFederated{
		ID: federatedID(m, c), Name: c.Name, Type: typeFederated,
		Properties: federatedProperties{Issuer: c.Issuer, Subject: c.Subject, Audiences: c.Audiences},
	}
	if c.Expression != "" {
		out.Properties.Expression = &wireExpression{c.Expression, expressionVersion}
	}
	return out
}

func (h *Handler) putFederated(w http.ResponseWriter, r *http.Request, q *Request) error {
	var body struct {
		Properties *federatedProperties `json:"properties"`
	}
	if err := web.DecodeJSON(r, codeContent, &body); err != nil {
		return err
	}
	p := body.Properties
	if p == nil {
		return fault.BadRequest(codeContent, "The request body has no 'properties'.")
	}
	c := directory.FederatedCredential{Name: q.ID.Name(), Issuer: p.Issuer, Subject: p.Subject, Audiences: p.Audiences}
	if e := p.Expression; e != nil {
		if e.LanguageVersion != expressionVersion || e.Value == "" {
			return fault.BadRequest("BadRequest", "The property 'claimsMatchingExpression' must have a 'value', and %d as its 'languageVersion'.", expressionVersion)
		}
		c.Expression = e.Value
	}
	m, err := h.identityOf(r.Context(), q.ID)
	if err != nil {
		return err
	}
	created, err := h.o.Directory.PutFederated(r.Context(), m.PrincipalID, c)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if created {
		status = http.StatusCreated
	}
	// The stored one keeps the letters of its first name.
	if c, _, err = h.o.Directory.Federated(r.Context(), m.PrincipalID, c.Name); err != nil {
		return err
	}
	return web.WriteJSON(w, status, federatedWire(&m, &c))
}

func (h *Handler) getFederated(w http.ResponseWriter, r *http.Request, q *Request) error {
	m, err := h.identityOf(r.Context(), q.ID)
	if err != nil {
		return err
	}
	c, ok, err := h.o.Directory.Federated(r.Context(), m.PrincipalID, q.ID.Name())
	if err != nil {
		return err
	}
	if !ok {
		return notFound(q.ID)
	}
	return web.WriteJSON(w, http.StatusOK, federatedWire(&m, &c))
}

func (h *Handler) listFederated(w http.ResponseWriter, r *http.Request, q *Request) error {
	m, err := h.identityOf(r.Context(), q.ID)
	if err != nil {
		return err
	}
	all, err := h.o.Directory.FederatedAll(r.Context(), m.PrincipalID)
	if err != nil {
		return err
	}
	shown, err := readable(r.Context(), q, all, actionFederated+"read", func(c *directory.FederatedCredential) string { return federatedID(&m, c) })
	if err != nil {
		return err
	}
	return writePage(w, q, shown, func(c *directory.FederatedCredential) string { return strings.ToLower(c.Name) },
		func(c *directory.FederatedCredential) wireFederated { return federatedWire(&m, c) })
}

func (h *Handler) deleteFederated(w http.ResponseWriter, r *http.Request, q *Request) error {
	m, err := h.identityOf(r.Context(), q.ID)
	if err != nil {
		return err
	}
	var existed bool
	err = h.removeWithAssignments(r.Context(), q.ID, func(ctx context.Context) error {
		var err error
		existed, err = h.o.Directory.DeleteFederated(ctx, m.PrincipalID, q.ID.Name())
		return err
	})
	if err != nil {
		return err
	}
	return writeDeleted(w, existed)
}
