package podkeytest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"net/url"

	"github.com/podkey/podkey/podkeytest"
)

const declaration = `
identities:
  - name: shop
    resourceGroup: shop
    federatedCredentials:
      - {name: web, namespace: shop, serviceAccount: web}
vaults:
  - name: shop-vault
    resourceGroup: shop
    access:  [{identity: shop, role: Key Vault Secrets User}]
    secrets: [{name: db-password, value: hunter2}]
`

// The protocol without any SDK: a service account's token is exchanged for an
// access token, and that reads the secret.
func Example() {
	p, err := podkeytest.New(context.Background(), podkeytest.Options{Declare: declaration})
	if err != nil {
		log.Fatal(err)
	}
	defer p.Close()

	exchanged, err := p.Client.PostForm(p.Authority+p.TenantID+"/oauth2/v2.0/token", url.Values{
		"grant_type":            {"client_credentials"},
		"client_id":             {p.Identity("shop").ClientID},
		"scope":                 {"https://vault.azure.net/.default"},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
		"client_assertion":      {p.ServiceAccountToken("shop", "web")},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer exchanged.Body.Close()
	var token struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(exchanged.Body).Decode(&token); err != nil {
		log.Fatal(err)
	}

	req, err := http.NewRequest("GET", p.VaultURL("shop-vault")+"/secrets/db-password?api-version=7.5", nil)
	if err != nil {
		log.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token.AccessToken)
	answer, err := p.Client.Do(req)
	if err != nil {
		log.Fatal(err)
	}
	defer answer.Body.Close()
	var secret struct{ Value string }
	if err := json.NewDecoder(answer.Body).Decode(&secret); err != nil {
		log.Fatal(err)
	}
	fmt.Println(answer.StatusCode, secret.Value)
	// Output: 200 hunter2
}

// A test declares more as it goes, and is failed by the kit if something in
// the declaration is wrong.
func ExamplePodkey_Declare() {
	p, err := podkeytest.New(context.Background(), podkeytest.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer p.Close()
	p.Declare(declaration)
	fmt.Println(p.VaultURL("shop-vault"), p.Identity("shop").ClientID != "")
	// Output: https://shop-vault.vault.azure.net true
}
