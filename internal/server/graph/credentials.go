package graph

import (
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"

	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/web"
)

func passwordEntity(s *directory.ClientSecret) entity {
	return entity{
		"keyId": s.KeyID, "displayName": orNull(s.DisplayName), "hint": orNull(s.Hint), "secretText": nil, "customKeyIdentifier": nil,
		"startDateTime": instant(s.Start), "endDateTime": instant(s.End),
	}
}

func passwords(secrets []directory.ClientSecret) []entity {
	out := make([]entity, len(secrets))
	for i := range secrets {
		out[i] = passwordEntity(&secrets[i])
	}
	return out
}

// keyCredentials are certificates; their keys, which are public, are shown to
// who selects the property, as Graph does.
func keyCredentials(c *call, certs []directory.ClientCertificate) []entity {
	selected := slices.ContainsFunc(c.query.Select, func(s string) bool { return strings.EqualFold(s, "keyCredentials") })
	out := make([]entity, len(certs))
	for i := range certs {
		k := &certs[i]
		sum, _ := base64.RawURLEncoding.DecodeString(k.X5T)
		out[i] = entity{
			"keyId": k.KeyID, "displayName": orNull(k.DisplayName), "type": "AsymmetricX509Cert", "usage": "Verify", "key": nil,
			"customKeyIdentifier": strings.ToUpper(hex.EncodeToString(sum)), "startDateTime": instant(k.Start), "endDateTime": instant(k.End),
		}
		if selected {
			out[i]["key"] = base64.StdEncoding.EncodeToString(k.DER)
		}
	}
	return out
}

// addPassword makes a client secret. Its answer is the only place where its
// text is ever shown.
func addPassword(c *call) error {
	n := directory.NewSecret{}
	if c.r.ContentLength != 0 {
		b, err := c.body()
		if err != nil {
			return err
		}
		if err := b.set(fields{"passwordCredential": nested(fields{
			"displayName": text(&n.DisplayName), "startDateTime": instantOf(&n.Start), "endDateTime": instantOf(&n.End),
			"secretText": empty, "keyId": empty, "hint": empty, "customKeyIdentifier": empty,
		})}); err != nil {
			return err
		}
	}
	s, text, err := c.Directory.AddSecret(c.ctx, c.object.id(), n)
	if err != nil {
		return err
	}
	e := passwordEntity(&s)
	e["secretText"] = text
	e["@odata.context"] = c.names.Graph + "/" + c.version + "/$metadata#microsoft.graph.passwordCredential"
	c.w.Header()["Cache-Control"] = []string{"no-store"}
	return web.WriteJSON(c.w, http.StatusOK, e)
}

func removePassword(c *call) error {
	b, err := c.body()
	if err != nil {
		return err
	}
	var id string
	if err := b.set(fields{"keyId": required(&id)}); err != nil {
		return err
	}
	existed, err := c.Directory.RemoveSecret(c.ctx, c.object.id(), id)
	if err == nil && !existed {
		err = badRequest("No password credential found with keyId '%s'.", clip(id))
	}
	if err != nil {
		return err
	}
	c.w.WriteHeader(http.StatusNoContent)
	return nil
}
