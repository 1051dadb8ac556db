package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/podkey/podkey/internal/client"
	"github.com/podkey/podkey/internal/workload"
)

// exchangeAudience is what a projected service-account token is made for.
const exchangeAudience = "api://AzureADTokenExchange"

// azureAuthority is the authority host that the webhook injects for Azure's
// public cloud.
const azureAuthority = "https://login.microsoftonline.com/"

func newRun() *cobra.Command {
	var r runner
	cmd := &cobra.Command{
		Use:   "run [--data DIR] -n NS --service-account SA -- CMD...",
		Short: "Run a program as a Kubernetes workload",
		Long: `Run a program as the workload of a service account: with a token file, kept
fresh, and the variables AZURE_CLIENT_ID, AZURE_TENANT_ID,
AZURE_FEDERATED_TOKEN_FILE and AZURE_AUTHORITY_HOST, exactly what the webhook
gives a pod; and behind the same proxy as podkey exec.

The client id is that of the one identity with a federated credential for the
service account; --client-id chooses another.

With --managed-identity, the program finds what one on App Service finds
instead, the endpoint of a managed identity: for ManagedIdentityCredential
alone, and for az login --identity.`,
		Example: `podkey run -n shop --service-account web -- ./app`,
		Args:    commandArgs,
		RunE:    r.run,
	}
	fl := cmd.Flags()
	fl.SetInterspersed(false)
	dataFlag(cmd, &r.dir)
	fl.StringVar(&r.cluster, "cluster", "local", "cluster that the service account belongs to")
	fl.StringVarP(&r.namespace, "namespace", "n", "", "namespace of the service account")
	fl.StringVar(&r.account, "service-account", "", "service account")
	fl.StringVar(&r.clientID, "client-id", "", "client id of the identity (default: found by its federated credential)")
	fl.BoolVar(&r.ownNames, "own-names", false, "use Podkey's own names instead of Azure's")
	fl.BoolVar(&r.managed, "managed-identity", false, "offer the endpoint of a managed identity instead of the token file")
	fl.DurationVar(&r.lifetime, "token-lifetime", time.Hour, "lifetime of each service-account token, 10m to 24h")
	_ = cmd.MarkFlagRequired("namespace")
	_ = cmd.MarkFlagRequired("service-account")
	return cmd
}

// runner is `podkey run`.
type runner struct {
	dir, cluster, namespace, account, clientID string
	ownNames, managed                          bool
	lifetime                                   time.Duration
}

func (r *runner) run(cmd *cobra.Command, args []string) error {
	dir, err := dataDir(r.dir)
	if err != nil {
		return err
	}
	c, err := client.Open(dir)
	if err != nil {
		return err
	}
	if err := refuseRegistered(cmd.Context(), c, r.cluster); err != nil {
		return err
	}
	if r.clientID == "" {
		if r.clientID, err = r.findIdentity(cmd.Context(), c); err != nil {
			return err
		}
	}
	s := session{client: c, dataDir: dir, ownNames: r.ownNames}
	return s.run(cmd, args, func(ctx context.Context, g *errgroup.Group, tmp string) ([]string, error) {
		file := &workload.TokenFile{
			Path: filepath.Join(tmp, "tokens", "azure-identity-token"),
			Fetch: func(ctx context.Context) (string, time.Time, error) {
				return c.ServiceAccountToken(ctx, r.cluster, r.namespace, r.account, exchangeAudience, r.lifetime)
			},
		}
		if err := file.Write(ctx); err != nil {
			return nil, err
		}
		g.Go(func() error { return file.Run(ctx) })
		if r.managed {
			m := &managedIdentity{client: c, clientID: r.clientID, tokenFile: file.Path, log: slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))}
			vars, err := m.serve(ctx, g)
			return append(vars, "AZURE_CLIENT_ID="+r.clientID, "AZURE_TENANT_ID="+c.Operator.TenantID), err
		}
		authority := azureAuthority
		var extra []string
		if r.ownNames {
			authority = c.Operator.Endpoints.Login + "/"
			// The only variable that keeps an SDK from asking Azure about an
			// authority that it does not know: <label>.login.D.
			extra = append(extra, "AZURE_REGIONAL_AUTHORITY_NAME=podkey")
		}
		return append(extra, workload.WorkloadEnv(r.clientID, c.Operator.TenantID, file.Path, authority)...), nil
	})
}

// findIdentity finds the identity that trusts the service account, as the
// annotation of a real service account would name it.
func (r *runner) findIdentity(ctx context.Context, c *client.Client) (string, error) {
	issuer, subject := c.Issuer(r.cluster), "system:serviceaccount:"+r.namespace+":"+r.account
	found, err := c.IdentitiesTrusting(ctx, issuer, subject)
	if err != nil {
		return "", err
	}
	switch len(found) {
	case 1:
		return found[0].Properties.ClientID, nil
	case 0:
		return "", &hinted{fmt.Errorf("no identity has a federated credential for issuer %s and subject %s", issuer, subject),
			"add one to an identity, for example with: podkey bootstrap -f FILE, or give --client-id ID"}
	}
	var names []string
	for _, id := range found {
		names = append(names, id.Name+" ("+id.Properties.ClientID+")")
	}
	return "", &hinted{errors.New("several identities trust " + subject + ": " + strings.Join(names, ", ")), "choose one with --client-id ID"}
}
