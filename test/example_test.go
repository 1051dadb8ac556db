package test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"

	"github.com/podkey/podkey/podkeytest"
)

// This is podkeytest's example with the real Azure SDKs, which that package
// itself does not import.
func Example() {
	p, err := podkeytest.New(context.Background(), podkeytest.Options{Declare: shop})
	if err != nil {
		log.Fatal(err)
	}
	defer p.Close()

	options := azcore.ClientOptions{Transport: p.Client}
	cred, err := azidentity.NewClientAssertionCredential(p.TenantID, p.Identity("shop").ClientID, p.Assertion("shop", "web"),
		&azidentity.ClientAssertionCredentialOptions{ClientOptions: options})
	if err != nil {
		log.Fatal(err)
	}
	secrets, err := azsecrets.NewClient(p.VaultURL("shop-vault"), cred, &azsecrets.ClientOptions{ClientOptions: options})
	if err != nil {
		log.Fatal(err)
	}
	got, err := secrets.GetSecret(context.Background(), "db-password", "", nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(*got.Value)

	p.Clock.Advance(90 * 24 * time.Hour) // long after every token has expired
	if _, err := secrets.GetSecret(context.Background(), "db-password", "", nil); err != nil {
		fmt.Println("refused")
	}
	// Output:
	// hunter2
	// refused
}
