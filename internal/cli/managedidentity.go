package cli

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"golang.org/x/sync/errgroup"

	"github.com/podkey/podkey/internal/client"
	"github.com/podkey/podkey/internal/imds"
)

// managedIdentity gives a program the endpoint by which App Service gives
// its own the token of a managed identity, for programs that look for one:
// ManagedIdentityCredential, az login --identity. Behind it is the exchange
// of the workload's token, so nothing can be had that the workload could not
// have itself.
type managedIdentity struct {
	client    *client.Client
	clientID  string // of the identity that is meant when none is named
	tokenFile string
	log       *slog.Logger // told why there was no token

	mu          sync.Mutex
	credentials map[string]azcore.TokenCredential // by client id
}

// serve listens until ctx ends and returns the variables by which clients
// find the endpoint.
func (m *managedIdentity) serve(ctx context.Context, g *errgroup.Group) ([]string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the managed identity endpoint: %w", err)
	}
	secret := rand.Text()
	s := &http.Server{
		Handler:           &imds.Handler{Secret: secret, Token: m.token, Now: m.client.Now, Log: m.log},
		ReadHeaderTimeout: 10 * time.Second,
	}
	g.Go(func() error {
		if err := s.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("managed identity endpoint: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		return s.Close()
	})
	at := "http://" + ln.Addr().String() + imds.AppServicePath
	return []string{
		"IDENTITY_ENDPOINT=" + at, "IDENTITY_HEADER=" + secret,
		// Older clients, az up to 2.6x among them: they take these for App
		// Service only if the third is there.
		"MSI_ENDPOINT=" + at, "MSI_SECRET=" + secret, "APPSETTING_WEBSITE_SITE_NAME=podkey",
	}, nil
}

// token implements imds.Handler's Token.
func (m *managedIdentity) token(ctx context.Context, a imds.Ask) (imds.Token, error) {
	id, err := m.identity(ctx, a)
	if err != nil {
		return imds.Token{}, err
	}
	cred, err := m.credential(id)
	if err != nil {
		return imds.Token{}, err
	}
	t, err := cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{a.Resource + "/.default"}})
	if failed, ok := errors.AsType[*azidentity.AuthenticationFailedError](err); ok && failed.RawResponse != nil && failed.RawResponse.StatusCode < 500 {
		return imds.Token{}, &imds.Error{Status: http.StatusBadRequest, Code: "invalid_request", Description: description(failed.RawResponse)}
	}
	if err != nil {
		return imds.Token{}, err
	}
	return imds.Token{Value: t.Token, ClientID: id, Expires: t.ExpiresOn}, nil
}

// identity finds the client id of the identity that is asked for.
func (m *managedIdentity) identity(ctx context.Context, a imds.Ask) (string, error) {
	switch {
	case a.ClientID != "":
		return a.ClientID, nil
	case a.ObjectID == "" && a.ResourceID == "":
		return m.clientID, nil
	}
	all, err := m.client.Identities(ctx)
	if err != nil {
		return "", err
	}
	for _, id := range all {
		if a.ObjectID != "" && strings.EqualFold(a.ObjectID, id.Properties.PrincipalID) || a.ResourceID != "" && strings.EqualFold(a.ResourceID, id.ID) {
			return id.Properties.ClientID, nil
		}
	}
	return "", imds.ErrIdentityNotFound()
}

func (m *managedIdentity) credential(clientID string) (azcore.TokenCredential, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := strings.ToLower(clientID)
	if c := m.credentials[key]; c != nil {
		return c, nil
	}
	op := m.client.Operator
	c, err := azidentity.NewWorkloadIdentityCredential(&azidentity.WorkloadIdentityCredentialOptions{
		ClientOptions: azcore.ClientOptions{
			Transport: m.client.HTTP,
			Cloud:     cloud.Configuration{ActiveDirectoryAuthorityHost: op.Endpoints.Login + "/"},
		},
		ClientID: clientID, TenantID: op.TenantID, TokenFilePath: m.tokenFile, DisableInstanceDiscovery: true,
	})
	if err != nil {
		return nil, err
	}
	if m.credentials == nil {
		m.credentials = map[string]azcore.TokenCredential{}
	}
	m.credentials[key] = c
	return c, nil
}

// description is the token service's own sentence.
func description(r *http.Response) string {
	var refusal struct {
		Description string `json:"error_description"`
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<16))
	if err == nil {
		err = json.Unmarshal(body, &refusal)
	}
	if err != nil || refusal.Description == "" {
		return "The token service refused the request."
	}
	return refusal.Description
}
