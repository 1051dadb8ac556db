package main

// The walkthroughs, with the commands as their readers type them, in their
// order. Shell variables are values here. Commands of kubectl and docker, and
// the clusters' own part, are not az's.

// seedCluster registers the cluster that a walkthrough presupposes.
func seedCluster(rg, name string) []row {
	return []row{
		login(),
		newGroup(rg),
		{name: "make keys and a kubeconfig of a cluster", do: makeCluster},
		{podkey: `cluster register -g ` + rg + ` -n ` + name + ` --location westeurope --issuer ${clusterIssuer} --jwks jwks.json`},
	}
}

// newVaultDefault is why the older walkthroughs' vaults need an argument.
const newVaultDefault = "vaults are made for role-based access control by default since 2.61.0, where set-policy is refused"

// seedPolicyRows is the walkthrough with an access policy for a managed
// identity of an AKS cluster, and the one that continues it for a Java
// application (both have the same commands).
func seedPolicyRows() *group {
	rows := seedCluster("acc-seed-policy", "petclinic")
	rows = append(rows,
		row{az: `keyvault create -n acc-seed-policy-kv -g acc-seed-policy --enable-rbac-authorization false`},
		row{az: `aks update --resource-group acc-seed-policy --name petclinic --enable-oidc-issuer --enable-workload-identity`, out: []check{
			is("securityProfile.workloadIdentity.enabled", true), is("oidcIssuerProfile.enabled", true)}},
		row{az: `identity create --name appidentity --resource-group acc-seed-policy`, out: []check{like("clientId", guidPattern)}, save: map[string]string{"principal": "principalId"}},
		row{az: `keyvault set-policy --name acc-seed-policy-kv --object-id ${principal} --secret-permissions get set`,
			out: []check{set("properties.accessPolicies.1.permissions.secrets", "get", "set")}},
		row{az: `aks show --resource-group acc-seed-policy --name petclinic --query "oidcIssuerProfile.issuerUrl" -o tsv`, out: []check{contains(`/\s*$`)}},

		row{az: `aks update --enable-oidc-issuer --enable-workload-identity --name petclinic --resource-group acc-seed-policy`},
		row{az: `aks show -n petclinic -g acc-seed-policy --query "oidcIssuerProfile.issuerUrl" -otsv`, save: map[string]string{"aksIssuer": ""}},
		row{az: `identity create --name "uid-petclinic" --resource-group "acc-seed-policy" --location "westeurope"`},
		row{az: `identity show --resource-group "acc-seed-policy" --name "uid-petclinic"`, out: []check{is("name", "uid-petclinic")}},
		row{az: `identity show --resource-group "acc-seed-policy" --name "uid-petclinic" --query 'clientId' -otsv`, save: map[string]string{"client": ""}},
		row{az: `keyvault set-policy -g acc-seed-policy -n acc-seed-policy-kv --key-permissions get --spn ${client}`},
		row{az: `keyvault set-policy -g acc-seed-policy -n acc-seed-policy-kv --secret-permissions get --spn ${client}`},
		row{az: `keyvault set-policy -g acc-seed-policy -n acc-seed-policy-kv --certificate-permissions get --spn ${client}`,
			out: []check{set("properties.accessPolicies.2.permissions.secrets", "get"), set("properties.accessPolicies.2.permissions.keys", "get")}},
		row{az: `identity federated-credential create --name fedcred --identity-name "uid-petclinic" --resource-group "acc-seed-policy" --issuer "${aksIssuer}" --subject system:serviceaccount:"spring-petclinic":"sa" --audience api://AzureADTokenExchange`,
			out: []check{is("issuer", "${aksIssuer}"), is("subject", "system:serviceaccount:spring-petclinic:sa")}},
	)
	return &group{name: "seed-policy", values: map[string]string{"clusterIssuer": clusterIssuer + "policy/"}, rows: rows}
}

// seedRoleRows is the walkthrough with a role assignment on a vault that a
// template made.
func seedRoleRows() *group {
	rows := seedCluster("acc-seed-role", "hashbnuswest")
	rows = append(rows,
		row{az: `aks update --resource-group "acc-seed-role" --name "hashbnuswest" --enable-oidc-issuer --enable-workload-identity`},
		row{az: `identity create --resource-group acc-seed-role --name UAMI_WL_IDENTITY`},
		row{az: `identity show --resource-group "acc-seed-role" --name "UAMI_WL_IDENTITY" --query 'clientId' --output tsv`, save: map[string]string{"client": ""}},
		row{az: `aks show --name "hashbnuswest" --resource-group "acc-seed-role" --query "oidcIssuerProfile.issuerUrl" --output tsv`, save: map[string]string{"aksIssuer": ""}},
		row{az: `identity federated-credential create --name wlipoc --identity-name "UAMI_WL_IDENTITY" --resource-group "acc-seed-role" --issuer "${aksIssuer}" --subject system:serviceaccount:"wlipoc":"workload-identity-sa" --audience api://AzureADTokenExchange`},
		row{az: `deployment group create -g acc-seed-role --template-file akv.json --parameters secretValue=hellowwss`,
			files: map[string]string{"akv.json": `{
  "$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#", "contentVersion": "1.0.0.0",
  "parameters": {"secretValue": {"type": "securestring"}, "vaultName": {"type": "string", "defaultValue": "wliakvpoc"}},
  "resources": [
    {"type": "Microsoft.KeyVault/vaults", "apiVersion": "2022-07-01", "name": "[parameters('vaultName')]", "location": "[resourceGroup().location]",
     "properties": {"tenantId": "[tenant().tenantId]", "sku": {"family": "A", "name": "standard"}, "enableRbacAuthorization": true}},
    {"type": "Microsoft.KeyVault/vaults/secrets", "apiVersion": "2022-07-01", "name": "[format('{0}/{1}', parameters('vaultName'), 'my-secret')]",
     "properties": {"value": "[parameters('secretValue')]"}, "dependsOn": ["[resourceId('Microsoft.KeyVault/vaults', parameters('vaultName'))]"]}
  ]}`}, out: []check{is("properties.provisioningState", "Succeeded")}},
		row{az: `identity show --name "UAMI_WL_IDENTITY" --resource-group "acc-seed-role" --query principalId --output tsv`, save: map[string]string{"principal": ""}},
		row{az: `keyvault show --resource-group "acc-seed-role" --name "wliakvpoc" --query id --output tsv`, save: map[string]string{"vault": ""}},
		row{az: `role assignment create --assignee-object-id "${principal}" --role "Key Vault Secrets User" --scope "${vault}" --assignee-principal-type ServicePrincipal`, out: []check{is("principalId", "${principal}")}},
		row{az: `keyvault show --resource-group acc-seed-role --name wliakvpoc --query properties.vaultUri --output tsv`, out: []check{says("https://wliakvpoc.vault.azure.net/")}},
	)
	return &group{name: "seed-role", values: map[string]string{"clusterIssuer": clusterIssuer + "role/"}, rows: rows}
}

// seedApplicationRows is the walkthrough of the secrets store's provider, with
// an application, and with a managed identity.
func seedApplicationRows() *group {
	return &group{name: "seed-application", rows: []row{
		login(),
		newGroup("acc-seed-app"),
		{az: `keyvault create -n acc-seed-app-kv -g acc-seed-app --enable-rbac-authorization false`},
		{az: `ad sp create-for-rbac --name "acc-seed-app"`},
		{az: `ad sp list --display-name acc-seed-app --query '[0].appId' -otsv`, save: map[string]string{"app": ""}},
		{az: `identity create -g acc-seed-app -n acc-seed-app`},
		{az: `identity show -g acc-seed-app -n acc-seed-app --query clientId -otsv`, save: map[string]string{"client": ""}},
		{az: `keyvault set-policy -n acc-seed-app-kv --key-permissions get --spn ${app}`},
		{az: `keyvault set-policy -n acc-seed-app-kv --secret-permissions get --spn ${app}`},
		{az: `keyvault set-policy -n acc-seed-app-kv --certificate-permissions get --spn ${app}`, out: []check{count("properties.accessPolicies", 2), set("properties.accessPolicies.1.permissions.secrets", "get")}},
		{az: `keyvault set-policy -n acc-seed-app-kv --secret-permissions get --spn ${client}`, out: []check{count("properties.accessPolicies", 3)}},
		{az: `ad app show --id ${app} --query id -otsv`, save: map[string]string{"object": ""}},
		{az: `ad app federated-credential create --id "${object}" --parameters @params.json`, files: map[string]string{"params.json": `{
  "name": "kubernetes-federated-credential",
  "issuer": "${issuer}",
  "subject": "system:serviceaccount:acc-seed-app:sa",
  "description": "Kubernetes service account federated credential",
  "audiences": [
    "api://AzureADTokenExchange"
  ]
}
`}, out: []check{is("subject", "system:serviceaccount:acc-seed-app:sa")}},
		{az: `identity federated-credential create --name "kubernetes-federated-credential" --identity-name "acc-seed-app" --resource-group "acc-seed-app" --issuer "${issuer}" --subject "system:serviceaccount:acc-seed-app:sa"`,
			out: []check{is("audiences", []string{"api://AzureADTokenExchange"})}},
	}}
}

// seedPodIdentityRows is the walkthrough of pod identities.
func seedPodIdentityRows() *group {
	rows := seedCluster("acc-seed-pod", "podcluster")
	rows = append(rows,
		row{az: `identity create -g acc-seed-pod -n podidentity`, save: map[string]string{"principal": "principalId", "identity": "id", "client": "clientId"}},
		row{az: `role assignment create --role Reader --assignee ${principal} --scope /subscriptions/${subscription}/resourcegroups/acc-seed-pod`, out: []check{is("principalId", "${principal}")}},
		row{az: `aks show -n podcluster -g acc-seed-pod`, out: []check{like("servicePrincipalProfile.clientId", `.`)}},
		// A cluster of today has no service principal of its own; the
		// walkthrough's reader takes that of another identity.
		row{az: `ad sp create-for-rbac --name acc-seed-pod-mic`, save: map[string]string{"mic": "appId"}},
		row{az: `ad sp show --id ${mic}`, save: map[string]string{"micObject": "id"}},
		row{az: `role assignment create --role "Managed Identity Operator" --assignee ${micObject} --scope ${identity}`, out: []check{is("principalId", "${micObject}")}},
		row{az: `keyvault create -n acc-seed-pod-kv -g acc-seed-pod --sku standard`, out: []check{is("properties.sku.name", "standard")}},
		row{az: `keyvault set-policy -n acc-seed-pod-kv --object-id ${principal} --secret-permissions get, list --key-permissions get, list --certificate-permissions get, list`,
			exit: 2, err: `'get,' is not a valid value`},
		row{az: `keyvault set-policy -n acc-seed-pod-kv --object-id ${principal} --secret-permissions get list --key-permissions get list --certificate-permissions get list`,
			out:    []check{set("properties.accessPolicies.1.permissions.secrets", "get", "list")},
			cannot: []cannot{{since: "2.61.0", why: newVaultDefault, exit: 1, err: `(?i)rbac`}}},
		row{name: "az keyvault update --enable-rbac-authorization false, and set-policy again",
			sh: `az keyvault update -n acc-seed-pod-kv --enable-rbac-authorization false -o none
az keyvault set-policy -n acc-seed-pod-kv --object-id ${operatorObjectId} --secret-permissions all -o none
az keyvault set-policy -n acc-seed-pod-kv --object-id ${principal} --secret-permissions get list --query properties.enableRbacAuthorization`,
			out: []check{says("false")}},
		row{az: `keyvault secret set --vault-name acc-seed-pod-kv --name Settings--ValueOne --value DemoValueOne`, out: []check{is("value", "DemoValueOne")}},
		row{az: `keyvault secret set --vault-name acc-seed-pod-kv --name Settings--ValueTwo --value DemoValueTwo`, out: []check{is("value", "DemoValueTwo")}},
	)
	return &group{name: "seed-pod-identity", values: map[string]string{"clusterIssuer": clusterIssuer + "pod/"}, rows: rows}
}
