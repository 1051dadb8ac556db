package main

// ownNameRows are the shorter pass with Podkey as a cloud of its own.
func ownNameRows() *group {
	return &group{name: "own-names", ownNames: true, rows: []row{
		{podkey: `az-cloud -o json`, out: []check{
			like("endpoints.activeDirectory", `^https://login\.`), like("endpoints.resourceManager", `^https://management\.`), is("suffixes.keyvaultDns", "${vaultSuffix}"),
		}, err: `az cloud register`, save: map[string]string{"cloud": ""}},
		{az: `cloud register -n Podkey --cloud-config @cloud.json`, files: map[string]string{"cloud.json": "${cloud}"}},
		{az: `cloud set -n Podkey`},
		{az: `cloud show --query name -o tsv`, out: []check{says("Podkey")}},
		{az: `login --service-principal -u ${operatorId} -p ${operatorSecret} --tenant ${tenant}`, out: []check{is("0.cloudName", "Podkey"), is("0.id", "${subscription}")}},
		newGroup("acc-own"),
		{az: `identity create -g acc-own -n shop`, save: map[string]string{"client": "clientId", "principal": "principalId"}},
		{az: `keyvault create -n acc-own-kv -g acc-own --enable-rbac-authorization false`, out: []check{is("properties.vaultUri", "https://acc-own-kv${vaultSuffix}/"), is("properties.accessPolicies.0.objectId", "${operatorObjectId}")}},
		{az: `keyvault set-policy -n acc-own-kv --spn ${client} --secret-permissions get`, out: []check{count("properties.accessPolicies", 2)}},
		{az: `keyvault secret set --vault-name acc-own-kv -n db --value own`, out: []check{like("id", `^https://acc-own-kv\.vault\.`)}},
		{az: `keyvault secret show --vault-name acc-own-kv -n db --query value -o tsv`, out: []check{says("own")}},
		{az: `keyvault secret list --vault-name acc-own-kv --query [].name`, out: []check{says("[\n  \"db\"\n]")}},
		{az: `role assignment create --role Reader --assignee ${principal} --scope ${sub}/resourceGroups/acc-own`, out: []check{is("principalId", "${principal}")}},
		{az: `role assignment list -g acc-own --query [].principalId`, out: []check{has("", "${principal}")}},
		{az: `ad sp create-for-rbac --name acc-own-app`, out: []check{like("appId", guidPattern)}},
		{az: `account clear`},
		{az: `login`, signIn: &signIn{how: "device"}, err: `enter the code`, out: []check{is("0.user.name", "${userName}"), has("*.id", "${subscription}")}},
		{az: `ad signed-in-user show --query userPrincipalName -o tsv`, out: []check{says("${userName}")}},
		{az: `keyvault secret show --vault-name acc-own-kv -n db`, exit: 1, err: `Forbidden`},
	}}
}
