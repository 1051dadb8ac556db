package main

// groupRows are resource groups.
func groupRows() *group {
	return &group{name: "group", rows: []row{
		login(),
		{az: `group create -n acc-group -l westeurope --tags team=web`, out: []check{
			is("name", "acc-group"), is("location", "westeurope"), is("tags.team", "web"), is("properties.provisioningState", "Succeeded"),
			isFold("id", "${sub}/resourceGroups/acc-group"), is("type", "Microsoft.Resources/resourceGroups"),
		}},
		{az: `group create -n acc-group -l "West Europe"`, out: []check{is("location", "westeurope")}},
		{az: `group create -n acc-group -l eastus`, exit: 1, err: `InvalidResourceGroupLocation`},
		{az: `group create -n "acc group!" -l westeurope`, exit: 1, err: `InvalidResourceGroup|InvalidParameter`},
		{az: `group show -n ACC-GROUP`, out: []check{isFold("name", "acc-group")}},
		{az: `group exists -n acc-group`, out: []check{says("true")}},
		{az: `group exists -n acc-absent`, out: []check{says("false")}},
		{az: `group list`, out: []check{has("*.name", "acc-group")}},
		{az: `group update -n acc-group --tags team=shop`, out: []check{is("tags.team", "shop")}},
		{az: `group list --tag team=shop --query [].name`, out: []check{has("", "acc-group")}},
		{az: `identity create -g acc-group -n acc-group-identity`},
		{az: `group delete -n acc-group -y`, out: []check{nothing()}},
		{az: `group exists -n acc-group`, out: []check{says("false")}},
		{az: `group show -n acc-group`, exit: 3, err: `ResourceGroupNotFound`},
		{az: `identity show -g acc-group -n acc-group-identity`, exit: 3, err: `ResourceGroupNotFound|ResourceNotFound`},
	}}
}

// identityRows are managed identities and their federated credentials.
func identityRows() *group {
	return &group{name: "identity", rows: []row{
		login(),
		newGroup("acc-identity"),
		{az: `identity create -g acc-identity -n shop`, out: []check{
			is("name", "shop"), is("location", "westeurope"), is("resourceGroup", "acc-identity"), is("tenantId", "${tenant}"),
			like("clientId", guidPattern), like("principalId", guidPattern), is("type", "Microsoft.ManagedIdentity/userAssignedIdentities"),
		}, save: map[string]string{"client": "clientId", "principal": "principalId"}},
		{az: `identity create -g acc-identity -n other -l northeurope --tags a=b`, out: []check{is("location", "northeurope"), is("tags.a", "b")}},
		{az: `identity create -g acc-absent -n shop -l westeurope`, exit: 3, err: `ResourceGroupNotFound`},
		{az: `identity show -g acc-identity -n shop --query clientId -o tsv`, out: []check{says("${client}")}},
		{az: `identity show -g acc-identity -n absent`, exit: 3, err: `ResourceNotFound`},
		{az: `identity list -g acc-identity`, out: []check{count("", 2), has("*.name", "shop"), has("*.name", "other")}},
		{az: `identity list --query [].clientId`, out: []check{has("", "${client}")}},
		{az: `ad sp show --id ${client}`, out: []check{is("id", "${principal}"), is("appId", "${client}"), is("servicePrincipalType", "ManagedIdentity")}},

		{az: `identity federated-credential create --name web --identity-name shop -g acc-identity --issuer https://issuer.example/ --subject system:serviceaccount:shop:web --audience api://AzureADTokenExchange`,
			out: []check{is("name", "web"), is("issuer", "https://issuer.example/"), is("subject", "system:serviceaccount:shop:web"), is("audiences", []string{"api://AzureADTokenExchange"})}},
		{az: `identity federated-credential create --name second --identity-name shop -g acc-identity --issuer https://issuer.example/ --subject system:serviceaccount:shop:worker`,
			out: []check{is("audiences", []string{"api://AzureADTokenExchange"})}},
		{az: `identity federated-credential create --name third --identity-name shop -g acc-identity --issuer https://issuer.example/ --subject system:serviceaccount:shop:web --audiences api://AzureADTokenExchange`,
			exit: 1, err: `(?i)issuer.*subject|already exists|unique`},
		{az: `identity federated-credential create --name fourth --identity-name absent -g acc-identity --issuer https://issuer.example/ --subject s --audiences api://AzureADTokenExchange`,
			exit: 3, err: `NotFound`},
		{az: `identity federated-credential list --identity-name shop -g acc-identity`, out: []check{count("", 2), has("*.name", "web"), has("*.name", "second")}},
		{az: `identity federated-credential show --name web --identity-name shop -g acc-identity`, out: []check{is("subject", "system:serviceaccount:shop:web")}},
		{az: `identity federated-credential update --name web --identity-name shop -g acc-identity --issuer https://issuer.example/ --subject system:serviceaccount:shop:changed --audiences api://AzureADTokenExchange`,
			out: []check{is("subject", "system:serviceaccount:shop:changed")}},
		{az: `identity federated-credential show --name web --identity-name shop -g acc-identity --query subject -o tsv`, out: []check{says("system:serviceaccount:shop:changed")}},
		{az: `identity federated-credential delete --name second --identity-name shop -g acc-identity --yes`, out: []check{nothing()}},
		{az: `identity federated-credential list --identity-name shop -g acc-identity --query [].name`, out: []check{says("[\n  \"web\"\n]")}},
		{az: `identity federated-credential show --name second --identity-name shop -g acc-identity`, exit: 3, err: `NotFound`},
		{az: `identity delete -g acc-identity -n shop`, out: []check{nothing()}},
		{az: `identity show -g acc-identity -n shop`, exit: 3, err: `ResourceNotFound`},
		{az: `ad sp show --id ${client}`, exit: 3, err: `does not exist or one of its queried`},
	}}
}

const guidPattern = `^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`

// roleRows are role assignments, in every form that az has for the assignee.
func roleRows() *group {
	return &group{name: "role-assignment", rows: []row{
		login(),
		newGroup("acc-roles"),
		{az: `identity create -g acc-roles -n shop`, save: map[string]string{"client": "clientId", "principal": "principalId", "identity": "id"}},
		{az: `identity create -g acc-roles -n operator`, save: map[string]string{"otherPrincipal": "principalId"}},
		{az: `keyvault create -n acc-roles-kv -g acc-roles --enable-rbac-authorization true`, out: []check{is("properties.enableRbacAuthorization", true)},
			save: map[string]string{"vault": "id"}},

		{az: `role assignment create --role Reader --assignee ${principal} --scope ${sub}/resourcegroups/acc-roles`,
			out:  []check{is("principalId", "${principal}"), is("principalType", "ServicePrincipal"), like("roleDefinitionId", `acdd72a7-3385-48ef-bd42-f606fba81ae7$`)},
			save: map[string]string{"assignment": "id"}},
		{az: `role assignment create --role Reader --assignee ${principal} --scope ${sub}/resourcegroups/acc-roles`, out: []check{is("id", "${assignment}")}},
		{az: `role assignment create --assignee-object-id ${principal} --role "Key Vault Secrets User" --scope ${vault} --assignee-principal-type ServicePrincipal`,
			out: []check{isFold("scope", "${vault}"), is("principalId", "${principal}")}},
		{az: `role assignment create --role "Managed Identity Operator" --assignee ${client} --scope ${identity}`, out: []check{is("principalId", "${principal}")}},
		{az: `role assignment create --role Reader --assignee ${userName} --scope ${vault}`, out: []check{is("principalType", "User")}},
		{az: `role assignment create --role Contributor --assignee-object-id ${otherPrincipal} --scope ${vault}`, out: []check{is("principalType", "ServicePrincipal")}},
		{az: `role assignment create --role 4633458b-17de-408a-b874-0445c86b69e6 --assignee-object-id ${otherPrincipal} --assignee-principal-type ServicePrincipal --scope ${vault}`,
			out: []check{like("roleDefinitionId", `4633458b-17de-408a-b874-0445c86b69e6$`)}},
		{az: `role assignment create --role "No Such Role" --assignee ${principal} --scope ${vault}`, exit: 1, err: `doesn't exist`},
		{az: `role assignment create --role Reader --assignee nobody@${domain} --scope ${vault}`, exit: 1, err: `Cannot find user or service principal`},
		{az: `role assignment create --role Reader --assignee-object-id 11111111-1111-1111-1111-111111111111 --assignee-principal-type ServicePrincipal --scope ${vault}`,
			exit: 1, err: `PrincipalNotFound`},

		{az: `role assignment list --scope ${vault}`, out: []check{count("", 4), has("*.principalId", "${principal}"), has("*.roleDefinitionName", "Key Vault Secrets User"), has("*.principalName", "${userName}")}},
		{az: `role assignment list -g acc-roles --query [].roleDefinitionName`, out: []check{has("", "Reader")}},
		{az: `role assignment list --assignee ${client} --all`, out: []check{count("", 3), has("*.roleDefinitionName", "Managed Identity Operator")}},
		{az: `role assignment list --assignee ${otherPrincipal} --scope ${vault} --query [].roleDefinitionName`, out: []check{count("", 2), has("", "Contributor"), has("", "Key Vault Secrets User")}},
		{az: `role assignment list --scope ${vault} --include-inherited --query [].roleDefinitionName`, out: []check{has("", "Reader")}},
		{az: `role assignment delete --assignee ${principal} --role "Key Vault Secrets User" --scope ${vault}`, out: []check{nothing()}},
		{az: `role assignment list --assignee ${principal} --scope ${vault}`, out: []check{count("", 0)}},
		{az: `role assignment delete --ids ${assignment}`, out: []check{nothing()}},
		{az: `role assignment list --assignee ${client} --all`, out: []check{count("", 1)}},
	}}
}

// roleDefinitionRows are built-in and custom roles.
func roleDefinitionRows() *group {
	const custom = `{"Name": "Acceptance Secret Reader", "Description": "${description}", "IsCustom": true,
  "Actions": ["Microsoft.KeyVault/vaults/read"], "NotActions": [], "DataActions": ["Microsoft.KeyVault/vaults/secrets/getSecret/action"], "NotDataActions": [],
  "AssignableScopes": ["${sub}"]}`
	return &group{name: "role-definition", values: map[string]string{"description": "Reads secrets"}, rows: []row{
		login(),
		newGroup("acc-custom"),
		{az: `role definition list --name "Key Vault Secrets User"`, out: []check{
			count("", 1), is("0.roleName", "Key Vault Secrets User"), is("0.name", "4633458b-17de-408a-b874-0445c86b69e6"), is("0.roleType", "BuiltInRole"),
			has("0.permissions.0.dataActions", "Microsoft.KeyVault/vaults/secrets/getSecret/action"),
		}},
		{az: `role definition list --query [].roleName`, out: []check{has("", "Owner"), has("", "Reader"), has("", "Managed Identity Operator"), has("", "Key Vault Secrets Officer")}},
		{az: `role definition list --name "No Such Role"`, out: []check{count("", 0)}},
		{az: `role definition create --role-definition @role.json`, files: map[string]string{"role.json": custom},
			out:  []check{is("roleName", "Acceptance Secret Reader"), is("roleType", "CustomRole"), is("assignableScopes.0", "${sub}")},
			save: map[string]string{"roleGuid": "name"}},
		{az: `role definition list --custom-role-only --query [].roleName`, out: []check{has("", "Acceptance Secret Reader")}},
		{az: `identity create -g acc-custom -n custom`, save: map[string]string{"principal": "principalId"}},
		{az: `role assignment create --role "Acceptance Secret Reader" --assignee-object-id ${principal} --assignee-principal-type ServicePrincipal --scope ${sub}/resourceGroups/acc-custom`,
			out: []check{like("roleDefinitionId", `[0-9a-f-]{36}$`)}},
		{az: `role definition update --role-definition @changed.json`, files: map[string]string{"changed.json": `{"roleName": "Acceptance Secret Reader", "name": "${roleGuid}", "description": "Reads and lists secrets",
  "id": "${sub}/providers/Microsoft.Authorization/roleDefinitions/${roleGuid}", "roleType": "CustomRole", "type": "Microsoft.Authorization/roleDefinitions",
  "permissions": [{"actions": ["Microsoft.KeyVault/vaults/read"], "notActions": [], "dataActions": ["Microsoft.KeyVault/vaults/secrets/getSecret/action", "Microsoft.KeyVault/vaults/secrets/readMetadata/action"], "notDataActions": []}],
  "assignableScopes": ["${sub}"]}`},
			out: []check{is("description", "Reads and lists secrets")}},
		{az: `role definition list --name "Acceptance Secret Reader"`, out: []check{count("0.permissions.0.dataActions", 2)}},
		{az: `role definition delete --name "Acceptance Secret Reader"`, exit: 1, err: `RoleDefinitionHasAssignments`},
		{az: `role assignment delete --assignee ${principal} --role "Acceptance Secret Reader" --scope ${sub}/resourceGroups/acc-custom`},
		{az: `role definition delete --name "Acceptance Secret Reader"`, out: []check{nothing()}},
		{az: `role definition list --name "Acceptance Secret Reader"`, out: []check{count("", 0)}},
		{az: `role definition delete --name Reader`, exit: 1, err: `RoleDefinitionUpdateNotPermitted`},
	}}
}

// resourceRows are the generic commands.
func resourceRows() *group {
	return &group{name: "resource", rows: []row{
		login(),
		newGroup("acc-resource"),
		{az: `identity create -g acc-resource -n shop --tags tier=front`, save: map[string]string{"identity": "id", "client": "clientId"}},
		{az: `keyvault create -n acc-resource-kv -g acc-resource --no-self-perms true --enable-rbac-authorization false`, save: map[string]string{"vault": "id"}},
		{az: `resource list -g acc-resource`, out: []check{count("", 2), has("*.type", "Microsoft.KeyVault/vaults"), has("*.name", "shop")}},
		{az: `resource list --resource-type Microsoft.KeyVault/vaults --query [].name`, out: []check{has("", "acc-resource-kv"), lacks("", "shop")}},
		{az: `resource list --name acc-resource-kv`, out: []check{count("", 1), isFold("0.id", "${vault}")}},
		{az: `resource list --tag tier=front --query [].name`, out: []check{has("", "shop")}},
		{az: `resource show --ids ${identity}`, out: []check{is("name", "shop"), is("properties.clientId", "${client}")}},
		{az: `resource show -g acc-resource -n acc-resource-kv --resource-type Microsoft.KeyVault/vaults`, out: []check{like("properties.vaultUri", `^https://acc-resource-kv\.vault\.azure\.net/$`)}},
		{az: `resource show --ids ${vault} --api-version 2022-07-01`, out: []check{is("name", "acc-resource-kv")}},
		{az: `resource show --ids ${vault} --api-version 1999-01-01`, exit: 1, err: `(?i)InvalidApiVersion|NoRegisteredProviderFound|InvalidResourceType`},
		{az: `resource show -g acc-resource -n x --resource-type Microsoft.Nothing/things --api-version 2022-07-01`, exit: 3, err: `InvalidResourceNamespace`},
		{az: `rest --method get --url ${sub}/resourceGroups/acc-resource?api-version=2021-04-01`, out: []check{is("name", "acc-resource")}},
		{az: `rest --method put --url https://management.azure.com${sub}/resourcegroups/acc-rest?api-version=2021-04-01 --body '{"location":"westeurope"}'`,
			exit: 0, out: []check{is("properties.provisioningState", "Succeeded")}},
		{az: `rest --method get --url ${sub}/resourceGroups?api-version=2021-04-01 --query value[].name`, out: []check{has("", "acc-rest")}},
		{az: `rest --method delete --url ${sub}/resourceGroups/acc-rest?api-version=2021-04-01`},
		{az: `rest --method get --url ${sub}/resourceGroups/acc-rest?api-version=2021-04-01`, exit: 1, err: `ResourceGroupNotFound`},
		{az: `rest --method get --url "https://graph.microsoft.com/v1.0/servicePrincipals?$filter=appId+eq+'${client}'"`, out: []check{count("value", 1), is("value.0.appId", "${client}")}},
		{az: `rest --method get --url https://acc-resource-kv.vault.azure.net/secrets?api-version=7.4 --resource https://vault.azure.net`, exit: 1, err: `Forbidden`},
		{az: `resource delete --ids ${identity}`},
		{az: `resource list -g acc-resource --query [].name`, out: []check{says("[\n  \"acc-resource-kv\"\n]")}},
	}}
}
