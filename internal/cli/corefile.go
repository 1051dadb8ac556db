package cli

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"github.com/podkey/podkey/internal/client"
	"github.com/podkey/podkey/internal/server"
)

func newCorefile() *cobra.Command {
	var dir, address string
	cmd := &cobra.Command{
		Use:   "corefile [--address IP]",
		Short: "Print what makes cluster DNS answer Azure's names with Podkey's address",
		Long: `Print plugins of CoreDNS that answer Azure's names, and those of Podkey's own
domain, with the server's address. With these in the main block of cluster DNS, and
with trust in Podkey's CA for Azure's names in the pods that ask for it, an
image that was built for AKS runs unchanged.

Whoever resolves Azure's names in that cluster then meets Podkey: do it in a
cluster whose applications use Podkey alone. Port 443 is in Azure's names, so
the server must be reached there.`,
		Example: "  podkey corefile --address 10.0.0.5\n  kubectl -n kube-system edit configmap coredns",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := dataDir(dir)
			if err != nil {
				return err
			}
			op, err := client.ReadOperator(dir)
			if err != nil {
				return err
			}
			ip, err := clusterAddress(address, op.Listen)
			if err != nil {
				return err
			}
			own, _, _ := strings.Cut(strings.TrimPrefix(op.Endpoints.VaultSuffix, ".vault."), ":")
			for _, zone := range append(server.AzureDomains(), own) {
				fmt.Fprint(cmd.OutOrStdout(), corefileZone(zone, ip))
			}
			if _, port, _ := net.SplitHostPort(op.Listen); port != "443" {
				fmt.Fprintf(cmd.ErrOrStderr(), "note: the server listens on port %s; Azure's names are met at port 443 of %s\n", port, ip)
			}
			return nil
		},
	}
	dataFlag(cmd, &dir)
	cmd.Flags().StringVar(&address, "address", "", "address of the server as pods reach it (default: the one that it listens on)")
	return cmd
}

// clusterAddress is where pods meet the server.
func clusterAddress(given, listen string) (netip.Addr, error) {
	if given != "" {
		ip, err := netip.ParseAddr(given)
		if err != nil || ip.Zone() != "" {
			return ip, &usageError{fmt.Errorf("%q is no IP address", given), "give one such as --address 10.0.0.5"}
		}
		return ip, nil
	}
	at, err := netip.ParseAddrPort(listen)
	if err != nil || at.Addr().IsLoopback() || at.Addr().IsUnspecified() {
		return netip.Addr{}, &hinted{errors.New("pods cannot reach " + listen + ", where the server listens"), "give the address that they reach it at: --address IP"}
	}
	return at.Addr(), nil
}

// corefileZone answers a zone and all below it. The kind of address that
// there is none of is an empty answer: a client that got none at all would try
// further.
func corefileZone(zone string, ip netip.Addr) string {
	kind, other := "A", "AAAA"
	if ip.Is6() {
		kind, other = other, kind
	}
	return fmt.Sprintf("template IN %[1]s %[2]s {\n    answer \"{{ .Name }} 30 IN %[1]s %[3]s\"\n}\ntemplate IN %[4]s %[2]s {\n    rcode NOERROR\n}\n", kind, zone, ip, other)
}
