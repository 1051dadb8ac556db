package main

// accountRows are az account and sign-in by secret.
func accountRows() *group {
	return &group{name: "account", rows: []row{
		{
			az: `login --service-principal -u ${operatorId} -p ${operatorSecret} --tenant ${tenant}`,
			out: []check{
				count("", 1), is("0.id", "${subscription}"), is("0.tenantId", "${tenant}"), is("0.cloudName", "AzureCloud"),
				is("0.state", "Enabled"), is("0.user.name", "${operatorId}"), is("0.user.type", "servicePrincipal"), omits("${operatorSecret}"),
			},
		},
		{az: `account show`, out: []check{is("id", "${subscription}"), is("isDefault", true), is("environmentName", "AzureCloud")}},
		{az: `account list`, out: []check{count("", 1), is("0.id", "${subscription}")}},
		{az: `account list --refresh`, out: []check{count("", 1), is("0.id", "${subscription}")}},
		{az: `account set --subscription ${subscription}`, out: []check{nothing()}},
		{az: `account show --query id -o tsv`, out: []check{says("${subscription}")}},
		{az: `account set --subscription 00000000-0000-0000-0000-000000000000`, exit: 1, err: `doesn't exist in cloud`},
		{az: `account get-access-token`, out: []check{
			is("subscription", "${subscription}"), is("tenant", "${tenant}"), is("tokenType", "Bearer"), like("accessToken", `^eyJ`), like("expires_on", `^\d+$`),
		}},
		{az: `account get-access-token --resource https://vault.azure.net`, out: []check{like("accessToken", `^eyJ`)}},
		{az: `account get-access-token --resource-type ms-graph`, out: []check{like("accessToken", `^eyJ`)}},
		{az: `account get-access-token --scope https://vault.azure.net/.default --tenant ${tenant}`, out: []check{like("accessToken", `^eyJ`), is("tenant", "${tenant}")}},
		{az: `account get-access-token --resource https://nobody.example`, exit: 1, err: `AADSTS500011`},
		{az: `account list-locations --query [].name`, out: []check{has("", "westeurope")}},
		{az: `logout`, out: []check{nothing()}},
		{az: `account show`, exit: 1, err: `az login`},
	}}
}

// deviceLoginRows are `az login` as the walkthroughs print it, on a machine
// without a browser, and its long form.
func deviceLoginRows() *group {
	return &group{name: "login-device", rows: []row{
		{
			az: `login`, signIn: &signIn{how: "device"}, err: `enter the code`,
			out: []check{has("*.id", "${subscription}"), is("0.user.name", "${userName}"), is("0.user.type", "user")},
		},
		// With tokens for other resources and from the cache.
		{az: `account get-access-token --resource https://vault.azure.net --query tokenType -o tsv`, out: []check{says("Bearer")}},
		{az: `group list --query [].name`, out: []check{contains(`^\s*\[`)}},
		{az: `ad signed-in-user show`, out: []check{is("userPrincipalName", "${userName}")}},
		{az: `account clear`, out: []check{nothing()}},
		{
			az: `login --use-device-code --tenant ${tenant}`, signIn: &signIn{how: "device"}, err: `enter the code`,
			out: []check{has("*.id", "${subscription}"), is("0.user.name", "${userName}")},
		},
		{az: `account get-access-token --query subscription -o tsv`, out: []check{says("${subscription}")}},
	}}
}

// browserLoginRows are `az login` where there is a browser.
func browserLoginRows() *group {
	return &group{name: "login-browser", rows: []row{
		{
			az: `login`, signIn: &signIn{how: "browser"}, err: `web browser has been opened`,
			out: []check{has("*.id", "${subscription}"), is("0.user.name", "${userName}"), is("0.user.type", "user")},
		},
		{az: `account get-access-token --resource https://vault.azure.net --query tokenType -o tsv`, out: []check{says("Bearer")}},
		{az: `account list --refresh`, out: []check{has("*.id", "${subscription}")}},
		{az: `ad signed-in-user show --query userPrincipalName -o tsv`, out: []check{says("${userName}")}},
	}}
}

// passwordLoginRows are sign-ins of a person by password.
func passwordLoginRows() *group {
	return &group{name: "login-password", rows: []row{
		{az: `login --username ${userName} --password ${userPassword}`, out: []check{
			has("*.id", "${subscription}"), is("0.user.name", "${userName}"), is("0.user.type", "user"), omits("${userPassword}"),
		}},
		{az: `account get-access-token --query tokenType -o tsv`, out: []check{says("Bearer")}},
		{az: `account get-access-token --resource https://vault.azure.net --query tokenType -o tsv`, out: []check{says("Bearer")}},
		{az: `ad signed-in-user show --query userPrincipalName -o tsv`, out: []check{says("${userName}")}},
		{az: `account clear`, out: []check{nothing()}},
		{az: `login --username ${userName} --password ${userPassword} --tenant ${tenant}`, out: []check{has("*.id", "${subscription}")}},
	}}
}

// certificateLoginRows are sign-ins of an application by certificate.
func certificateLoginRows() *group {
	return &group{name: "login-certificate", rows: []row{
		login(),
		{
			az:   `ad sp create-for-rbac --name acc-certificate --create-cert --role Reader --scopes ${sub}`,
			out:  []check{is("tenant", "${tenant}"), like("fileWithCertAndPrivateKey", `\.pem$`)},
			save: map[string]string{"app": "appId", "pem": "fileWithCertAndPrivateKey"},
		},
		{
			az:  `login --service-principal -u ${app} -p ${pem} --tenant ${tenant}`,
			out: []check{is("0.user.name", "${app}"), is("0.id", "${subscription}")},
			cannot: []cannot{{
				since: "2.69.0", why: "newer ones have --certificate for it, and take -p for a secret", exit: 1, err: `AADSTS7000215`,
				instead: `login --service-principal -u ${app} --certificate ${pem} --tenant ${tenant}`,
			}},
		},
		{az: `account get-access-token --resource https://vault.azure.net --query tokenType -o tsv`, out: []check{says("Bearer")}},
		{az: `group list --query [].name`, out: []check{contains(`^\s*\[`)}},
	}}
}

// federatedLoginRows are sign-ins with another issuer's token: here that of
// the built-in cluster.
func federatedLoginRows() *group {
	web := &workload{namespace: "acc-federated", account: "web"}
	return &group{name: "login-federated", rows: []row{
		login(),
		newGroup("acc-federated"),
		{az: `identity create -g acc-federated -n acc-federated`, save: map[string]string{"principal": "principalId"}},
		{az: `identity federated-credential create --name web --identity-name acc-federated -g acc-federated --issuer ${issuer} --subject system:serviceaccount:acc-federated:web`,
			out: []check{is("audiences.0", "api://AzureADTokenExchange")}},
		{name: `az login --federated-token, without a role`, as: web,
			sh:   `az login --service-principal -u $AZURE_CLIENT_ID --tenant $AZURE_TENANT_ID --federated-token "$(cat $AZURE_FEDERATED_TOKEN_FILE)"`,
			exit: 1, err: `No subscriptions found`},
		{name: `az login --federated-token --allow-no-subscriptions`, as: web,
			sh:  `az login --service-principal -u $AZURE_CLIENT_ID --tenant $AZURE_TENANT_ID --federated-token "$(cat $AZURE_FEDERATED_TOKEN_FILE)" --allow-no-subscriptions`,
			out: []check{is("0.tenantId", "${tenant}"), is("0.user.type", "servicePrincipal")}},
		login(),
		{az: `role assignment create --role Reader --assignee-object-id ${principal} --assignee-principal-type ServicePrincipal --scope ${sub}/resourceGroups/acc-federated`},
		{name: `az login --federated-token`, as: web,
			sh:  `az login --service-principal -u $AZURE_CLIENT_ID --tenant $AZURE_TENANT_ID --federated-token "$(cat $AZURE_FEDERATED_TOKEN_FILE)"`,
			out: []check{is("0.id", "${subscription}"), is("0.user.type", "servicePrincipal")}},
		{az: `group list --query [].name`, out: []check{says("[\n  \"acc-federated\"\n]")}},
	}}
}

// managedIdentityLoginRows are sign-ins where there is the endpoint of a
// managed identity. It must be there for the commands after it too.
func managedIdentityLoginRows() *group {
	web := &workload{namespace: "acc-managed", account: "web", managed: true}
	return &group{name: "login-identity", rows: []row{
		login(),
		newGroup("acc-managed"),
		{az: `identity create -g acc-managed -n acc-managed`, save: map[string]string{"client": "clientId", "principal": "principalId"}},
		{az: `identity federated-credential create --name web --identity-name acc-managed -g acc-managed --issuer ${issuer} --subject system:serviceaccount:acc-managed:web`},
		{az: `login --identity`, as: web, exit: 1, err: `(?i)no subscriptions`},
		{az: `role assignment create --role Reader --assignee-object-id ${principal} --assignee-principal-type ServicePrincipal --scope ${sub}/resourceGroups/acc-managed`},
		{az: `account clear`},
		{az: `login --identity`, as: web, out: []check{is("0.id", "${subscription}"), is("0.user.name", "systemAssignedIdentity"), is("0.tenantId", "${tenant}")}},
		{az: `group list --query [].name`, as: web, out: []check{says("[\n  \"acc-managed\"\n]")}},
		{az: `account get-access-token --resource https://vault.azure.net --query tokenType -o tsv`, as: web, out: []check{says("Bearer")}},
		{az: `account clear`},
		{az: `login --identity --username ${client}`, as: web, out: []check{is("0.id", "${subscription}"), is("0.user.name", "userAssignedIdentity")},
			cannot: []cannot{{since: "2.69.0", why: "newer ones have --client-id for it", exit: 1, err: `no longer supported. Use --client-id`, instead: `login --identity --client-id ${client}`}}},
		{az: `group show -n acc-managed --query name -o tsv`, as: web, out: []check{says("acc-managed")}},
	}}
}

// refusedLoginRows are sign-ins that must fail, with the reason that az shows.
func refusedLoginRows() *group {
	return &group{name: "login-refused", values: map[string]string{"wrongPassword": "not-the-password-at-all"}, rows: []row{
		{az: `login --service-principal -u ${operatorId} -p ${wrongPassword} --tenant ${tenant}`, exit: 1, err: `AADSTS7000215`, out: []check{nothing()}},
		{az: `login --service-principal -u 11111111-1111-1111-1111-111111111111 -p ${wrongPassword} --tenant ${tenant}`, exit: 1, err: `AADSTS700016`},
		{az: `login --service-principal -u ${operatorId} -p ${operatorSecret} --tenant 11111111-1111-1111-1111-111111111111`, exit: 1, err: `AADSTS90002|Unable to get authority|not found`},
		{az: `login --username ${userName} --password ${wrongPassword}`, exit: 1, err: `AADSTS50126`, out: []check{nothing()}},
		{az: `login --username nobody@${domain} --password ${wrongPassword}`, exit: 1, err: `AADSTS50126`},
		{az: `account show`, exit: 1, err: `az login`},
		{az: `group list`, exit: 1, err: `az login`},
	}}
}
