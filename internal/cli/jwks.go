package cli

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/podkey/podkey/internal/connect"
)

func newJWKS() *cobra.Command {
	var files []string
	var output string
	cmd := &cobra.Command{
		Use:   "jwks --public-keys FILE[,FILE...] [--output-file FILE]",
		Short: "Make the key set of a cluster's issuer from its public keys",
		Long: `Make the JSON Web Key Set of a cluster's issuer from its service-account keys,
as kube-apiserver publishes it: RSA and EC keys, in PEM files. Of private keys
the public part is taken. It is what podkey cluster push-keys --jwks reads.`,
		Example: `  podkey jwks --public-keys /etc/kubernetes/pki/sa.pub`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := connect.JWKS(files)
			if err != nil {
				return err
			}
			if output == "" {
				_, err = cmd.OutOrStdout().Write(b)
				return err
			}
			if err := os.WriteFile(output, b, 0o600); err != nil {
				return fmt.Errorf("write the key set: %w", err)
			}
			return nil
		},
	}
	cmd.Flags().StringSliceVar(&files, "public-keys", nil, "files with keys, PEM")
	cmd.Flags().StringVar(&output, "output-file", "", "file to write, with mode 0600 (default: standard output)")
	_ = cmd.MarkFlagFilename("public-keys", "pem", "pub", "key")
	_ = cmd.MarkFlagFilename("output-file", "json")
	return cmd
}
