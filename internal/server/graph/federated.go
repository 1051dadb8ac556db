package graph

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/podkey/podkey/internal/odata"
	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/web"
)

// federated lists the credentials of the application that the path names, all
// of which are at hand.
var federated = kind[directory.FederatedCredential]{
	name: "applications/federatedIdentityCredentials",
	id:   func(f *directory.FederatedCredential) string { return strings.ToLower(f.Name) },
	rules: odata.Rules{Properties: map[string]odata.Property{
		"name":    {Kind: odata.Text, Ops: "eq"},
		"issuer":  {Kind: odata.Text, Ops: "eq"},
		"subject": {Kind: odata.Text, Ops: "eq"},
	}},
	property: func(_ *call, f *directory.FederatedCredential, name string) odata.Value {
		switch name {
		case "name":
			return odata.OfText(f.Name)
		case "issuer":
			return odata.Value{Kind: odata.Text, Text: f.Issuer, Exact: true}
		}
		return odata.Value{Kind: odata.Text, Text: f.Subject, Exact: true}
	},
	show: func(c *call, f *directory.FederatedCredential) (entity, error) {
		return federatedEntity(c.object.id(), f), nil
	},
	walk: func(c *call, after string, visit func(*directory.FederatedCredential) bool) error {
		all, err := c.Directory.FederatedAll(c.ctx, c.object.id())
		for i := range all {
			if strings.ToLower(all[i].Name) > after && !visit(&all[i]) {
				break
			}
		}
		return err
	},
}

// federatedID is the id of a credential, which its name stands for.
func federatedID(owner, name string) string {
	return uuid.NewSHA1(uuid.NameSpaceURL, []byte("podkey:federated:"+owner+":"+strings.ToLower(name))).String()
}

func federatedEntity(owner string, f *directory.FederatedCredential) entity {
	e := entity{
		"id": federatedID(owner, f.Name), "name": f.Name, "issuer": f.Issuer, "subject": orNull(f.Subject),
		"audiences": list(f.Audiences), "description": orNull(f.Description),
	}
	if f.Expression != "" {
		e["claimsMatchingExpression"] = entity{"languageVersion": 1, "value": f.Expression}
	}
	return e
}

// federatedFields are the properties of a credential that a caller sets.
func federatedFields(f *directory.FederatedCredential) fields {
	return fields{
		"name":        text(&f.Name),
		"issuer":      text(&f.Issuer),
		"subject":     text(&f.Subject),
		"audiences":   texts(&f.Audiences),
		"description": text(&f.Description),
		"id":          ignored, // az sends back what it was shown; it follows from the name
		"claimsMatchingExpression": func(name string, raw json.RawMessage) error {
			f.Expression = ""
			if isNull(raw) {
				return nil
			}
			version := 0
			if err := nested(fields{"value": required(&f.Expression), "languageVersion": into(&version)})(name, raw); err != nil {
				return err
			}
			if version != 1 || f.Expression == "" {
				return badRequest("Invalid value specified for property '%s': it must have a value, and the languageVersion 1.", name)
			}
			return nil
		},
	}
}

// pathFederated finds the credential that the path's second key names, by
// name or id.
func pathFederated(c *call) (directory.FederatedCredential, error) {
	k := c.keys[1]
	if k.alt != "" && !strings.EqualFold(k.alt, "name") {
		return directory.FederatedCredential{}, noSegment(k.alt)
	}
	owner := c.object.id()
	if f, ok, err := c.Directory.Federated(c.ctx, owner, k.text); err != nil || ok {
		return f, err
	}
	all, err := c.Directory.FederatedAll(c.ctx, owner)
	if err != nil {
		return directory.FederatedCredential{}, err
	}
	i := slices.IndexFunc(all, func(f directory.FederatedCredential) bool {
		return strings.EqualFold(federatedID(owner, f.Name), k.text)
	})
	if i < 0 || k.alt != "" {
		return directory.FederatedCredential{}, notFound(k.text)
	}
	return all[i], nil
}

func createFederated(c *call) error {
	b, err := c.body()
	if err != nil {
		return err
	}
	var f directory.FederatedCredential
	if err := b.set(federatedFields(&f)); err != nil {
		return err
	}
	if err := c.Directory.CreateFederated(c.ctx, c.object.id(), f); err != nil {
		return err
	}
	return c.showFederated(http.StatusCreated, &f)
}

func (c *call) showFederated(status int, f *directory.FederatedCredential) error {
	e := federatedEntity(c.object.id(), f)
	e["@odata.context"] = c.names.Graph + "/" + c.version + "/$metadata#applications('" + c.object.id() + "')/federatedIdentityCredentials/$entity"
	return web.WriteJSON(c.w, status, e)
}

func getFederated(c *call) error {
	f, err := pathFederated(c)
	if err != nil {
		return err
	}
	return federated.one(c, http.StatusOK, &f)
}

// patchFederated changes a credential. With the header that Graph has for it,
// a credential that does not exist is created under the name of the path.
func patchFederated(c *call) error {
	b, err := c.body()
	if err != nil {
		return err
	}
	old, err := pathFederated(c)
	if isMissing(err) && strings.Contains(strings.ToLower(c.r.Header.Get("Prefer")), "create-if-missing") {
		f := directory.FederatedCredential{}
		if err := b.set(federatedFields(&f)); err != nil {
			return err
		}
		f.Name = c.keys[1].text
		if err := c.Directory.CreateFederated(c.ctx, c.object.id(), f); err != nil {
			return err
		}
		return c.showFederated(http.StatusCreated, &f)
	}
	if err != nil {
		return err
	}
	err = c.Directory.ChangeFederated(c.ctx, c.object.id(), old.Name, func(f *directory.FederatedCredential) error {
		if err := b.set(federatedFields(f)); err != nil {
			return err
		}
		if !strings.EqualFold(f.Name, old.Name) {
			return readOnly("name", nil)
		}
		return nil
	})
	if err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}

func deleteFederated(c *call) error {
	f, err := pathFederated(c)
	if err != nil {
		return err
	}
	existed, err := c.Directory.DeleteFederated(c.ctx, c.object.id(), f.Name)
	if err == nil && !existed {
		err = notFound(c.keys[1].text)
	}
	if err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}
