// Command secret-logger reads one secret of a key vault every minute and says
// so, as the sample of the workload-identity walkthroughs does.
//
//	KEYVAULT_URL=https://NAME.vault.azure.net SECRET_NAME=my-secret secret-logger
package main

import (
	"context"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	every := time.Minute
	if s := os.Getenv("INTERVAL"); s != "" {
		var err error
		if every, err = time.ParseDuration(s); err != nil || every <= 0 {
			log.Fatalf("INTERVAL %q is not a duration such as 30s", s)
		}
	}
	name := os.Getenv("SECRET_NAME")
	credential, err := azidentity.NewDefaultAzureCredential(nil)
	if err != nil {
		log.Fatal(err)
	}
	client, err := azsecrets.NewClient(os.Getenv("KEYVAULT_URL"), credential, nil)
	if err != nil {
		log.Fatal(err)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		secret, err := client.GetSecret(ctx, name, "", nil)
		if err != nil {
			log.Printf("failed to get secret %q: %v", name, err)
		} else {
			log.Printf("successfully got secret %q", *secret.Value)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
