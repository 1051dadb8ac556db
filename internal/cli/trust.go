package cli

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/podkey/podkey/internal/pki"
)

// trustVariable holds the PEM certificates that a pod is to trust.
const trustVariable = "PODKEY_CA"

func newTrust() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "trust --to DIR",
		Short: "Write the trust files of a pod",
		Long: `Write what the clients of a pod read to know whom to trust: ca-bundle.pem, for
SSL_CERT_FILE and its like, and truststore.p12, for Java. Both hold the
certificates of the variable PODKEY_CA (PEM) and the roots of this image.

The webhook starts this in a pod, before anything else; it needs no rights but
to write into the directory. docs/proxy.md has the container.`,
		Example: `  PODKEY_CA="$(cat ca.pem)" podkey trust --to /var/run/secrets/podkey/trust`,
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return writeTrust(cmd, dir) },
	}
	cmd.Flags().StringVar(&dir, "to", "", "directory to write into")
	_ = cmd.MarkFlagRequired("to")
	_ = cmd.MarkFlagDirname("to")
	return cmd
}

func writeTrust(cmd *cobra.Command, dir string) error {
	if dir == "" {
		return &usageError{errors.New("no directory to write into"), "give --to DIR"}
	}
	ours := []byte(os.Getenv(trustVariable))
	cas, err := pki.ParseTrusted(ours)
	if err != nil {
		return &hinted{fmt.Errorf("%s: %w", trustVariable, err), "set " + trustVariable + " to PEM certificates, such as the ca.pem of the server's data directory"}
	}
	system, err := pki.SystemRoots()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	// For containers that run as other users.
	bundle, store, err := pki.WriteTrust(dir, 0o644, ours, system)
	if err != nil {
		return err
	}
	roots := len(pki.Certificates(system))
	if roots == 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "podkey: this image has no system roots: the pod will trust %s alone\n", trustVariable)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "podkey: wrote %s and %s, certificates of %s: %d, system roots: %d\n", bundle, store, trustVariable, len(cas), roots)
	return nil
}
