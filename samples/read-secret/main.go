// Command read-secret prints one secret of a key vault.
//
// It is an ordinary program for a pod with a workload identity: it knows the
// vault's URL and the secret's name from its environment, and nothing else.
//
//	KEYVAULT_URL=https://NAME.vault.azure.net SECRET_NAME=my-secret read-secret
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
	value, err := read(os.Getenv("KEYVAULT_URL"), os.Getenv("SECRET_NAME"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(value)
}

func read(vaultURL, name string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	credential, err := azidentity.NewDefaultAzureCredential(nil)
	if err != nil {
		return "", err
	}
	client, err := azsecrets.NewClient(vaultURL, credential, nil)
	if err != nil {
		return "", err
	}
	secret, err := client.GetSecret(ctx, name, "", nil)
	if err != nil {
		return "", err
	}
	return *secret.Value, nil
}
