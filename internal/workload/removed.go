package workload

import (
	"slices"
	"strings"
)

// removed are the variables that a child does not inherit: credentials for the
// real Azure, which must not be sent to another server, and settings that
// would lead a client past the identity or the server that the child is meant
// to use. Names are those that the Azure SDKs for Go, Python, JavaScript,
// .NET and Java, MSAL, az and Terraform read.
var removed = [...]string{
	// EnvironmentCredential, which comes before workload identity in every
	// DefaultAzureCredential.
	"AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_CLIENT_SECRET",
	"AZURE_CLIENT_CERTIFICATE_PATH", "AZURE_CLIENT_CERTIFICATE_PASSWORD", "AZURE_CLIENT_SEND_CERTIFICATE_CHAIN",
	"AZURE_USERNAME", "AZURE_PASSWORD",
	// Older tools' and pipelines' names for the same.
	"AZURE_SECRET", "AZURE_CREDENTIALS", "AZURE_AUTH_LOCATION",

	// Which credential of the chain is used, and for which tenants.
	"AZURE_TOKEN_CREDENTIALS", "AZURE_ADDITIONALLY_ALLOWED_TENANTS", "AZURE_IDENTITY_DISABLE_MULTITENANTAUTH",

	// WorkloadIdentityCredential, and the token endpoint of identity bindings.
	"AZURE_FEDERATED_TOKEN_FILE", "AZURE_FEDERATED_TOKEN",
	"AZURE_KUBERNETES_TOKEN_PROXY", "AZURE_KUBERNETES_SNI_NAME", "AZURE_KUBERNETES_CA_FILE", "AZURE_KUBERNETES_CA_DATA",

	// Which cloud: the authority, and the regional ones that MSAL would
	// prefer to it.
	"AZURE_AUTHORITY_HOST", "AZURE_REGIONAL_AUTHORITY_NAME", "MSAL_FORCE_REGION",
	"AZURE_CLOUD", "AZURE_CLOUD_NAME", "AZURE_ENVIRONMENT", "ARM_CLOUD_METADATA_URL",

	// ManagedIdentityCredential: App Service, Functions, Azure ML, Cloud
	// Shell, Service Fabric, Arc. An endpoint of the machine that podkey runs
	// on would give tokens of that machine's identity.
	"IDENTITY_ENDPOINT", "IDENTITY_HEADER", "IDENTITY_SERVER_THUMBPRINT", "IDENTITY_API_VERSION",
	"MSI_ENDPOINT", "MSI_SECRET", "IMDS_ENDPOINT", "DEFAULT_IDENTITY_CLIENT_ID",
	"AZURE_POD_IDENTITY_AUTHORITY_HOST", "APPSETTING_WEBSITE_SITE_NAME",

	// AzurePipelinesCredential.
	"AZURESUBSCRIPTION_CLIENT_ID", "AZURESUBSCRIPTION_TENANT_ID", "AZURESUBSCRIPTION_SERVICE_CONNECTION_ID",

	// Terraform's providers.
	"ARM_CLIENT_ID", "ARM_CLIENT_ID_FILE_PATH", "ARM_CLIENT_SECRET", "ARM_CLIENT_SECRET_FILE_PATH",
	"ARM_CLIENT_CERTIFICATE", "ARM_CLIENT_CERTIFICATE_PATH", "ARM_CLIENT_CERTIFICATE_PASSWORD",
	"ARM_TENANT_ID", "ARM_AUXILIARY_TENANT_IDS", "ARM_ENVIRONMENT", "ARM_METADATA_HOST", "ARM_METADATA_HOSTNAME",
	"ARM_OIDC_TOKEN", "ARM_OIDC_TOKEN_FILE_PATH", "ARM_OIDC_REQUEST_TOKEN", "ARM_OIDC_REQUEST_URL",
	"ARM_USE_MSI", "ARM_MSI_ENDPOINT", "ARM_ACCESS_KEY", "ARM_SAS_TOKEN",
}

// removedProxies, in any case of letters (Python's urllib reads them so), would
// send a child's requests past our proxy, or lead plain HTTP to one that
// knows nothing of this machine's networks.
var removedProxies = [...]string{"http_proxy", "https_proxy", "all_proxy", "no_proxy"}

// toRemove lists the names in parent that must go, sorted: those that are
// removed by the rules above, less those to keep and those that e sets.
func (e *Env) toRemove(parent, keep []string) []string {
	out := []string{}
	for _, v := range parent {
		name, _, ok := strings.Cut(v, "=")
		if !ok || slices.Contains(keep, name) || lookupSet(e.Set, name) {
			continue
		}
		if slices.Contains(removed[:], name) || slices.Contains(removedProxies[:], strings.ToLower(name)) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func lookupSet(set []string, name string) bool {
	return slices.ContainsFunc(set, func(v string) bool { return strings.HasPrefix(v, name+"=") })
}
