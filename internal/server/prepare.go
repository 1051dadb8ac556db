package server

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"

	"github.com/google/uuid"

	"github.com/podkey/podkey/internal/client"
	"github.com/podkey/podkey/internal/server/directory"
	"github.com/podkey/podkey/internal/server/issuer"
	"github.com/podkey/podkey/internal/server/rbac"
	"github.com/podkey/podkey/internal/store"
	"github.com/podkey/podkey/internal/token"
)

// settings is the one record that ties the first start's objects together:
// its ids are chosen before the objects are made, so that a start which died
// half-way is finished by the next one instead of making a second set.
type settings struct {
	TenantID       string `json:"tenantId"`
	SubscriptionID string `json:"subscriptionId"`
	OperatorApp    string `json:"operatorApp"`       // object id of the application
	OperatorClient string `json:"operatorClient"`    // client id
	OperatorSP     string `json:"operatorPrincipal"` // object id of the service principal
	OperatorUser   string `json:"operatorUser"`      // object id of the user
}

const settingsKey = "server"

// ownerRole is Azure's GUID of the role Owner.
const ownerRole = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635"

// operatorSecretLife is how long the client secret in operator.json is good.
const operatorSecretLife = 10 * 365 * 24 * time.Hour

// prepare makes sure that keys, tenant, subscription, operator and CAs exist,
// and writes the operator's files. Every step looks before it makes, so it
// is run at every start.
func (s *Server) prepare(ctx context.Context) error {
	set, err := s.ensureSettings(ctx)
	if err != nil {
		return err
	}
	s.registerAdmin(set.TenantID)
	if err := s.keys.Ensure(ctx, token.Tenant, token.Cluster(issuer.Local)); err != nil {
		return fmt.Errorf("prepare signing keys: %w", err)
	}
	if err := s.ensureTenant(ctx, set.TenantID, "Podkey", []string{s.hosts.domain}, set.SubscriptionID); err != nil {
		return fmt.Errorf("prepare tenant: %w", err)
	}
	if err := s.ensureOperator(ctx, set); err != nil {
		return fmt.Errorf("prepare operator: %w", err)
	}
	if err := s.arm.Resume(ctx); err != nil {
		return fmt.Errorf("finish removals of resource groups: %w", err)
	}
	if len(s.config.Etcd.Endpoints) == 0 { // else other servers' deployments may be under way
		if err := s.deploys.Resume(ctx); err != nil {
			return fmt.Errorf("close interrupted deployments: %w", err)
		}
	}
	if err := s.writeFiles(ctx, set); err != nil {
		return fmt.Errorf("prepare data directory: %w", err)
	}
	return nil
}

func (s *Server) ensureSettings(ctx context.Context) (settings, error) {
	var set settings
	err := s.store.Update(ctx, func(tx *store.Tx) error {
		var ok bool
		var err error
		if set, ok, err = s.settings.Get(tx, settingsKey); err != nil || ok {
			return err
		}
		set = settings{uuid.NewString(), uuid.NewString(), uuid.NewString(), uuid.NewString(), uuid.NewString(), uuid.NewString()}
		return s.settings.Put(tx, settingsKey, set)
	})
	return set, err
}

// ensureTenant makes a tenant and its subscription unless they exist.
func (s *Server) ensureTenant(ctx context.Context, id, name string, domains []string, subscription string) error {
	if _, ok, err := s.directory.Tenant(ctx, id); err != nil {
		return err
	} else if !ok {
		if _, err := s.directory.CreateTenant(ctx, directory.Tenant{ID: id, DisplayName: name, Domains: domains}); err != nil {
			return err
		}
	}
	_, err := s.arm.EnsureSubscription(ctx, subscription, id, name)
	return err
}

// ensureOperator makes the operator's application and user, both Owner of
// everything.
func (s *Server) ensureOperator(ctx context.Context, set settings) error {
	if err := s.ensureApplication(ctx, directory.Application{
		ObjectID: set.OperatorApp, AppID: set.OperatorClient, TenantID: set.TenantID, DisplayName: "Podkey operator",
	}, set.OperatorSP); err != nil {
		return err
	}
	if _, ok, err := s.directory.User(ctx, set.TenantID, set.OperatorUser); err != nil {
		return err
	} else if !ok {
		// Nobody knows this password: writeFiles sets the one that it writes down.
		u := directory.User{ObjectID: set.OperatorUser, TenantID: set.TenantID, UserPrincipalName: s.operatorName(), DisplayName: "Operator"}
		if _, err := s.directory.CreateUser(ctx, u, rand.Text()); err != nil {
			return err
		}
	}
	for _, p := range []struct{ id, kind string }{{set.OperatorSP, directory.PrincipalService}, {set.OperatorUser, directory.PrincipalUser}} {
		if err := s.ensureOwner(ctx, "/", set.TenantID, p.id, p.kind); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) operatorName() string { return "operator@" + s.hosts.domain }

// ensureApplication makes an application with a service principal unless they
// exist.
func (s *Server) ensureApplication(ctx context.Context, a directory.Application, principal string) error {
	if _, ok, err := s.directory.Application(ctx, a.ObjectID); err != nil {
		return err
	} else if !ok {
		if _, err := s.directory.CreateApplication(ctx, a); err != nil {
			return err
		}
	}
	if _, ok, err := s.directory.ServicePrincipal(ctx, principal); err != nil {
		return err
	} else if !ok {
		_, err := s.directory.CreateServicePrincipal(ctx, directory.ServicePrincipal{
			ObjectID: principal, AppID: a.AppID, TenantID: a.TenantID, DisplayName: a.DisplayName, Kind: directory.KindApplication,
		})
		return err
	}
	return nil
}

// ensureOwner makes a principal Owner of a scope. The assignment's name is
// derived from scope and principal, so that it is made once.
func (s *Server) ensureOwner(ctx context.Context, scope, tenant, principal, kind string) error {
	name := uuid.NewSHA1(uuid.NameSpaceURL, []byte("podkey:owner:"+scope+":"+principal)).String()
	_, _, err := s.rbac.PutAssignment(ctx, rbac.Assignment{
		Name: name, Scope: scope, TenantID: tenant, RoleDefinitionID: ownerRole, PrincipalID: principal, PrincipalType: kind,
	})
	return err
}

// writeFiles writes ca.pem, azure-ca.pem and operator.json. Credentials that
// the file has and that still work are kept; else new ones are made, because
// whoever can read this directory is the operator.
func (s *Server) writeFiles(ctx context.Context, set settings) error {
	own, err := s.authority.ensure(ctx, ownCA)
	if err != nil {
		return err
	}
	azure, err := s.authority.ensure(ctx, azureCA)
	if err != nil {
		return err
	}
	op := client.Operator{
		TenantID: set.TenantID, SubscriptionID: set.SubscriptionID, ClientID: set.OperatorClient, ObjectID: set.OperatorSP,
		UserName:    s.operatorName(),
		Listen:      dialAddress(s.listener.Addr().String()),
		CAFile:      filepath.Join(s.config.Data, "ca.pem"),
		AzureCAFile: filepath.Join(s.config.Data, "azure-ca.pem"),
		Endpoints: client.Endpoints{
			Login: s.hosts.own.Login, Management: s.hosts.own.Management, Graph: s.hosts.own.Graph,
			VaultSuffix: "." + s.hosts.own.Vault, Issuer: issuer.URL(s.hosts.own, issuer.Local),
		},
	}
	if err := s.operatorCredentials(ctx, set, &op); err != nil {
		return err
	}
	body, err := json.MarshalIndent(op, "", "  ")
	if err != nil {
		return err
	}
	s.operator = op
	return errors.Join(
		store.WriteFileAtomic(op.CAFile, own.CertPEM(), 0o644),
		store.WriteFileAtomic(op.AzureCAFile, azure.CertPEM(), 0o644),
		store.WriteFileAtomic(filepath.Join(s.config.Data, client.OperatorFile), append(body, '\n'), 0o600),
	)
}

// operatorCredentials fills in the client secret and the password.
func (s *Server) operatorCredentials(ctx context.Context, set settings, op *client.Operator) error {
	had, err := client.ReadOperator(s.config.Data)
	if _, none := errors.AsType[*client.NoServerError](err); err != nil && !none {
		return fmt.Errorf("%w; remove the file to have new credentials made", err)
	}
	if err == nil && had.TenantID == set.TenantID && had.ClientID == set.OperatorClient {
		op.ClientSecret, op.UserPassword = had.ClientSecret, had.UserPassword
	}
	c, _, err := s.directory.Client(ctx, set.TenantID, set.OperatorClient)
	if err != nil {
		return err
	}
	if known, ok, err := s.directory.VerifySecret(ctx, &c, op.ClientSecret); err != nil {
		return err
	} else if !ok || !s.now().Before(known.End) {
		_, op.ClientSecret, err = s.directory.AddSecret(ctx, set.OperatorApp, directory.NewSecret{
			DisplayName: "operator.json", End: s.now().Add(operatorSecretLife),
		})
		if err != nil {
			return err
		}
	}
	if op.UserPassword == "" {
		op.UserPassword = rand.Text()
		return s.directory.SetPassword(ctx, set.OperatorUser, op.UserPassword)
	}
	return nil
}

// dialAddress is where a program on this machine reaches a listener.
func dialAddress(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}
