package main

// directoryRows are applications, service principals and their credentials.
func directoryRows() *group {
	const credential = `{"name": "kubernetes-federated-credential", "issuer": "${issuer}", "subject": "system:serviceaccount:${subject}",
  "description": "Kubernetes service account federated credential", "audiences": ["api://AzureADTokenExchange"]}`
	return &group{name: "directory", values: map[string]string{"subject": "shop:web"}, rows: []row{
		login(),
		newGroup("acc-directory"),
		{az: `ad sp create-for-rbac --name acc-app`, out: []check{is("displayName", "acc-app"), is("tenant", "${tenant}"), like("appId", guidPattern), like("password", `.{20}`)},
			save: map[string]string{"app": "appId", "appSecret": "password"}},
		{az: `ad sp list --display-name acc-app --query [0].appId -o tsv`, out: []check{says("${app}")}},
		{az: `ad sp list --all --query [].appId`, out: []check{has("", "${app}")}},
		{az: `ad sp show --id ${app}`, out: []check{is("appId", "${app}"), is("servicePrincipalType", "Application"), has("servicePrincipalNames", "${app}")}, save: map[string]string{"sp": "id"}},
		{az: `ad sp show --id ${sp}`, out: []check{is("appId", "${app}")}},
		{az: `ad sp show --id 11111111-1111-1111-1111-111111111111`, exit: 3, err: `does not exist or one of its queried`},
		{az: `ad app show --id ${app} --query id -o tsv`, save: map[string]string{"object": ""}},
		{az: `ad app show --id ${object}`, out: []check{is("appId", "${app}"), count("passwordCredentials", 1), omits("${appSecret}")}},
		{az: `ad app list --display-name acc-app`, out: []check{count("", 1), is("0.appId", "${app}")}},
		{az: `ad app list --app-id ${app}`, out: []check{count("", 1)}},
		{az: `ad app list --show-mine`, exit: 1, err: `only valid with delegated authentication`},

		{az: `ad app federated-credential create --id ${object} --parameters @params.json`, files: map[string]string{"params.json": credential},
			out: []check{is("name", "kubernetes-federated-credential"), is("issuer", "${issuer}"), is("audiences", []string{"api://AzureADTokenExchange"})}, save: map[string]string{"credentialId": "id"}},
		{az: `ad app federated-credential list --id ${app}`, out: []check{count("", 1), is("0.subject", "system:serviceaccount:shop:web")}},
		{az: `ad app federated-credential show --id ${app} --federated-credential-id kubernetes-federated-credential`, out: []check{is("id", "${credentialId}")}},
		{az: `ad app federated-credential show --id ${app} --federated-credential-id ${credentialId}`, out: []check{is("name", "kubernetes-federated-credential")}},
		{az: `ad app federated-credential create --id ${object} --parameters @params.json`, exit: 1, err: `exists already|already exists|with the same`},
		{name: `az login --federated-token, as the application`, as: nil,
			sh: `token=$(${podkey} run --data ${data} -n shop --service-account web --client-id ${app} -- sh -c 'cat $AZURE_FEDERATED_TOKEN_FILE')
AZURE_CONFIG_DIR=${work}/azure-app az login --service-principal -u ${app} --tenant ${tenant} --federated-token "$token" --allow-no-subscriptions`,
			out: []check{is("0.user.name", "${app}")}},
		{az: `ad app federated-credential update --id ${app} --federated-credential-id kubernetes-federated-credential --parameters @changed.json`,
			files: map[string]string{"changed.json": `{"name": "kubernetes-federated-credential", "issuer": "${issuer}", "subject": "system:serviceaccount:shop:other", "audiences": ["api://AzureADTokenExchange"]}`}},
		{az: `ad app federated-credential show --id ${app} --federated-credential-id kubernetes-federated-credential --query subject -o tsv`, out: []check{says("system:serviceaccount:shop:other")}},
		{az: `ad app federated-credential delete --id ${app} --federated-credential-id kubernetes-federated-credential`, out: []check{nothing()}},
		{az: `ad app federated-credential list --id ${app}`, out: []check{count("", 0)}},

		// With a role: it is there, and the old password is not.
		{az: `ad sp create-for-rbac --name acc-app --role Reader --scopes ${sub}/resourceGroups/acc-directory`, out: []check{is("appId", "${app}")}, save: map[string]string{"newSecret": "password"}},
		{az: `role assignment list --scope ${sub}/resourceGroups/acc-directory`, out: []check{count("", 1), is("0.principalId", "${sp}"), is("0.roleDefinitionName", "Reader")}},
		{name: `az login with the old password`, sh: `AZURE_CONFIG_DIR=${work}/azure-old az login --service-principal -u ${app} -p '${appSecret}' --tenant ${tenant}`, exit: 1, err: `AADSTS7000215`},
		{name: `az login with the new password`, sh: `AZURE_CONFIG_DIR=${work}/azure-new az login --service-principal -u ${app} -p '${newSecret}' --tenant ${tenant}`, out: []check{is("0.id", "${subscription}")}},
		{az: `ad app credential reset --id ${app} --append --display-name second`, out: []check{is("appId", "${app}"), like("password", `.{20}`)}},
		{az: `ad app credential list --id ${app}`, out: []check{count("", 2), has("*.displayName", "second")}},

		{az: `ad app create --display-name acc-plain`, out: []check{is("displayName", "acc-plain"), like("appId", guidPattern)}, save: map[string]string{"plain": "appId"}},
		{az: `ad sp create --id ${plain}`, out: []check{is("appId", "${plain}"), is("accountEnabled", true)}, save: map[string]string{"plainSp": "id"}},
		{az: `ad sp create --id ${plain}`, exit: 1, err: `(?i)already|in use`},
		{az: `ad app update --id ${plain} --display-name acc-renamed`, out: []check{nothing()}},
		{az: `ad app show --id ${plain} --query displayName -o tsv`, out: []check{says("acc-renamed")}},
		{az: `ad sp delete --id ${plain}`, out: []check{nothing()}},
		{az: `ad sp show --id ${plainSp}`, exit: 3, err: `does not exist or one of its queried`},
		{az: `ad app delete --id ${plain}`, out: []check{nothing()}},
		{az: `ad app show --id ${plain}`, exit: 3, err: `does not exist or one of its queried`},
		{az: `ad app list --filter "displayName eq 'acc-app'" --query [].appId`, out: []check{says("[\n  \"${app}\"\n]")}},
		{az: `ad app list --filter "displayName foo 'acc-app'"`, exit: 1, err: `the operator 'foo' is not supported`},
		{az: `ad signed-in-user show`, exit: 1, err: `only valid with delegated authentication`},
	}}
}

// userRows are people.
func userRows() *group {
	return &group{name: "user", values: map[string]string{"annPassword": "correct-Horse-7-battery", "bobPassword": "another-Staple-9-fence"}, rows: []row{
		login(),
		newGroup("acc-user"),
		{az: `ad user create --display-name Ann --user-principal-name ann@${domain} --password ${annPassword}`, out: []check{is("userPrincipalName", "ann@${domain}"), like("id", guidPattern), omits("${annPassword}")},
			save: map[string]string{"ann": "id"}},
		{az: `ad user create --display-name Ann --user-principal-name ann@${domain} --password ${annPassword}`, exit: 1, err: `exists already`},
		{az: `ad user show --id ann@${domain}`, out: []check{is("id", "${ann}"), is("displayName", "Ann")}},
		{az: `ad user show --id ${ann}`, out: []check{is("userPrincipalName", "ann@${domain}")}},
		{az: `ad user show --id nobody@${domain}`, exit: 3, err: `does not exist or one of its queried`},
		{az: `ad user list --upn ann@${domain}`, out: []check{count("", 1)}},
		{az: `role assignment create --role Contributor --assignee ann@${domain} --scope ${sub}/resourceGroups/acc-user`, out: []check{is("principalId", "${ann}"), is("principalType", "User")}},
		{podkey: `user add bob@${domain} --display-name Bob --password-file bob.txt --role Reader --scope ${sub}/resourceGroups/acc-user -o json`,
			files: map[string]string{"bob.txt": "${bobPassword}\n"}, out: []check{omits("${bobPassword}")}},
		{name: `az login as somebody whom podkey user add made`, sh: `AZURE_CONFIG_DIR=${work}/azure-bob az login -u bob@${domain} -p '${bobPassword}'`,
			out: []check{is("0.user.name", "bob@${domain}"), is("0.id", "${subscription}")}},
		{podkey: `user list -o json`, out: []check{has("*.userPrincipalName", "ann@${domain}")}},
		{az: `account clear`},
		{az: `login -u ann@${domain} -p ${annPassword}`, out: []check{is("0.user.name", "ann@${domain}"), is("0.id", "${subscription}")}},
		{az: `ad signed-in-user show`, out: []check{is("id", "${ann}")}},
		{az: `group list --query [].name`, out: []check{says("[\n  \"acc-user\"\n]")}},
		{az: `ad app list --show-mine`, out: []check{count("", 0)}},
		{az: `keyvault create -n acc-user -g acc-user --enable-rbac-authorization false`, out: []check{is("properties.accessPolicies.0.objectId", "${ann}")}},
		{az: `keyvault secret set --vault-name acc-user -n mine --value hers`, out: []check{is("value", "hers")}},
		{az: `group create -n acc-user-new -l westeurope`, exit: 1, err: `AuthorizationFailed`},
		{az: `role assignment create --role Owner --assignee-object-id ${ann} --assignee-principal-type User --scope ${sub}/resourceGroups/acc-user`, exit: 1, err: `AuthorizationFailed`},
		{podkey: `user disable ann@${domain}`},
		{az: `group list`, exit: 1, err: `AADSTS|AuthenticationToken|AuthenticationFailed`},
		{podkey: `user enable ann@${domain}`},
	}}
}
