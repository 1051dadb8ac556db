package graph

// Actions, which rbac is asked for. Their objects are below the root of the
// tenant: no subscription's role reaches them.
const (
	readApplications   = "Microsoft.Directory/applications/read"
	writeApplications  = "Microsoft.Directory/applications/write"
	deleteApplications = "Microsoft.Directory/applications/delete"
	readPrincipals     = "Microsoft.Directory/servicePrincipals/read"
	writePrincipals    = "Microsoft.Directory/servicePrincipals/write"
	deletePrincipals   = "Microsoft.Directory/servicePrincipals/delete"
	readUsers          = "Microsoft.Directory/users/read"
	writeUsers         = "Microsoft.Directory/users/write"
	deleteUsers        = "Microsoft.Directory/users/delete"
	readGroups         = "Microsoft.Directory/groups/read"
	writeGroups        = "Microsoft.Directory/groups/write"
	readOrganization   = "Microsoft.Directory/organization/read"

	// Credentials have actions of their own, so that a role can leave them out.
	writeApplicationCredentials = "Microsoft.Directory/applications/credentials/write"
	writePrincipalCredentials   = "Microsoft.Directory/servicePrincipals/credentials/write"
)

// routes is everything that the plane answers, and who may.
func (h *Handler) routes() []route {
	const (
		fic = "applications/{}/federatedIdentityCredentials"
		sp  = "servicePrincipals"
	)
	return []route{
		{"GET", "me", readUsers, byMember, me, getUser},
		{"GET", "me/ownedObjects", readApplications, byMember, me, ownedObjects},
		{"GET", "me/memberOf", readGroups, byMember, me, noGroups},
		{"GET", "me/transitiveMemberOf", readGroups, byMember, me, noGroups},
		{"POST", "me/getMemberGroups", readGroups, byMember, me, noGroupIDs},
		{"POST", "me/getMemberObjects", readGroups, byMember, me, noGroupIDs},
		{"POST", "me/checkMemberGroups", readGroups, byMember, me, noGroupIDs},

		{"GET", "users", readUsers, byMember, nil, users.list},
		{"POST", "users", writeUsers, byRight, nil, createUser},
		{"GET", "users/{}", readUsers, byMember, pathUser, getUser},
		{"PATCH", "users/{}", writeUsers, byOwner, pathUser, patchUser},
		{"DELETE", "users/{}", deleteUsers, byOwner, pathUser, deleteUser},
		{"GET", "users/{}/ownedObjects", readApplications, byMember, pathUser, ownedObjects},
		{"GET", "users/{}/memberOf", readGroups, byMember, pathUser, noGroups},
		{"GET", "users/{}/transitiveMemberOf", readGroups, byMember, pathUser, noGroups},
		{"POST", "users/{}/getMemberGroups", readGroups, byMember, pathUser, noGroupIDs},
		{"POST", "users/{}/checkMemberGroups", readGroups, byMember, pathUser, noGroupIDs},

		{"GET", "applications", readApplications, byMember, nil, applications.list},
		{"POST", "applications", writeApplications, byRight, nil, createApplication},
		{"GET", "applications/{}", readApplications, byMember, pathApplication, getApplication},
		{"PATCH", "applications/{}", writeApplicationCredentials, byOwner, pathApplication, patchApplication},
		{"DELETE", "applications/{}", deleteApplications, byOwner, pathApplication, deleteApplication},
		{"POST", "applications/{}/addPassword", writeApplicationCredentials, byOwner, pathApplication, addPassword},
		{"POST", "applications/{}/removePassword", writeApplicationCredentials, byOwner, pathApplication, removePassword},
		{"GET", "applications/{}/owners", readApplications, byMember, pathApplication, ownersOf},
		{"POST", "applications/{}/owners/$ref", writeApplicationCredentials, byOwner, pathApplication, addOwner},
		{"DELETE", "applications/{}/owners/{}/$ref", writeApplicationCredentials, byOwner, pathApplication, removeOwner},
		{"GET", fic, readApplications, byMember, pathApplication, federated.list},
		{"POST", fic, writeApplicationCredentials, byOwner, pathApplication, createFederated},
		{"GET", fic + "/{}", readApplications, byMember, pathApplication, getFederated},
		{"PATCH", fic + "/{}", writeApplicationCredentials, byOwner, pathApplication, patchFederated},
		{"DELETE", fic + "/{}", writeApplicationCredentials, byOwner, pathApplication, deleteFederated},

		{"GET", sp, readPrincipals, byMember, nil, servicePrincipals.list},
		{"POST", sp, writePrincipals, byOwner, newPrincipal, createPrincipal},
		{"GET", sp + "/{}", readPrincipals, byMember, pathPrincipal, getPrincipal},
		{"PATCH", sp + "/{}", writePrincipalCredentials, byOwner, pathPrincipal, patchPrincipal},
		{"DELETE", sp + "/{}", deletePrincipals, byOwner, pathPrincipal, deletePrincipal},
		{"POST", sp + "/{}/addPassword", writePrincipalCredentials, byOwner, pathPrincipal, addPassword},
		{"POST", sp + "/{}/removePassword", writePrincipalCredentials, byOwner, pathPrincipal, removePassword},
		{"GET", sp + "/{}/owners", readPrincipals, byMember, pathPrincipal, ownersOf},
		{"POST", sp + "/{}/owners/$ref", writePrincipalCredentials, byOwner, pathPrincipal, addOwner},
		{"DELETE", sp + "/{}/owners/{}/$ref", writePrincipalCredentials, byOwner, pathPrincipal, removeOwner},
		{"GET", sp + "/{}/memberOf", readGroups, byMember, pathPrincipal, noGroups},
		{"GET", sp + "/{}/transitiveMemberOf", readGroups, byMember, pathPrincipal, noGroups},
		{"POST", sp + "/{}/getMemberGroups", readGroups, byMember, pathPrincipal, noGroupIDs},
		{"POST", sp + "/{}/checkMemberGroups", readGroups, byMember, pathPrincipal, noGroupIDs},
		{"GET", sp + "/{}/appRoleAssignments", readPrincipals, byMember, pathPrincipal, noGroups},

		{"POST", "directoryObjects/getByIds", readOrganization, byMember, nil, getByIDs},
		{"GET", "directoryObjects/{}", readOrganization, byMember, pathAny, getObject},
		{"POST", "directoryObjects/{}/checkMemberGroups", readGroups, byMember, pathAny, noGroupIDs},
		{"POST", "directoryObjects/{}/getMemberGroups", readGroups, byMember, pathAny, noGroupIDs},

		// There are no groups and no consent: the lists say so, and nothing can be added.
		{"GET", "groups", readGroups, byMember, nil, noGroups},
		{"GET", "groups/{}", readGroups, byMember, nil, missing},
		{"POST", "groups", writeGroups, byRight, nil, notSupported("Groups")},
		{"GET", "oauth2PermissionGrants", readPrincipals, byMember, nil, noGroups},
		{"POST", "oauth2PermissionGrants", writePrincipals, byRight, nil, notSupported("Permission grants")},

		{"GET", "organization", readOrganization, byMember, nil, listOrganization},
		{"GET", "organization/{}", readOrganization, byMember, nil, getOrganization},
		{"GET", "domains", readOrganization, byMember, nil, listDomains},
	}
}
