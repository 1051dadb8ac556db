package rbac

import "slices"

// Well-known built-in roles, by GUID.
const (
	Owner                           = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635"
	Contributor                     = "b24988ac-6180-42a0-ab88-20f7382dd24c"
	Reader                          = "acdd72a7-3385-48ef-bd42-f606fba81ae7"
	UserAccessAdministrator         = "18d7d88d-d35e-4fb5-a5c3-7773c20a72d9"
	RBACAdministrator               = "f58310d9-a9f6-439a-9e8d-f62e7b41a168"
	ManagedIdentityOperator         = "f1a07417-d97a-45cb-824c-7a7467783830"
	ManagedIdentityContributor      = "e40ec5ca-96e0-45a2-b4ff-59039f2c2b59"
	KeyVaultAdministrator           = "00482a5a-887f-4fb3-b363-3b7fe8e74483"
	KeyVaultReader                  = "21090545-7ca7-4776-b22c-e363652d74d2"
	KeyVaultSecretsOfficer          = "b86a8fe4-44ce-4948-aee5-eccb2c155cd7"
	KeyVaultSecretsUser             = "4633458b-17de-408a-b874-0445c86b69e6"
	KeyVaultCryptoOfficer           = "14b46e9e-c2b7-41b4-b07b-48a6ebf60603"
	KeyVaultCryptoUser              = "12338af0-0e69-4776-bea7-57ae8d297424"
	KeyVaultServiceEncryptionUser   = "e147488a-f6f5-4113-8e2d-b22465e65bf6"
	KeyVaultServiceReleaseUser      = "08bbd89e-9f13-488c-ac41-acfcb10c90ab"
	KeyVaultCertificatesOfficer     = "a4417e6f-fecd-4de8-b567-7b0420556985"
	KeyVaultCertificateUser         = "db79e9a7-68ee-4b58-9aeb-b90e7c24fcba"
	KeyVaultPurgeOperator           = "a68e7c17-0ab2-4c09-9a58-125dae29748c"
	KeyVaultContributor             = "f25e0fa2-a7c8-4377-a976-54943a77a395"
	KeyVaultDataAccessAdministrator = "8b54135c-b56d-4d72-a534-26097cfdc8d8"
	ClusterUser                     = "4abbcc35-e782-43d8-92c5-2d3f1bd2253f"
	ClusterAdmin                    = "0ab0b1a8-8aac-4efd-b8c2-3ee1fb270be8"
)

// vaultManagement is what the data-plane administrator, officer and reader
// roles may do in the management API: find their vault in the portal.
var vaultManagement = []string{
	"Microsoft.Authorization/*/read",
	"Microsoft.Insights/alertRules/*",
	"Microsoft.Resources/deployments/*",
	"Microsoft.Resources/subscriptions/resourceGroups/read",
	"Microsoft.Support/*",
	"Microsoft.KeyVault/checkNameAvailability/read",
	"Microsoft.KeyVault/deletedVaults/read",
	"Microsoft.KeyVault/locations/*/read",
	"Microsoft.KeyVault/vaults/*/read",
	"Microsoft.KeyVault/operations/read",
}

// builtIn are the built-in roles as Azure defines them. Names, GUIDs and
// actions are Azure's; clients compare them exactly.
var builtIn = []RoleDefinition{
	builtInRole(Owner, "Owner",
		"Grants full access to manage all resources, including the ability to assign roles in Azure RBAC.",
		RoleDefinition{Actions: []string{"*"}}),
	builtInRole(Contributor, "Contributor",
		"Grants full access to manage all resources, but does not allow you to assign roles in Azure RBAC, manage assignments in Azure Blueprints, or share image galleries.",
		RoleDefinition{
			Actions: []string{"*"},
			NotActions: []string{
				"Microsoft.Authorization/*/Delete",
				"Microsoft.Authorization/*/Write",
				"Microsoft.Authorization/elevateAccess/Action",
				"Microsoft.Blueprint/blueprintAssignments/write",
				"Microsoft.Blueprint/blueprintAssignments/delete",
				"Microsoft.Compute/galleries/share/action",
				"Microsoft.Purview/consents/write",
				"Microsoft.Purview/consents/delete",
				"Microsoft.Resources/deploymentStacks/manageDenySetting/action",
				"Microsoft.Subscription/cancel/action",
				"Microsoft.Subscription/enable/action",
			},
		}),
	builtInRole(Reader, "Reader",
		"View all resources, but does not allow you to make any changes.",
		RoleDefinition{Actions: []string{"*/read"}}),
	builtInRole(UserAccessAdministrator, "User Access Administrator",
		"Lets you manage user access to Azure resources.",
		RoleDefinition{Actions: []string{"*/read", "Microsoft.Authorization/*", "Microsoft.Support/*"}}),
	builtInRole(RBACAdministrator, "Role Based Access Control Administrator",
		"Manage access to Azure resources by assigning roles using Azure RBAC. This role does not allow you to manage access using other ways, such as Azure Policy.",
		RoleDefinition{Actions: []string{
			"Microsoft.Authorization/roleAssignments/write",
			"Microsoft.Authorization/roleAssignments/delete",
			"*/read",
			"Microsoft.Support/*",
		}}),
	builtInRole(ManagedIdentityOperator, "Managed Identity Operator",
		"Read and Assign User Assigned Identity",
		RoleDefinition{Actions: []string{
			"Microsoft.ManagedIdentity/userAssignedIdentities/*/read",
			"Microsoft.ManagedIdentity/userAssignedIdentities/*/assign/action",
			"Microsoft.Authorization/*/read",
			"Microsoft.Insights/alertRules/*",
			"Microsoft.Resources/subscriptions/resourceGroups/read",
			"Microsoft.Resources/deployments/*",
			"Microsoft.Support/*",
		}}),
	builtInRole(ManagedIdentityContributor, "Managed Identity Contributor",
		"Create, Read, Update, and Delete User Assigned Identity",
		RoleDefinition{Actions: []string{
			"Microsoft.ManagedIdentity/userAssignedIdentities/read",
			"Microsoft.ManagedIdentity/userAssignedIdentities/write",
			"Microsoft.ManagedIdentity/userAssignedIdentities/delete",
			"Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials/read",
			"Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials/write",
			"Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials/delete",
			"Microsoft.ManagedIdentity/userAssignedIdentities/revokeTokens/action",
			"Microsoft.Authorization/*/read",
			"Microsoft.Insights/alertRules/*",
			"Microsoft.Resources/subscriptions/resourceGroups/read",
			"Microsoft.Resources/deployments/*",
			"Microsoft.Support/*",
		}}),
	builtInRole(ClusterUser, "Azure Kubernetes Service Cluster User Role",
		"List cluster user credential action.",
		RoleDefinition{Actions: []string{
			"Microsoft.ContainerService/managedClusters/listClusterUserCredential/action",
			"Microsoft.ContainerService/managedClusters/read",
		}}),
	builtInRole(ClusterAdmin, "Azure Kubernetes Service Cluster Admin Role",
		"List cluster admin credential action.",
		RoleDefinition{Actions: []string{
			"Microsoft.ContainerService/managedClusters/listClusterAdminCredential/action",
			"Microsoft.ContainerService/managedClusters/accessProfiles/listCredential/action",
			"Microsoft.ContainerService/managedClusters/read",
			"Microsoft.ContainerService/managedClusters/runcommand/action",
		}}),
	builtInRole(KeyVaultAdministrator, "Key Vault Administrator",
		"Perform all data plane operations on a key vault and all objects in it, including certificates, keys, and secrets. Cannot manage key vault resources or manage role assignments. Only works for key vaults that use the 'Azure role-based access control' permission model.",
		RoleDefinition{Actions: vaultManagement, DataActions: []string{"Microsoft.KeyVault/vaults/*"}}),
	builtInRole(KeyVaultReader, "Key Vault Reader",
		"Read metadata of key vaults and its certificates, keys, and secrets. Cannot read sensitive values such as secret contents or key material. Only works for key vaults that use the 'Azure role-based access control' permission model.",
		RoleDefinition{Actions: vaultManagement, DataActions: []string{
			"Microsoft.KeyVault/vaults/*/read",
			"Microsoft.KeyVault/vaults/secrets/readMetadata/action",
		}}),
	builtInRole(KeyVaultSecretsOfficer, "Key Vault Secrets Officer",
		"Perform any action on the secrets of a key vault, except manage permissions. Only works for key vaults that use the 'Azure role-based access control' permission model.",
		RoleDefinition{Actions: vaultManagement, DataActions: []string{"Microsoft.KeyVault/vaults/secrets/*"}}),
	builtInRole(KeyVaultSecretsUser, "Key Vault Secrets User",
		"Read secret contents. Only works for key vaults that use the 'Azure role-based access control' permission model.",
		RoleDefinition{DataActions: []string{
			"Microsoft.KeyVault/vaults/secrets/getSecret/action",
			"Microsoft.KeyVault/vaults/secrets/readMetadata/action",
		}}),
	builtInRole(KeyVaultCryptoOfficer, "Key Vault Crypto Officer",
		"Perform any action on the keys of a key vault, except manage permissions. Only works for key vaults that use the 'Azure role-based access control' permission model.",
		RoleDefinition{Actions: vaultManagement, DataActions: []string{
			"Microsoft.KeyVault/vaults/keys/*",
			"Microsoft.KeyVault/vaults/keyrotationpolicies/*",
		}}),
	builtInRole(KeyVaultCryptoUser, "Key Vault Crypto User",
		"Perform cryptographic operations using keys. Only works for key vaults that use the 'Azure role-based access control' permission model.",
		RoleDefinition{DataActions: []string{
			"Microsoft.KeyVault/vaults/keys/read",
			"Microsoft.KeyVault/vaults/keys/update/action",
			"Microsoft.KeyVault/vaults/keys/backup/action",
			"Microsoft.KeyVault/vaults/keys/encrypt/action",
			"Microsoft.KeyVault/vaults/keys/decrypt/action",
			"Microsoft.KeyVault/vaults/keys/wrap/action",
			"Microsoft.KeyVault/vaults/keys/unwrap/action",
			"Microsoft.KeyVault/vaults/keys/sign/action",
			"Microsoft.KeyVault/vaults/keys/verify/action",
		}}),
	builtInRole(KeyVaultServiceEncryptionUser, "Key Vault Crypto Service Encryption User",
		"Read metadata of keys and perform wrap/unwrap operations. Only works for key vaults that use the 'Azure role-based access control' permission model.",
		RoleDefinition{
			Actions: []string{
				"Microsoft.EventGrid/eventSubscriptions/write",
				"Microsoft.EventGrid/eventSubscriptions/read",
				"Microsoft.EventGrid/eventSubscriptions/delete",
			},
			DataActions: []string{
				"Microsoft.KeyVault/vaults/keys/read",
				"Microsoft.KeyVault/vaults/keys/wrap/action",
				"Microsoft.KeyVault/vaults/keys/unwrap/action",
			},
		}),
	builtInRole(KeyVaultServiceReleaseUser, "Key Vault Crypto Service Release User",
		"Release keys. Only works for key vaults that use the 'Azure role-based access control' permission model.",
		RoleDefinition{DataActions: []string{"Microsoft.KeyVault/vaults/keys/release/action"}}),
	builtInRole(KeyVaultCertificatesOfficer, "Key Vault Certificates Officer",
		"Perform any action on the certificates of a key vault, except manage permissions. Only works for key vaults that use the 'Azure role-based access control' permission model.",
		RoleDefinition{Actions: vaultManagement, DataActions: []string{
			"Microsoft.KeyVault/vaults/certificatecas/*",
			"Microsoft.KeyVault/vaults/certificates/*",
			"Microsoft.KeyVault/vaults/certificatecontacts/write",
		}}),
	builtInRole(KeyVaultCertificateUser, "Key Vault Certificate User",
		"Read certificate contents. Only works for key vaults that use the 'Azure role-based access control' permission model.",
		RoleDefinition{DataActions: []string{
			"Microsoft.KeyVault/vaults/certificates/read",
			"Microsoft.KeyVault/vaults/secrets/getSecret/action",
			"Microsoft.KeyVault/vaults/secrets/readMetadata/action",
			"Microsoft.KeyVault/vaults/keys/read",
		}}),
	builtInRole(KeyVaultPurgeOperator, "Key Vault Purge Operator",
		"Allows permanent deletion of soft-deleted vaults.",
		RoleDefinition{Actions: []string{
			"Microsoft.KeyVault/deletedVaults/read",
			"Microsoft.KeyVault/locations/deletedVaults/read",
			"Microsoft.KeyVault/locations/deletedVaults/purge/action",
			"Microsoft.KeyVault/locations/operationResults/read",
		}}),
	builtInRole(KeyVaultContributor, "Key Vault Contributor",
		"Lets you manage key vaults, but not access to them.",
		RoleDefinition{
			Actions: []string{
				"Microsoft.Authorization/*/read",
				"Microsoft.Insights/alertRules/*",
				"Microsoft.KeyVault/*",
				"Microsoft.Resources/deployments/*",
				"Microsoft.Resources/subscriptions/resourceGroups/read",
				"Microsoft.Support/*",
			},
			NotActions: []string{
				"Microsoft.KeyVault/locations/deletedVaults/purge/action",
				"Microsoft.KeyVault/hsmPools/*",
				"Microsoft.KeyVault/managedHsms/*",
			},
		}),
	builtInRole(KeyVaultDataAccessAdministrator, "Key Vault Data Access Administrator",
		"Manage access to Azure Key Vault by adding or removing role assignments for the Key Vault Administrator, Key Vault Certificates Officer, Key Vault Crypto Officer, Key Vault Crypto Service Encryption User, Key Vault Crypto User, Key Vault Reader, Key Vault Secrets Officer, or Key Vault Secrets User roles. Includes an ABAC condition to constrain role assignments.",
		RoleDefinition{
			Actions: []string{
				"Microsoft.Authorization/roleAssignments/write",
				"Microsoft.Authorization/roleAssignments/delete",
				"Microsoft.Authorization/*/read",
				"Microsoft.Resources/deployments/*",
				"Microsoft.Resources/subscriptions/resourceGroups/read",
				"Microsoft.Resources/subscriptions/read",
				"Microsoft.Management/managementGroups/read",
				"Microsoft.Support/*",
				"Microsoft.KeyVault/vaults/*/read",
			},
			MayAssign: []string{
				KeyVaultAdministrator,
				KeyVaultCertificatesOfficer,
				KeyVaultCryptoOfficer,
				KeyVaultServiceEncryptionUser,
				KeyVaultCryptoUser,
				KeyVaultReader,
				KeyVaultSecretsOfficer,
				KeyVaultSecretsUser,
			},
		}),
}

func builtInRole(id, name, description string, permissions RoleDefinition) RoleDefinition {
	d := permissions
	d.ID, d.Name, d.Type, d.Description = id, name, BuiltInRole, description
	d.AssignableScopes = []string{"/"}
	for _, list := range []*[]string{&d.Actions, &d.NotActions, &d.DataActions, &d.NotDataActions} {
		*list = slices.Clip(append([]string{}, *list...)) // never null in JSON
	}
	return d
}
