package main

// shopTemplate is what a Bicep file with a vault, a secret, an identity with a
// federated credential and a role assignment compiles to.
const shopTemplate = `{
  "$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#",
  "contentVersion": "1.0.0.0",
  // az sends comments as they are.
  "parameters": {
    "name": {"type": "string", "minLength": 3},
    "location": {"type": "string", "defaultValue": "[resourceGroup().location]"},
    "issuer": {"type": "string"},
    "accounts": {"type": "array", "defaultValue": ["web", "worker"]},
    "dbPassword": {"type": "securestring"}
  },
  "variables": {
    "secretsUser": "[subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '4633458b-17de-408a-b874-0445c86b69e6')]"
  },
  "resources": [
    {
      "type": "Microsoft.ManagedIdentity/userAssignedIdentities",
      "apiVersion": "2023-01-31",
      "name": "[parameters('name')]",
      "location": "[parameters('location')]"
    },
    {
      "copy": {"name": "credentials", "count": "[length(parameters('accounts'))]", "mode": "serial", "batchSize": 1},
      "type": "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials",
      "apiVersion": "2023-01-31",
      "name": "[format('{0}/{1}', parameters('name'), parameters('accounts')[copyIndex()])]",
      "properties": {
        "issuer": "[parameters('issuer')]",
        "subject": "[format('system:serviceaccount:{0}:{1}', parameters('name'), parameters('accounts')[copyIndex()])]",
        "audiences": ["api://AzureADTokenExchange"]
      },
      "dependsOn": ["[resourceId('Microsoft.ManagedIdentity/userAssignedIdentities', parameters('name'))]"]
    },
    {
      "type": "Microsoft.KeyVault/vaults",
      "apiVersion": "2022-07-01",
      "name": "[format('{0}-kv', parameters('name'))]",
      "location": "[parameters('location')]",
      "properties": {
        "tenantId": "[subscription().tenantId]",
        "sku": {"family": "A", "name": "standard"},
        "enableRbacAuthorization": true
      }
    },
    {
      "type": "Microsoft.KeyVault/vaults/secrets",
      "apiVersion": "2022-07-01",
      "name": "[format('{0}/{1}', format('{0}-kv', parameters('name')), 'db-password')]",
      "properties": {"value": "[parameters('dbPassword')]"},
      "dependsOn": ["[resourceId('Microsoft.KeyVault/vaults', format('{0}-kv', parameters('name')))]"]
    },
    {
      "type": "Microsoft.Authorization/roleAssignments",
      "apiVersion": "2022-04-01",
      "scope": "[format('Microsoft.KeyVault/vaults/{0}', format('{0}-kv', parameters('name')))]",
      "name": "[guid(resourceId('Microsoft.KeyVault/vaults', format('{0}-kv', parameters('name'))), parameters('name'), variables('secretsUser'))]",
      "properties": {
        "roleDefinitionId": "[variables('secretsUser')]",
        "principalId": "[reference(resourceId('Microsoft.ManagedIdentity/userAssignedIdentities', parameters('name')), '2023-01-31').principalId]",
        "principalType": "ServicePrincipal"
      },
      "dependsOn": [
        "[resourceId('Microsoft.ManagedIdentity/userAssignedIdentities', parameters('name'))]",
        "[resourceId('Microsoft.KeyVault/vaults', format('{0}-kv', parameters('name')))]"
      ]
    }
  ],
  "outputs": {
    "vaultUri": {"type": "string", "value": "[reference(resourceId('Microsoft.KeyVault/vaults', format('{0}-kv', parameters('name'))), '2022-07-01').vaultUri]"},
    "clientId": {"type": "string", "value": "[reference(resourceId('Microsoft.ManagedIdentity/userAssignedIdentities', parameters('name')), '2023-01-31').clientId]"}
  }
}
`

// deploymentRows are templates.
func deploymentRows() *group {
	const parameters = `--parameters name=accdep issuer=${issuer} dbPassword=${dbPassword}`
	return &group{name: "deployment", values: map[string]string{"dbPassword": "deployed-and-sealed"}, rows: []row{
		login(),
		newGroup("acc-deployment"),
		{az: `deployment group validate -g acc-deployment --template-file shop.json ` + parameters, files: map[string]string{"shop.json": shopTemplate},
			out: []check{is("error", nil), is("properties.provisioningState", "Succeeded"), omits("${dbPassword}")}},
		{az: `deployment group what-if -g acc-deployment --template-file shop.json --no-pretty-print ` + parameters,
			out: []check{count("changes", 6), has("changes.*.changeType", "Create"), lacks("changes.*.changeType", "NoChange"), omits("${dbPassword}")}},
		{az: `identity list -g acc-deployment`, out: []check{count("", 0)}},
		{az: `deployment group create -g acc-deployment --template-file shop.json ` + parameters, out: []check{
			is("name", "shop"), is("properties.provisioningState", "Succeeded"), like("properties.outputs.clientId.value", guidPattern),
			is("properties.outputs.vaultUri.value", "https://accdep-kv.vault.azure.net/"), is("properties.parameters.name.value", "accdep"), omits("${dbPassword}"),
		}, save: map[string]string{"client": "properties.outputs.clientId.value"}},
		{az: `identity show -g acc-deployment -n accdep --query clientId -o tsv`, out: []check{says("${client}")}},
		{az: `identity federated-credential list -g acc-deployment --identity-name accdep --query [].subject`, out: []check{
			count("", 2), has("", "system:serviceaccount:accdep:web"), has("", "system:serviceaccount:accdep:worker")}},
		{az: `role assignment list --scope ${sub}/resourceGroups/acc-deployment/providers/Microsoft.KeyVault/vaults/accdep-kv`, out: []check{count("", 1), is("0.roleDefinitionName", "Key Vault Secrets User")}},
		{name: `the workload reads the deployed secret`, as: &workload{namespace: "accdep", account: "web"},
			sh: `export AZURE_CONFIG_DIR=${work}/azure-workload
az login --service-principal -u $AZURE_CLIENT_ID --tenant $AZURE_TENANT_ID --federated-token "$(cat $AZURE_FEDERATED_TOKEN_FILE)" -o none
az keyvault secret show --vault-name accdep-kv -n db-password --query value -o tsv`,
			out: []check{says("${dbPassword}")}},
		{az: `deployment group what-if -g acc-deployment --template-file shop.json --no-pretty-print ` + parameters,
			out: []check{lacks("changes.*.changeType", "Create"), has("changes.*.changeType", "NoChange")}},
		{az: `deployment group what-if -g acc-deployment --template-file shop.json ` + parameters, out: []check{contains(`(?i)no change|Resource changes`)}},
		{az: `deployment group create -g acc-deployment --template-file shop.json ` + parameters, out: []check{is("properties.provisioningState", "Succeeded"), is("properties.outputs.clientId.value", "${client}")}},
		{az: `deployment group show -g acc-deployment -n shop`, out: []check{is("properties.provisioningState", "Succeeded"), omits("${dbPassword}")}},
		{az: `deployment group list -g acc-deployment`, out: []check{count("", 1), is("0.name", "shop"), omits("${dbPassword}")}},
		{az: `deployment operation group list -g acc-deployment -n shop --query [].properties.targetResource.resourceType`, out: []check{has("", "Microsoft.KeyVault/vaults"), has("", "Microsoft.Authorization/roleAssignments")}},
		{az: `deployment group create -g acc-deployment -n file --template-file shop.json --parameters @parameters.json`,
			files: map[string]string{"parameters.json": `{"$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentParameters.json#", "contentVersion": "1.0.0.0",
  "parameters": {"name": {"value": "accdep"}, "issuer": {"value": "${issuer}"}, "dbPassword": {"value": "${dbPassword}"}}}`},
			out: []check{is("name", "file"), is("properties.provisioningState", "Succeeded")}},

		// What fails, says which and why.
		{az: `deployment group validate -g acc-deployment --template-file bad.json`, files: map[string]string{"bad.json": `{"$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#", "contentVersion": "1.0.0.0",
  "resources": [{"type": "Microsoft.ManagedIdentity/userAssignedIdentities", "apiVersion": "2023-01-31", "name": "[noSuchFunction('x')]", "location": "westeurope"}]}`},
			exit: 1, err: `InvalidTemplate.*noSuchFunction`},
		{az: `deployment group create -g acc-deployment --template-file cycle.json`, files: map[string]string{"cycle.json": `{"$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#", "contentVersion": "1.0.0.0",
  "resources": [
    {"type": "Microsoft.ManagedIdentity/userAssignedIdentities", "apiVersion": "2023-01-31", "name": "one", "location": "westeurope", "dependsOn": ["two"]},
    {"type": "Microsoft.ManagedIdentity/userAssignedIdentities", "apiVersion": "2023-01-31", "name": "two", "location": "westeurope", "dependsOn": ["one"]}]}`},
			exit: 1, err: `(?i)circular|cycl`},
		{az: `deployment group create -g acc-deployment --template-file half.json`, files: map[string]string{"half.json": `{"$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#", "contentVersion": "1.0.0.0",
  "resources": [
    {"type": "Microsoft.ManagedIdentity/userAssignedIdentities", "apiVersion": "2023-01-31", "name": "half", "location": "westeurope"},
    {"type": "Microsoft.Authorization/roleAssignments", "apiVersion": "2022-04-01", "name": "22222222-2222-2222-2222-222222222222", "dependsOn": ["half"],
     "properties": {"roleDefinitionId": "[subscriptionResourceId('Microsoft.Authorization/roleDefinitions', 'acdd72a7-3385-48ef-bd42-f606fba81ae7')]", "principalId": "33333333-3333-3333-3333-333333333333", "principalType": "ServicePrincipal"}}]}`},
			exit: 1, err: `PrincipalNotFound`},
		{az: `deployment group show -g acc-deployment -n half --query properties.provisioningState -o tsv`, out: []check{says("Failed")}},
		{az: `identity show -g acc-deployment -n half`, out: []check{is("name", "half")}},
		{az: `deployment group show -g acc-deployment -n absent`, exit: 3, err: `DeploymentNotFound`},
		{az: `deployment group delete -g acc-deployment -n half`},
		{az: `deployment group list -g acc-deployment --query [].name`, out: []check{count("", 2), lacks("", "half")}},
	}}
}
