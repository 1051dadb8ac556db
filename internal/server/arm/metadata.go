package arm

import (
	"net/http"
	"slices"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/web"
)

// The versions of /metadata/endpoints and the shape that each answers with.
var (
	metadataFlat = []string{"2014-11-01-privatepreview", "2014-11-01-preview", "2015-01-01", "2015-11-01", "2016-09-01", "2017-12-01", "2018-05-01"}
	metadataList = []string{"2019-05-01", "2019-10-01", "2020-06-01", "2021-01-01", "2021-04-01"}
	metadataOne  = []string{"2022-09-01", "2023-12-01", "2024-11-01", "2025-04-01"}
)

// Audiences of tokens for the management API: Azure's two names for it.
var managementAudiences = []string{"https://management.core.windows.net/", "https://management.azure.com/"}

type wireAuthentication struct {
	LoginEndpoint    string   `json:"loginEndpoint"`
	Audiences        []string `json:"audiences"`
	Tenant           string   `json:"tenant,omitempty"`
	IdentityProvider string   `json:"identityProvider,omitempty"`
}

// wireFlat is the first shape, which az cloud register reads.
type wireFlat struct {
	GalleryEndpoint string             `json:"galleryEndpoint"`
	GraphEndpoint   string             `json:"graphEndpoint"`
	PortalEndpoint  string             `json:"portalEndpoint"`
	Authentication  wireAuthentication `json:"authentication"`
}

// wireCloud is the shape since 2019, in a list until 2022.
type wireCloud struct {
	Name                     string             `json:"name"`
	Portal                   string             `json:"portal"`
	Gallery                  string             `json:"gallery"`
	ResourceManager          string             `json:"resourceManager"`
	Authentication           wireAuthentication `json:"authentication"`
	Graph                    string             `json:"graph"`
	GraphAudience            string             `json:"graphAudience"`
	MicrosoftGraphResourceID string             `json:"microsoftGraphResourceId"`
	Batch                    string             `json:"batch"`
	Media                    string             `json:"media"`
	SQLManagement            string             `json:"sqlManagement"`
	Suffixes                 map[string]string  `json:"suffixes"`
}

// metadata tells a client that knows only this plane's address where the
// others are. It needs no token: it is what a client reads before it has one.
func (h *Handler) metadata(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		return fault.New(fault.BadMethod, "MethodNotAllowed", "The requested resource does not support http method '%s'.", clip(r.Method))
	}
	version, err := apiVersion(r.URL.Query())
	if err != nil {
		return err
	}
	n := web.CallOf(r.Context()).Names
	switch {
	case slices.Contains(metadataFlat, version):
		return web.WriteJSON(w, http.StatusOK, wireFlat{
			GalleryEndpoint: n.Management + "/", GraphEndpoint: n.Graph + "/", PortalEndpoint: n.Portal + "/",
			Authentication: authentication(n),
		})
	case slices.Contains(metadataList, version):
		return web.WriteJSON(w, http.StatusOK, []wireCloud{cloudOf(n)})
	case slices.Contains(metadataOne, version):
		return web.WriteJSON(w, http.StatusOK, cloudOf(n))
	}
	return wrongVersion(ID{}, slices.Concat(metadataFlat, metadataList, metadataOne), version)
}

// azureLogin is the authority of the public cloud.
const azureLogin = "https://login.microsoftonline.com"

// authentication names the authority. Under our own names its path begins
// with /adfs/: clients then do not ask Azure whether the host is an authority.
func authentication(n *web.Names) wireAuthentication {
	login := n.Login + "/adfs/aad"
	if n.Login == azureLogin {
		login = n.Login + "/"
	}
	return wireAuthentication{LoginEndpoint: login, Audiences: managementAudiences, Tenant: "common", IdentityProvider: "AAD"}
}

func cloudOf(n *web.Names) wireCloud {
	name := "Podkey"
	if n.Login == azureLogin {
		name = "AzureCloud" // clients that know us by Azure's names look for it
	}
	return wireCloud{
		Name: name, Portal: n.Portal, Gallery: n.Management + "/", ResourceManager: n.Management + "/",
		Authentication: authentication(n), Graph: n.Graph + "/", GraphAudience: n.Graph + "/", MicrosoftGraphResourceID: n.Graph + "/",
		Batch: n.Management + "/", Media: n.Management + "/", SQLManagement: n.Management + "/",
		Suffixes: map[string]string{
			"keyVaultDns": n.Vault,
			// Services that are not here: clients want the members, and no
			// name below these resolves.
			"storage": "storage.invalid", "sqlServerHostname": "sql.invalid", "acrLoginServer": "acr.invalid",
			"azureDataLakeStoreFileSystem": "datalake.invalid", "azureDataLakeAnalyticsCatalogAndJob": "datalake.invalid",
		},
	}
}
