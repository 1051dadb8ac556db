package main

// allGroups is everything that is run. Longer ones come first, so that the
// workers end together.
func allGroups() []*group {
	return []*group{
		directoryRows(),
		secretRows(),
		roleRows(),
		vaultRows(),
		clusterRows(),
		deploymentRows(),
		identityRows(),
		readerRows(),
		roleDefinitionRows(),
		seedPolicyRows(),
		seedRoleRows(),
		seedApplicationRows(),
		seedPodIdentityRows(),
		accountRows(),
		resourceRows(),
		userRows(),
		deviceLoginRows(),
		browserLoginRows(),
		passwordLoginRows(),
		certificateLoginRows(),
		federatedLoginRows(),
		managedIdentityLoginRows(),
		refusedLoginRows(),
		groupRows(),
		ownNameRows(),
		pythonRows(),
		javascriptRows(),
	}
}

// login signs in as the operator, the shortest way.
func login() row {
	return row{
		az:  `login --service-principal -u ${operatorId} -p ${operatorSecret} --tenant ${tenant}`,
		out: []check{is("0.id", "${subscription}"), is("0.user.type", "servicePrincipal")},
	}
}

// newGroup makes a resource group in which a group's things are.
func newGroup(name string) row {
	return row{az: `group create -n ` + name + ` -l westeurope`, out: []check{is("properties.provisioningState", "Succeeded")}}
}
