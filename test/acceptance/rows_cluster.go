package main

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// clusterIssuer is the issuer of a cluster that the server could not reach:
// its keys are given when it is registered.
const clusterIssuer = "https://cluster.example/acceptance/"

// clusterRows are registered clusters, under az's word for them.
func clusterRows() *group {
	const rg = `-g acc-cluster -n shop`
	return &group{name: "cluster", values: map[string]string{"clusterIssuer": clusterIssuer}, rows: []row{
		login(),
		newGroup("acc-cluster"),
		{az: `aks list -g acc-cluster`, out: []check{count("", 0)}},
		{az: `aks show -g acc-cluster -n shop`, exit: 3, err: `ResourceNotFound`},
		{name: "make keys and a kubeconfig of a cluster", do: makeCluster},
		{podkey: `cluster register -g acc-cluster -n shop --location westeurope --issuer ${clusterIssuer} --jwks jwks.json -o json`},
		{az: `aks list -g acc-cluster`, out: []check{count("", 1), is("0.name", "shop")}},
		{az: `aks list --query [].name`, out: []check{has("", "shop")}},
		{az: `aks show ` + rg, out: []check{
			is("name", "shop"), is("location", "westeurope"), is("oidcIssuerProfile.issuerUrl", "${clusterIssuer}"), is("provisioningState", "Succeeded"),
			like("servicePrincipalProfile.clientId", `.`), omits("${kubeToken}"),
		}},
		{az: `aks show ` + rg + ` --query "oidcIssuerProfile.issuerUrl" -o tsv`, out: []check{says("${clusterIssuer}")}},
		{az: `aks update ` + rg + ` --enable-oidc-issuer --enable-workload-identity`, out: []check{
			is("securityProfile.workloadIdentity.enabled", true), is("oidcIssuerProfile.enabled", true), is("oidcIssuerProfile.issuerUrl", "${clusterIssuer}")}},
		{az: `aks show ` + rg + ` --query securityProfile.workloadIdentity.enabled -o tsv`, out: []check{says("true")}},
		// From here on the server has its kubeconfig, and tries to do what is wished for.
		{podkey: `cluster unregister -g acc-cluster -n shop`},
		{podkey: `cluster register -g acc-cluster -n shop --location westeurope --kubeconfig cluster.yaml --issuer ${clusterIssuer} --jwks jwks.json -o json`, out: []check{omits("${kubeToken}")}},
		{az: `aks update ` + rg + ` --enable-oidc-issuer --enable-workload-identity`, exit: 1, err: `ClusterNotReachable.*podkey install --kubeconfig`},
		{az: `aks get-credentials --resource-group acc-cluster --name shop --overwrite-existing --file got.yaml`, err: `(?i)merged`},
		{sh: `grep -q 'server: https://kubernetes.cluster.example:6443' got.yaml && grep -q '${kubeToken}' got.yaml`, out: []check{nothing()}},
		{az: `aks get-credentials ` + rg + ` --overwrite-existing`, err: `(?i)merged`},
		{az: `aks get-credentials ` + rg + ` --admin --file admin.yaml`, err: `(?i)merged`},
		{az: `resource show ` + rg + ` --resource-type Microsoft.ContainerService/managedClusters`, out: []check{is("name", "shop"), omits("${kubeToken}")}},
		{az: `aks create -g acc-cluster -n another --generate-ssh-keys`, exit: 1, err: `podkey cluster register`},

		// A token of that cluster, signed by its key, and one signed by another.
		{az: `identity create -g acc-cluster -n shop`, save: map[string]string{"client": "clientId"}},
		{az: `identity federated-credential create --name web --identity-name shop -g acc-cluster --issuer ${clusterIssuer} --subject system:serviceaccount:shop:web --audience api://AzureADTokenExchange`,
			out: []check{is("issuer", "${clusterIssuer}")}},
		{name: `az login with a token of the cluster`, sh: `AZURE_CONFIG_DIR=${work}/azure-good az login --service-principal -u ${client} --tenant ${tenant} --federated-token '${goodToken}' --allow-no-subscriptions`,
			out: []check{is("0.user.name", "${client}")}},
		{name: `az login with a token that another key signed`, sh: `AZURE_CONFIG_DIR=${work}/azure-bad az login --service-principal -u ${client} --tenant ${tenant} --federated-token '${forgedToken}' --allow-no-subscriptions`,
			exit: 1, err: `AADSTS`},

		// Somebody with Reader sees the cluster and not its credentials.
		{az: `ad sp create-for-rbac --name acc-cluster --role Reader --scopes ${sub}/resourceGroups/acc-cluster`, save: map[string]string{"readerId": "appId", "readerSecret": "password"}},
		{az: `account clear`},
		{az: `login --service-principal -u ${readerId} -p ${readerSecret} --tenant ${tenant}`},
		{az: `aks show ` + rg + ` --query name -o tsv`, out: []check{says("shop")}},
		{az: `aks get-credentials ` + rg + ` --file stolen.yaml`, exit: 1, err: `AuthorizationFailed`},
		{az: `aks update ` + rg + ` --enable-oidc-issuer`, exit: 1, err: `AuthorizationFailed`},
		{az: `account clear`},
		login(),
		{az: `aks delete ` + rg + ` -y`, out: []check{nothing()}},
		{az: `aks show ` + rg, exit: 3, err: `ResourceNotFound`},
	}}
}

// makeCluster makes what a cluster has: a signing key that it publishes, and a
// kubeconfig. There is no cluster, because only its keys and its address play
// a part here; a real one comes with the end-to-end suite.
func makeCluster(s *step) error {
	issuer := s.values["clusterIssuer"]
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	b64 := base64.RawURLEncoding.EncodeToString
	jwks, err := json.Marshal(map[string]any{"keys": []any{map[string]string{
		"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "acceptance",
		"n": b64(key.N.Bytes()), "e": b64(big.NewInt(int64(key.E)).Bytes()),
	}}})
	if err != nil {
		return err
	}
	for name, k := range map[string]*rsa.PrivateKey{"goodToken": key, "forgedToken": other} {
		now := time.Now()
		claims, err := json.Marshal(map[string]any{
			"iss": issuer, "sub": "system:serviceaccount:shop:web", "aud": []string{"api://AzureADTokenExchange"},
			"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		})
		if err != nil {
			return err
		}
		signed := b64([]byte(`{"alg":"RS256","kid":"acceptance"}`)) + "." + b64(claims)
		sum := sha256.Sum256([]byte(signed))
		signature, err := rsa.SignPKCS1v15(rand.Reader, k, crypto.SHA256, sum[:])
		if err != nil {
			return err
		}
		s.values[name] = signed + "." + b64(signature)
	}
	s.values["kubeToken"] = "kubeconfig-" + rand.Text()
	kubeconfig := `apiVersion: v1
kind: Config
clusters:
- name: shop
  cluster: {server: "https://kubernetes.cluster.example:6443"}
users:
- name: shop
  user: {token: ` + s.values["kubeToken"] + `}
contexts:
- name: shop
  context: {cluster: shop, user: shop}
current-context: shop
`
	if err := os.WriteFile(filepath.Join(s.dir, "cluster.yaml"), []byte(kubeconfig), 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.dir, "jwks.json"), jwks, 0o600)
}
