// Command identity-binding prints one secret of a key vault, as read-secret of
// the samples does, but signs in the way that applications of clusters with
// identity bindings do: by the one credential that asks the cluster's own
// token endpoint. No default chain of the SDK does that.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
)

func main() {
	log.SetFlags(0)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	credential, err := azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{EnableAzureProxy: true})
	if err != nil {
		log.Fatal(err)
	}
	client, err := azsecrets.NewClient(os.Getenv("KEYVAULT_URL"), credential, nil)
	if err != nil {
		log.Fatal(err)
	}
	secret, err := client.GetSecret(ctx, os.Getenv("SECRET_NAME"), "", nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(*secret.Value)
}
