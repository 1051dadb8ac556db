package demo

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/authorization/armauthorization/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/keyvault/armkeyvault"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/msi/armmsi"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armresources"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
	"github.com/google/uuid"

	"github.com/podkey/podkey/internal/client"
)

// Roles that the demo assigns, by Azure's names.
const (
	secretsOfficer = "Key Vault Secrets Officer"
	secretsUser    = "Key Vault Secrets User"
)

// azure is the operator with the real Azure SDKs. Only the transport is ours:
// it dials the demo's server for every host and trusts its CA alone.
type azure struct {
	op         client.Operator
	credential azcore.TokenCredential
	options    policy.ClientOptions
	region     string

	clientID   string // of the identity
	principal  string // of the identity
	vaultID    string
	assignment string // name of the identity's role assignment
}

func newAzure(op client.Operator) (*azure, error) {
	pem, err := os.ReadFile(op.AzureCAFile)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("no certificate in %s", op.AzureCAFile)
	}
	options := policy.ClientOptions{Transport: &http.Client{Transport: client.Transport(op.Listen, roots)}}
	credential, err := azidentity.NewClientSecretCredential(op.TenantID, op.ClientID, op.ClientSecret,
		&azidentity.ClientSecretCredentialOptions{ClientOptions: options})
	if err != nil {
		return nil, err
	}
	return &azure{op: op, credential: credential, options: options, region: "westeurope"}, nil
}

func (a *azure) arm() *arm.ClientOptions { return &arm.ClientOptions{ClientOptions: a.options} }

func (a *azure) group(ctx context.Context, name string) (string, error) {
	c, err := armresources.NewResourceGroupsClient(a.op.SubscriptionID, a.credential, a.arm())
	if err != nil {
		return "", err
	}
	g, err := c.CreateOrUpdate(ctx, name, armresources.ResourceGroup{Location: &a.region}, nil)
	if err != nil {
		return "", err
	}
	return *g.ID, nil
}

func (a *azure) createIdentity(ctx context.Context, group, name string) (string, error) {
	c, err := armmsi.NewUserAssignedIdentitiesClient(a.op.SubscriptionID, a.credential, a.arm())
	if err != nil {
		return "", err
	}
	id, err := c.CreateOrUpdate(ctx, group, name, armmsi.Identity{Location: &a.region}, nil)
	if err != nil {
		return "", err
	}
	a.clientID, a.principal = *id.Properties.ClientID, *id.Properties.PrincipalID
	return "client id " + a.clientID, nil
}

func (a *azure) trust(ctx context.Context, group, identity, issuer, subject string) (string, error) {
	c, err := armmsi.NewFederatedIdentityCredentialsClient(a.op.SubscriptionID, a.credential, a.arm())
	if err != nil {
		return "", err
	}
	f, err := c.CreateOrUpdate(ctx, group, identity, "demo", armmsi.FederatedIdentityCredential{
		Properties: &armmsi.FederatedIdentityCredentialProperties{
			Issuer: &issuer, Subject: &subject, Audiences: to.SliceOfPtrs("api://AzureADTokenExchange"),
		}}, nil)
	if err != nil {
		return "", err
	}
	return "issuer " + *f.Properties.Issuer + "\nsubject " + *f.Properties.Subject, nil
}

func (a *azure) createVault(ctx context.Context, group, name string) (string, error) {
	c, err := armkeyvault.NewVaultsClient(a.op.SubscriptionID, a.credential, a.arm())
	if err != nil {
		return "", err
	}
	p, err := c.BeginCreateOrUpdate(ctx, group, name, armkeyvault.VaultCreateOrUpdateParameters{
		Location: &a.region,
		Properties: &armkeyvault.VaultProperties{
			TenantID:                &a.op.TenantID,
			SKU:                     &armkeyvault.SKU{Family: to.Ptr(armkeyvault.SKUFamilyA), Name: to.Ptr(armkeyvault.SKUNameStandard)},
			EnableRbacAuthorization: to.Ptr(true),
		}}, nil)
	if err != nil {
		return "", err
	}
	v, err := p.PollUntilDone(ctx, nil)
	if err != nil {
		return "", err
	}
	a.vaultID = *v.ID
	return *v.Properties.VaultURI, nil
}

func (a *azure) assignRoles(ctx context.Context) (string, error) {
	if err := a.assign(ctx, a.op.ObjectID, secretsOfficer); err != nil {
		return "", err
	}
	if err := a.assign(ctx, a.principal, secretsUser); err != nil {
		return "", err
	}
	return fmt.Sprintf("%q for the operator, %q for the identity", secretsOfficer, secretsUser), nil
}

// assign gives a role at the vault's scope, and remembers the assignment.
func (a *azure) assign(ctx context.Context, principal, role string) error {
	definitions, err := armauthorization.NewRoleDefinitionsClient(a.credential, a.arm())
	if err != nil {
		return err
	}
	var id *string
	for pages := definitions.NewListPager(a.vaultID, &armauthorization.RoleDefinitionsClientListOptions{Filter: to.Ptr("roleName eq '" + role + "'")}); pages.More(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, d := range page.Value {
			id = d.ID
		}
	}
	if id == nil {
		return fmt.Errorf("there is no role named %q", role)
	}
	assignments, err := armauthorization.NewRoleAssignmentsClient(a.op.SubscriptionID, a.credential, a.arm())
	if err != nil {
		return err
	}
	a.assignment = uuid.NewString()
	_, err = assignments.Create(ctx, a.vaultID, a.assignment, armauthorization.RoleAssignmentCreateParameters{
		Properties: &armauthorization.RoleAssignmentProperties{
			PrincipalID: &principal, RoleDefinitionID: id, PrincipalType: to.Ptr(armauthorization.PrincipalTypeServicePrincipal),
		}}, nil)
	return err
}

// unassign deletes the newest assignment.
func (a *azure) unassign(ctx context.Context) error {
	c, err := armauthorization.NewRoleAssignmentsClient(a.op.SubscriptionID, a.credential, a.arm())
	if err != nil {
		return err
	}
	_, err = c.Delete(ctx, a.vaultID, a.assignment, nil)
	return err
}

func (a *azure) setSecret(ctx context.Context, vault, name, value string) (string, error) {
	c, err := azsecrets.NewClient("https://"+vault+".vault.azure.net", a.credential, &azsecrets.ClientOptions{ClientOptions: a.options})
	if err != nil {
		return "", err
	}
	s, err := c.SetSecret(ctx, name, azsecrets.SetSecretParameters{Value: &value}, nil)
	if err != nil {
		return "", err
	}
	return string(*s.ID), nil
}
