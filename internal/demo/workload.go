package demo

import (
	"context"
	"fmt"
	"io"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
)

// Workload is the program that reads the secret when none is given: what
// samples/read-secret does, for a podkey without its source tree. It knows
// nothing of Podkey.
func Workload(ctx context.Context, vaultURL, name string, out io.Writer) error {
	credential, err := azidentity.NewDefaultAzureCredential(nil)
	if err != nil {
		return err
	}
	c, err := azsecrets.NewClient(vaultURL, credential, nil)
	if err != nil {
		return err
	}
	s, err := c.GetSecret(ctx, name, "", nil)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, *s.Value)
	return err
}
