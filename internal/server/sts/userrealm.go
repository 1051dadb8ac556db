package sts

import (
	"net/http"
	"strings"

	"github.com/podkey/podkey/internal/web"
)

// userRealmDocument says how the users of a domain sign in. MSAL asks before
// it sends a password.
type userRealmDocument struct {
	Version           string `json:"ver"`
	AccountType       string `json:"account_type"`
	DomainName        string `json:"domain_name,omitempty"`
	CloudInstanceName string `json:"cloud_instance_name"`
	CloudAudienceURN  string `json:"cloud_audience_urn"`
}

// userRealm answers by the domain alone: whether there is such a user, it does
// not know.
func (s *service) userRealm(w http.ResponseWriter, r *http.Request) error {
	_, domain, ok := strings.Cut(r.PathValue("user"), "@")
	if !ok || domain == "" {
		return errMalformed("The user name must have the form name@domain.")
	}
	t, ok, err := s.Directory.Tenant(r.Context(), domain)
	if err != nil {
		return err
	}
	doc := userRealmDocument{
		Version: "1.0", AccountType: "Unknown",
		CloudInstanceName: cloudInstance(web.CallOf(r.Context()).Names), CloudAudienceURN: "urn:federation:MicrosoftOnline",
	}
	if ok && t.ID != "" {
		doc.AccountType, doc.DomainName = "Managed", domain
	}
	return web.WriteJSON(w, http.StatusOK, doc)
}
