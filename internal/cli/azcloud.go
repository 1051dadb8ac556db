package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/podkey/podkey/internal/client"
)

// azCloud is what `az cloud register --cloud-config` reads.
type azCloud struct {
	Endpoints azCloudEndpoints `json:"endpoints"`
	Suffixes  azCloudSuffixes  `json:"suffixes"`
}

type azCloudEndpoints struct {
	ResourceManager                string `json:"resourceManager"`
	Management                     string `json:"management"`
	ActiveDirectory                string `json:"activeDirectory"`
	ActiveDirectoryResourceID      string `json:"activeDirectoryResourceId"`
	ActiveDirectoryGraphResourceID string `json:"activeDirectoryGraphResourceId"`
	MicrosoftGraphResourceID       string `json:"microsoftGraphResourceId"`
}

type azCloudSuffixes struct {
	KeyvaultDNS string `json:"keyvaultDns"`
}

// managementAudience is what az asks a token for on its way to the management
// API. It is a name of a resource, not an address.
const managementAudience = "https://management.core.windows.net/"

func newAzCloud() *cobra.Command {
	var dir, name, format string
	cmd := &cobra.Command{
		Use:   "az-cloud [--data DIR] [--name NAME]",
		Short: "Print a cloud configuration for az, with Podkey's own names",
		Long: `Print the configuration with which az knows Podkey as a cloud of its own, under
Podkey's own names, for az cloud register. podkey exec needs nothing of this:
there, az reaches Podkey under Azure's names.`,
		Example: `podkey az-cloud >podkey-cloud.json`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(format); err != nil {
				return err
			}
			if !isCloudName(name) {
				return &usageError{fmt.Errorf("%q is not a name for a cloud", name), "use letters, digits, - and _"}
			}
			c, err := openClient(dir)
			if err != nil {
				return err
			}
			if err := writeJSON(cmd.OutOrStdout(), newCloud(c.Operator)); err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), `With the above in a file podkey-cloud.json:

  export AZURE_CONFIG_DIR=$PWD/azure-podkey && mkdir -p $AZURE_CONFIG_DIR
  export REQUESTS_CA_BUNDLE=%s
  az cloud register --name %s --cloud-config @podkey-cloud.json
  az cloud set --name %s
  az login

The names must resolve to this machine. Where they do not, begin each command
with: podkey exec --own-names --
`, c.Operator.CAFile, name, name)
			return nil
		},
	}
	dataFlag(cmd, &dir)
	outputFlag(cmd, &format)
	cmd.Flags().StringVar(&name, "name", "Podkey", "name that the cloud will have in az")
	return cmd
}

// isCloudName reports whether a name can stand in the commands that are
// printed, unquoted.
func isCloudName(name string) bool {
	return name != "" && !strings.HasPrefix(name, "-") &&
		strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == ""
}

// newCloud describes a server's own names to az.
func newCloud(op client.Operator) azCloud {
	return azCloud{
		Endpoints: azCloudEndpoints{
			ResourceManager: op.Endpoints.Management,
			Management:      managementAudience,
			// A path that begins with adfs is the only authority that MSAL does not
			// ask Azure about first; with a second segment, az does not take it for
			// a server with one tenant.
			ActiveDirectory:                op.Endpoints.Login + "/adfs/aad",
			ActiveDirectoryResourceID:      managementAudience,
			ActiveDirectoryGraphResourceID: "https://graph.windows.net/",
			MicrosoftGraphResourceID:       op.Endpoints.Graph + "/",
		},
		Suffixes: azCloudSuffixes{KeyvaultDNS: op.Endpoints.VaultSuffix},
	}
}
