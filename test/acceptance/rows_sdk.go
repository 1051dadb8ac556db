package main

import "strings"

// sdkSetup makes what a program needs, with podkey alone: the program and its
// SDK are what is looked at.
func sdkSetup(name string) []row {
	return []row{{
		podkey: `bootstrap -f declare.yaml`,
		files: map[string]string{"declare.yaml": strings.ReplaceAll(`identities:
  - name: NAME
    resourceGroup: NAME
    federatedCredentials:
      - {name: app, namespace: NAME, serviceAccount: app}
vaults:
  - {name: NAME-kv, resourceGroup: NAME, access: [{identity: NAME, role: Key Vault Secrets Officer}]}
  - {name: NAME-other, resourceGroup: NAME}
`, "NAME", name)},
	}}
}

// tour is what both programs print.
const tour = `current: two
first version: one
both versions are listed: %true%
enabled: %false%
a disabled secret: 403 Forbidden
listed: 30 of 30 in several pages: %true%
a secret that is not there: 404 SecretNotFound
a name that is none: 400 BadParameter
deleted: tour
restored: tour two
another vault: 403 Forbidden`

// pythonRows run a program with the Azure SDK for Python as a workload.
func pythonRows() *group {
	want := strings.NewReplacer("%true%", "True", "%false%", "False").Replace(tour)
	return &group{name: "sdk-python", client: "python", rows: append(sdkSetup("acc-python"),
		row{name: "podkey run -- python samples/python/vault_tour.py", as: &workload{namespace: "acc-python", account: "app"},
			env: []string{"KEYVAULT_URL=https://acc-python-kv.vault.azure.net", "OTHER_VAULT_URL=https://acc-python-other.vault.azure.net"},
			sh:  `${python} ${root}/samples/python/vault_tour.py`, out: []check{says(want)}},
		row{name: "podkey run, as a service account that nobody trusts", as: &workload{namespace: "acc-python", account: "other"},
			sh: `${python} ${root}/samples/python/vault_tour.py`, exit: 1, err: `no identity has a federated credential`},
	)}
}

// javascriptRows run a program with the Azure SDK for JavaScript as a
// workload.
func javascriptRows() *group {
	want := strings.NewReplacer("%true%", "true", "%false%", "false").Replace(tour)
	return &group{name: "sdk-javascript", client: "javascript", rows: append(sdkSetup("acc-node"),
		row{name: "podkey run -- node samples/javascript/vault-tour.mjs", as: &workload{namespace: "acc-node", account: "app"},
			env: []string{"KEYVAULT_URL=https://acc-node-kv.vault.azure.net", "OTHER_VAULT_URL=https://acc-node-other.vault.azure.net"},
			// Node finds packages beside the program, not by a variable.
			sh:  `cp ${root}/samples/javascript/vault-tour.mjs . && ln -sfn ${modules}/node_modules node_modules && node vault-tour.mjs`,
			out: []check{says(want)}},
	)}
}
