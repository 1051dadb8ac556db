// Command secret-web is a small web application that writes a secret into a
// key vault and reads it back for each visitor.
//
//	KEYVAULT_URL=https://NAME.vault.azure.net secret-web
package main

import (
	"context"
	"errors"
	"fmt"
	"html"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
)

// secretName is the walkthrough's.
const secretName = "AGISecret"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	credential, err := azidentity.NewDefaultAzureCredential(nil)
	if err != nil {
		log.Fatal(err)
	}
	client, err := azsecrets.NewClient(os.Getenv("KEYVAULT_URL"), credential, nil)
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		value, err := writeAndRead(r.Context(), client)
		if err != nil {
			log.Print(err)
			http.Error(w, "the secret could not be written and read: see the log", http.StatusBadGateway)
			return
		}
		fmt.Fprintf(w, "<!doctype html><title>Home Page</title><h1>Welcome</h1><p>Discovered %s</p>\n", html.EscapeString(value))
	})
	srv := &http.Server{Addr: ":8080", Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		<-ctx.Done()
		_ = srv.Close()
	}()
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
}

func writeAndRead(ctx context.Context, client *azsecrets.Client) (string, error) {
	value := "The weights of a state of the art AI model as of " + time.Now().UTC().Format(time.RFC3339)
	if _, err := client.SetSecret(ctx, secretName, azsecrets.SetSecretParameters{Value: to.Ptr(value)}, nil); err != nil {
		return "", err
	}
	secret, err := client.GetSecret(ctx, secretName, "", nil)
	if err != nil {
		return "", err
	}
	log.Print("Secret value: ", *secret.Value)
	return *secret.Value, nil
}
