package main

// vaultRows are vaults on the management plane, in both permission models.
func vaultRows() *group {
	return &group{name: "keyvault", rows: []row{
		login(),
		newGroup("acc-vault"),
		{az: `identity create -g acc-vault -n shop`, save: map[string]string{"client": "clientId", "principal": "principalId"}},
		{az: `keyvault create -n acc-policies -g acc-vault --sku standard --enable-rbac-authorization false`, out: []check{
			is("name", "acc-policies"), is("location", "westeurope"), is("properties.vaultUri", "https://acc-policies.vault.azure.net/"), is("properties.tenantId", "${tenant}"),
			is("properties.accessPolicies.0.objectId", "${operatorObjectId}"), is("properties.sku.name", "standard"), is("properties.enableSoftDelete", true),
		}},
		{az: `keyvault create -n acc-policies -g acc-vault`, exit: 1, err: `(?i)already exist`},
		{az: `keyvault create -n acc-rbac -g acc-vault --enable-rbac-authorization true --retention-days 7 --tags a=b`, out: []check{
			is("properties.enableRbacAuthorization", true), is("properties.accessPolicies", []any{}), is("properties.softDeleteRetentionInDays", 7), is("tags.a", "b"),
		}},
		{az: `keyvault create -n no_name -g acc-vault`, exit: 1, err: `VaultNameNotValid|(?i)name`},
		{az: `keyvault show -n acc-policies --query properties.vaultUri -o tsv`, out: []check{says("https://acc-policies.vault.azure.net/")}},
		{az: `keyvault show -n acc-policies -g acc-vault`, out: []check{is("resourceGroup", "acc-vault"), is("type", "Microsoft.KeyVault/vaults")}},
		{az: `keyvault show -n acc-absent`, exit: 1, err: `not found`},
		{az: `keyvault list -g acc-vault`, out: []check{count("", 2), has("*.name", "acc-rbac")}},
		{az: `keyvault list --query [].name`, out: []check{has("", "acc-policies"), has("", "acc-rbac")}},

		{az: `keyvault set-policy --name acc-policies --object-id ${principal} --secret-permissions get set`,
			out: []check{has("properties.accessPolicies.*.objectId", "${principal}"), set("properties.accessPolicies.1.permissions.secrets", "get", "set")}},
		{az: `keyvault set-policy -n acc-policies --key-permissions get --spn ${client}`, out: []check{
			set("properties.accessPolicies.1.permissions.keys", "get"), set("properties.accessPolicies.1.permissions.secrets", "get", "set")}},
		{az: `keyvault set-policy -n acc-policies -g acc-vault --certificate-permissions get list --spn ${client}`, out: []check{
			set("properties.accessPolicies.1.permissions.certificates", "get", "list")}},
		{az: `keyvault set-policy -n acc-policies --upn ${userName} --secret-permissions all`, out: []check{count("properties.accessPolicies", 3)}},
		{az: `keyvault set-policy -n acc-policies --spn 11111111-1111-1111-1111-111111111111 --secret-permissions get`, exit: 1, err: `Unable to get object id`},
		{az: `keyvault set-policy -n acc-policies --object-id ${principal} --secret-permissions get, list`, exit: 2, err: `'get,' is not a valid value`},
		{az: `keyvault set-policy -n acc-rbac --object-id ${principal} --secret-permissions get`, exit: 1, err: `(?i)rbac`},
		{az: `keyvault delete-policy -n acc-policies --spn ${client}`, out: []check{lacks("properties.accessPolicies.*.objectId", "${principal}")}},
		{az: `keyvault delete-policy -n acc-policies --upn ${userName}`, out: []check{count("properties.accessPolicies", 1)}},
		{az: `keyvault update -n acc-policies --enabled-for-deployment true`, out: []check{is("properties.enabledForDeployment", true), count("properties.accessPolicies", 1)}},
		{az: `keyvault update -n acc-rbac --retention-days 8`, exit: 1, err: `softDeleteRetentionInDays`},

		{az: `keyvault secret set --vault-name acc-policies -n kept --value through-recovery`},
		{az: `keyvault delete -n acc-policies -g acc-vault`, out: []check{nothing()}},
		{az: `keyvault show -n acc-policies -g acc-vault`, exit: 3, err: `ResourceNotFound|not found`},
		{az: `keyvault list-deleted`, out: []check{has("*.name", "acc-policies")}},
		{az: `keyvault show-deleted -n acc-policies`, out: []check{is("name", "acc-policies"), like("properties.scheduledPurgeDate", `^20`)}},
		{az: `keyvault create -n acc-policies -g acc-vault`, exit: 1, err: `(?i)deleted state|soft.?deleted|recover`},
		{az: `keyvault recover -n acc-policies`, out: []check{is("name", "acc-policies")}},
		{az: `keyvault secret show --vault-name acc-policies -n kept --query value -o tsv`, out: []check{says("through-recovery")}},
		{az: `keyvault delete -n acc-policies`, out: []check{nothing()}},
		{az: `keyvault purge -n acc-policies`, out: []check{nothing()}},
		{az: `keyvault list-deleted --query [].name`, out: []check{lacks("", "acc-policies")}},
		{az: `keyvault create -n acc-policies -g acc-vault --enable-rbac-authorization false`, out: []check{is("name", "acc-policies")}},
		{az: `keyvault secret list --vault-name acc-policies`, out: []check{count("", 0)}},
	}}
}

// secretRows are secrets on the data plane.
func secretRows() *group {
	return &group{name: "secret", rows: []row{
		login(),
		newGroup("acc-secret"),
		{az: `keyvault create -n acc-secret -g acc-secret --enable-rbac-authorization false`},
		{az: `keyvault create -n acc-secret-rbac -g acc-secret --enable-rbac-authorization true`, save: map[string]string{"rbacVault": "id"}},

		{az: `keyvault secret set --vault-name acc-secret --name Settings--ValueOne --value DemoValueOne`, out: []check{
			is("name", "Settings--ValueOne"), is("value", "DemoValueOne"), like("id", `^https://acc-secret\.vault\.azure\.net/secrets/Settings--ValueOne/[0-9a-f]{32}$`),
			is("attributes.enabled", true), is("tags.file-encoding", "utf-8"),
		}, save: map[string]string{"first": "id"}},
		{az: `keyvault secret set --vault-name acc-secret -n Settings--ValueOne --value Second --tags a=b --content-type text/plain`, out: []check{is("contentType", "text/plain"), is("tags.a", "b")}},
		{az: `keyvault secret show --vault-name acc-secret -n Settings--ValueOne --query value -o tsv`, out: []check{says("Second")}},
		{az: `keyvault secret show --id ${first} --query value -o tsv`, out: []check{says("DemoValueOne")}},
		{az: `keyvault secret show --vault-name acc-secret -n absent`, exit: 3, err: `SecretNotFound`},
		{az: `keyvault secret list-versions --vault-name acc-secret -n Settings--ValueOne`, out: []check{count("", 2), has("*.id", "${first}"), omits("DemoValueOne")}},
		{az: `keyvault secret set --vault-name acc-secret -n from-file --file value.txt`, files: map[string]string{"value.txt": "several\nlines\n"}, out: []check{is("value", "several\nlines\n")}},
		{az: `keyvault secret set --vault-name acc-secret -n binary --file value.txt --encoding base64`, out: []check{is("tags.file-encoding", "base64")}},
		{az: `keyvault secret list --vault-name acc-secret`, out: []check{count("", 3), has("*.name", "from-file"), omits("several")}},
		{az: `keyvault secret list --vault-name acc-secret --maxresults 1`, out: []check{count("", 1)}},
		{sh: `az keyvault secret download --vault-name acc-secret -n from-file --file copy.txt && cmp copy.txt value.txt`, out: []check{nothing()}},
		{sh: `az keyvault secret download --vault-name acc-secret -n binary --file copy.bin && cmp copy.bin value.txt`, out: []check{nothing()}},
		{az: `keyvault secret set-attributes --vault-name acc-secret -n from-file --enabled false --expires 2036-01-01T00:00:00Z`, out: []check{is("attributes.enabled", false), like("attributes.expires", `^2036-01-01`)}},
		{az: `keyvault secret show --vault-name acc-secret -n from-file`, exit: 1, err: `Forbidden|SecretDisabled|disabled`},
		{az: `keyvault secret set-attributes --vault-name acc-secret -n from-file --enabled true`, out: []check{is("attributes.enabled", true)}},
		{az: `keyvault secret backup --vault-name acc-secret -n Settings--ValueOne --file backup.bin`},
		{az: `keyvault secret delete --vault-name acc-secret -n Settings--ValueOne`, out: []check{like("recoveryId", `/deletedsecrets/Settings--ValueOne$`)}},
		{az: `keyvault secret show --vault-name acc-secret -n Settings--ValueOne`, exit: 3, err: `SecretNotFound`},
		{az: `keyvault secret list-deleted --vault-name acc-secret`, out: []check{has("*.name", "Settings--ValueOne")}},
		{az: `keyvault secret show-deleted --vault-name acc-secret -n Settings--ValueOne`, out: []check{like("scheduledPurgeDate", `^20`)}},
		{az: `keyvault secret recover --vault-name acc-secret -n Settings--ValueOne`, out: []check{is("name", "Settings--ValueOne")}},
		{az: `keyvault secret show --vault-name acc-secret -n Settings--ValueOne --query value -o tsv`, out: []check{says("Second")}},
		{az: `keyvault secret restore --vault-name acc-secret --file backup.bin`, exit: 1, err: `Conflict|already`},
		{az: `keyvault secret delete --vault-name acc-secret -n Settings--ValueOne`},
		{az: `keyvault secret purge --vault-name acc-secret -n Settings--ValueOne`, out: []check{nothing()}},
		{az: `keyvault secret restore --vault-name acc-secret --file backup.bin`, out: []check{is("name", "Settings--ValueOne")}},
		{az: `keyvault secret show --vault-name acc-secret -n Settings--ValueOne --query value -o tsv`, out: []check{says("Second")}},
		{az: `keyvault secret set --vault-name acc-secret -n not_a_name --value x`, exit: 1, err: `BadParameter`},
		{az: `keyvault secret set --vault-name acc-no-such-vault -n x --value x`, exit: 1, err: `VaultNotFound`},

		// Role-based: nothing before the role, everything with it.
		{az: `keyvault secret set --vault-name acc-secret-rbac -n db --value hidden`, exit: 1, err: `Forbidden`},
		{az: `role assignment create --role "Key Vault Secrets Officer" --assignee-object-id ${operatorObjectId} --assignee-principal-type ServicePrincipal --scope ${rbacVault}`},
		{az: `keyvault secret set --vault-name acc-secret-rbac -n db --value hidden`, out: []check{is("value", "hidden")}},
		{az: `keyvault secret list --vault-name acc-secret-rbac`, out: []check{count("", 1), omits("hidden")}},
		{az: `rest --method get --url https://acc-secret-rbac.vault.azure.net/secrets/db?api-version=7.4 --resource https://vault.azure.net`, out: []check{is("value", "hidden")}},
	}}
}

// readerRows show that somebody with Reader alone can look and change nothing,
// and that nobody sees what is not theirs.
func readerRows() *group {
	const scope = `${sub}/resourceGroups/acc-reader`
	forbidden := func(az string) row {
		return row{az: az, exit: 1, err: `AuthorizationFailed|Authorization_RequestDenied|Forbidden|Directory permission is needed`}
	}
	return &group{name: "reader", rows: []row{
		login(),
		newGroup("acc-reader"),
		newGroup("acc-reader-not"),
		{az: `identity create -g acc-reader -n shop`, save: map[string]string{"principal": "principalId"}},
		{az: `keyvault create -n acc-reader-kv -g acc-reader --enable-rbac-authorization false`, save: map[string]string{"vault": "id"}},
		{az: `keyvault secret set --vault-name acc-reader-kv -n db --value hidden`},
		{az: `ad sp create-for-rbac --name acc-reader --role Reader --scopes ` + scope, save: map[string]string{"readerId": "appId", "readerSecret": "password"}},
		{az: `account clear`},
		{az: `login --service-principal -u ${readerId} -p ${readerSecret} --tenant ${tenant}`, out: []check{is("0.id", "${subscription}")}},

		{az: `group list --query [].name`, out: []check{says("[\n  \"acc-reader\"\n]")}},
		{az: `identity show -g acc-reader -n shop`, out: []check{is("principalId", "${principal}")}},
		{az: `keyvault show -n acc-reader-kv -g acc-reader`, out: []check{is("name", "acc-reader-kv")}},
		{az: `resource list --query [].name`, out: []check{count("", 2)}},
		{az: `keyvault list --query [].name`, out: []check{says("[\n  \"acc-reader-kv\"\n]")}},
		{az: `role assignment list --scope ` + scope, out: []check{count("", 1), is("0.roleDefinitionName", "Reader")}},

		forbidden(`group show -n acc-reader-not`),
		forbidden(`group create -n acc-reader -l westeurope --tags a=b`),
		forbidden(`group create -n acc-reader-new -l westeurope`),
		forbidden(`group delete -n acc-reader -y`),
		forbidden(`identity create -g acc-reader -n new -l westeurope`),
		forbidden(`identity delete -g acc-reader -n shop`),
		forbidden(`identity federated-credential create --name web --identity-name shop -g acc-reader --issuer https://issuer.example/ --subject s --audiences api://AzureADTokenExchange`),
		forbidden(`keyvault create -n acc-reader-new -g acc-reader -l westeurope --no-self-perms true --enable-rbac-authorization false`),
		forbidden(`keyvault set-policy -n acc-reader-kv -g acc-reader --object-id ${principal} --secret-permissions get`),
		forbidden(`keyvault delete -n acc-reader-kv -g acc-reader`),
		forbidden(`keyvault secret show --vault-name acc-reader-kv -n db`),
		forbidden(`keyvault secret list --vault-name acc-reader-kv`),
		forbidden(`keyvault secret set --vault-name acc-reader-kv -n db --value mine`),
		forbidden(`role assignment create --role Owner --assignee-object-id ${principal} --assignee-principal-type ServicePrincipal --scope ` + scope),
		forbidden(`deployment group create -g acc-reader --template-file empty.json`).with("empty.json", `{"$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#", "contentVersion": "1.0.0.0", "resources": []}`),
		forbidden(`ad app create --display-name acc-reader-new`),
		forbidden(`rest --method put --url ${vault}/accessPolicies/add?api-version=2022-07-01 --body '{"properties":{"accessPolicies":[]}}'`),

		{az: `account clear`},
		login(),
		{az: `group show -n acc-reader --query tags`, out: []check{contains(`^\s*(\{\}|null|)\s*$`)}},
		{az: `keyvault show -n acc-reader-kv --query properties.accessPolicies`, out: []check{count("", 1)}},
		{az: `identity federated-credential list --identity-name shop -g acc-reader`, out: []check{count("", 0)}},
		{az: `keyvault secret list-versions --vault-name acc-reader-kv -n db`, out: []check{count("", 1)}},
		{az: `role assignment list --scope ` + scope, out: []check{count("", 1)}},
	}}
}

// with adds a file to a row.
func (r row) with(name, content string) row {
	r.files = map[string]string{name: content}
	return r
}
