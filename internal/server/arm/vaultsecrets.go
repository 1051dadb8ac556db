package arm

import (
	"context"
	"net/http"
	"strings"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/server/keyvault"
	"github.com/podkey/podkey/internal/web"
)

const (
	typeVaultSecret   = typeVault + "/secrets"
	actionVaultSecret = typeVaultSecret + "/"
)

// registerVaultSecrets adds the management face of secrets, which is for
// templates above all: it sets values and never shows one. Its actions are
// those of the management plane, whatever the vault's permission model says
// about the data plane: as in Azure, who may write a vault's secrets here
// cannot read them.
func (h *Handler) registerVaultSecrets() {
	h.Register(ResourceType{
		Name: typeVaultSecret, Loose: true,
		Routes: []Route{
			{Method: "GET", Collection: true, Levels: AtGroup, Action: actionVaultSecret + "read", Handle: h.listVaultSecrets},
			{Method: "GET", Levels: AtGroup, Action: actionVaultSecret + "read", Handle: h.getVaultSecret},
			{Method: "PUT", Levels: AtGroup, Action: actionVaultSecret + "write", Handle: h.putVaultSecret},
			{Method: "PATCH", Levels: AtGroup, Action: actionVaultSecret + "write", Handle: h.patchVaultSecret},
		},
	})
}

type wireSecret struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Type       string            `json:"type"`
	Location   string            `json:"location"`
	Tags       map[string]string `json:"tags"`
	Properties struct {
		ContentType          string               `json:"contentType,omitempty"`
		Attributes           wireSecretAttributes `json:"attributes"`
		SecretURI            string               `json:"secretUri"`
		SecretURIWithVersion string               `json:"secretUriWithVersion"`
	} `json:"properties"`
}

type wireSecretAttributes struct {
	Enabled   *bool  `json:"enabled,omitempty"`
	NotBefore *int64 `json:"nbf,omitempty"`
	Expires   *int64 `json:"exp,omitempty"`
	Created   int64  `json:"created,omitempty"`
	Updated   int64  `json:"updated,omitempty"`
}

func secretWire(n *web.Names, v *keyvault.Vault, s *keyvault.SecretInfo) wireSecret {
	out := wireSecret{ID: v.ID + "/secrets/" + s.Name, Name: s.Name, Type: typeVaultSecret, Location: v.Location, Tags: tagsWire(s.Tags)}
	p := &out.Properties
	p.ContentType = s.ContentType
	p.Attributes = wireSecretAttributes{Enabled: &s.Enabled, NotBefore: s.NotBefore, Expires: s.Expires, Created: s.Created, Updated: s.Updated}
	p.SecretURI = n.VaultURL(strings.ToLower(v.Name)) + "/secrets/" + s.Name
	p.SecretURIWithVersion = p.SecretURI + "/" + s.Version
	return out
}

// secretBody is a secret in requests.
type secretBody struct {
	Tags       map[string]string `json:"tags"`
	Properties *struct {
		Value       *string              `json:"value"`
		ContentType *string              `json:"contentType"`
		Attributes  wireSecretAttributes `json:"attributes"`
	} `json:"properties"`
}

// secretChange reads what a request says about a secret. Nothing of the body gets
// into messages: it holds the value.
func secretChange(r *http.Request) (keyvault.SecretChange, error) {
	var b secretBody
	if err := keyvault.DecodeText(r, codeContent, &b); err != nil {
		return keyvault.SecretChange{}, err
	}
	if b.Properties == nil {
		return keyvault.SecretChange{}, fault.BadRequest(codeContent, "The request body has no 'properties'.")
	}
	p := b.Properties
	return keyvault.SecretChange{
		Value: p.Value, ContentType: p.ContentType, Tags: b.Tags,
		Enabled: p.Attributes.Enabled, NotBefore: p.Attributes.NotBefore, Expires: p.Attributes.Expires,
	}, nil
}

func (h *Handler) putVaultSecret(w http.ResponseWriter, r *http.Request, q *Request) error {
	c, err := secretChange(r)
	if err != nil {
		return err
	}
	s, created, err := h.o.Vaults.SetSecret(r.Context(), q.ID.Parent().Key(), q.ID.Name(), c)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if created {
		status = http.StatusCreated
	}
	return h.writeVaultSecret(w, r, q, status, &s)
}

func (h *Handler) patchVaultSecret(w http.ResponseWriter, r *http.Request, q *Request) error {
	c, err := secretChange(r)
	if err != nil {
		return err
	}
	s, err := h.o.Vaults.UpdateSecret(r.Context(), q.ID.Parent().Key(), q.ID.Name(), c)
	if err != nil {
		return err
	}
	return h.writeVaultSecret(w, r, q, http.StatusOK, &s)
}

func (h *Handler) getVaultSecret(w http.ResponseWriter, r *http.Request, q *Request) error {
	s, ok, err := h.o.Vaults.Secret(r.Context(), q.ID.Parent().Key(), q.ID.Name())
	if err != nil {
		return err
	}
	if !ok {
		return notFound(q.ID)
	}
	return h.writeVaultSecret(w, r, q, http.StatusOK, &s)
}

func (h *Handler) writeVaultSecret(w http.ResponseWriter, r *http.Request, q *Request, status int, s *keyvault.SecretInfo) error {
	v, err := h.vaultOf(r.Context(), q.ID)
	if err != nil {
		return err
	}
	return web.WriteJSON(w, status, secretWire(q.Names, &v, s))
}

// vaultOf returns the vault that a child, or a collection of them, belongs
// to. The pipeline has seen it a moment ago.
func (h *Handler) vaultOf(ctx context.Context, id ID) (keyvault.Vault, error) {
	v, ok, err := h.o.Vaults.ByID(ctx, id.Parent().Key())
	if err == nil && !ok {
		err = notFound(id.Parent())
	}
	return v, err
}

// listVaultSecrets answers page by page from the store, unlike the other
// listings: a vault may hold very many, all sealed.
func (h *Handler) listVaultSecrets(w http.ResponseWriter, r *http.Request, q *Request) error {
	p, err := pageOf(q.Query)
	if err != nil {
		return err
	}
	v, err := h.vaultOf(r.Context(), q.ID)
	if err != nil {
		return err
	}
	infos, last, more, err := h.o.Vaults.Secrets(r.Context(), v.ID, p.after, p.top)
	if err != nil {
		return err
	}
	out := wireList[wireSecret]{Value: []wireSecret{}}
	for i := range infos {
		out.Value = append(out.Value, secretWire(q.Names, &v, &infos[i]))
	}
	if more {
		out.NextLink = q.nextLink(last)
	}
	return web.WriteJSON(w, http.StatusOK, out)
}
