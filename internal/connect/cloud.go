package connect

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"

	"github.com/podkey/podkey/internal/client"
	"github.com/podkey/podkey/internal/text"
)

// Versions of the APIs that are sent.
const (
	versionGroup    = "2021-04-01"
	versionTags     = "2021-04-01"
	versionIdentity = "2023-01-31"
	versionVault    = "2024-11-01"
	versionRoles    = "2022-04-01"
	versionSecrets  = "7.5"
)

// Cloud is where identities and vaults are: one of Azure's clouds, or a Podkey
// server. Its methods are safe for concurrent use.
type Cloud struct {
	TenantID       string
	SubscriptionID string
	Management     string // origin of the management API, without a closing slash
	Graph          string // origin of the directory API
	Login          string // origin of the token service
	Podkey         bool   // a Podkey server, where what was written holds at once

	transport policy.Transporter
	arm       runtime.Pipeline
	graph     runtime.Pipeline
}

// CloudOptions describe a cloud.
type CloudOptions struct {
	TenantID, SubscriptionID string
	Management, Graph, Login string
	ManagementAudience       string                 // of tokens; Management if empty
	Credential               azcore.TokenCredential // who signs in
	Transport                policy.Transporter     // azcore's own if nil
	Podkey                   bool
}

// NewCloud makes a cloud.
func NewCloud(o CloudOptions) *Cloud {
	c := &Cloud{
		TenantID: o.TenantID, SubscriptionID: o.SubscriptionID,
		Management: strings.TrimRight(o.Management, "/"), Graph: strings.TrimRight(o.Graph, "/"), Login: strings.TrimRight(o.Login, "/"),
		Podkey: o.Podkey, transport: o.Transport,
	}
	audience := o.ManagementAudience
	if audience == "" {
		audience = c.Management
	}
	c.arm, c.graph = c.pipeline(o.Credential, audience), c.pipeline(o.Credential, c.Graph)
	return c
}

// pipeline is the SDK's: with its retries, and a token for the audience.
func (c *Cloud) pipeline(cred azcore.TokenCredential, audience string) runtime.Pipeline {
	var p runtime.PipelineOptions
	if cred != nil {
		p.PerRetry = []policy.Policy{runtime.NewBearerTokenPolicy(cred, []string{audience + "/.default"}, nil)}
	}
	return runtime.NewPipeline("podkey", "", p, &policy.ClientOptions{
		Transport: c.transport,
		Telemetry: policy.TelemetryOptions{Disabled: true},
	})
}

// OfPodkey is the cloud of a Podkey server, as its operator.
func OfPodkey(c *client.Client) *Cloud {
	e := c.Operator.Endpoints
	return NewCloud(CloudOptions{
		TenantID: c.Operator.TenantID, SubscriptionID: c.Operator.SubscriptionID,
		Management: e.Management, Graph: e.Graph, Login: e.Login,
		Credential: operatorCredential{c}, Transport: c.HTTP, Podkey: true,
	})
}

// operatorCredential gives the operator's tokens, which the client keeps.
type operatorCredential struct{ c *client.Client }

func (o operatorCredential) GetToken(ctx context.Context, t policy.TokenRequestOptions) (azcore.AccessToken, error) {
	if len(t.Scopes) != 1 {
		return azcore.AccessToken{}, errors.New("one scope is expected")
	}
	token, err := o.c.Token(ctx, strings.TrimSuffix(t.Scopes[0], "/.default"))
	if err != nil {
		return azcore.AccessToken{}, &signInError{err}
	}
	return azcore.AccessToken{Token: token, ExpiresOn: o.c.Now().Add(10 * time.Minute)}, nil
}

// signInError keeps the pipeline from trying again, for seconds, what a server
// that does not run will not answer.
type signInError struct{ error }

// NonRetriable marks it for the pipeline.
func (*signInError) NonRetriable() {}

func (e *signInError) Unwrap() error { return e.error }

// Refusal is the answer of a cloud that is not the one wished for.
type Refusal struct {
	Status  int
	Code    string
	Message string
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("%s (%s, HTTP %d)", r.Message, r.Code, r.Status)
}

func isMissing(err error) bool {
	r, ok := errors.AsType[*Refusal](err)
	return ok && r.Status == http.StatusNotFound
}

func isRefusal(err error, codes ...string) bool {
	r, ok := errors.AsType[*Refusal](err)
	if ok {
		for _, c := range codes {
			ok = strings.EqualFold(r.Code, c)
			if ok {
				break
			}
		}
	}
	return ok
}

// maxAnswer bounds what is read of an answer.
const maxAnswer = 16 << 20

// send sends JSON, and reads JSON.
func send(ctx context.Context, p runtime.Pipeline, method, target string, in, out any) error {
	return request(ctx, p, method, target, out, func(req *policy.Request) error {
		if in == nil {
			return nil
		}
		return runtime.MarshalAsJSON(req, in)
	})
}

// request sends what prepare makes of a request.
func request(ctx context.Context, p runtime.Pipeline, method, target string, out any, prepare func(*policy.Request) error) error {
	req, err := runtime.NewRequest(ctx, method, target)
	if err != nil {
		return err
	}
	req.Raw().Header.Set("Accept", "application/json")
	if err := prepare(req); err != nil {
		return err
	}
	runtime.SkipBodyDownload(req)
	resp, err := p.Do(req)
	if refused, ok := errors.AsType[*signInError](err); ok {
		return refused.error
	}
	if err != nil {
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err // its text would repeat the URL
		}
		return fmt.Errorf("%s does not answer: %w", req.Raw().URL.Host, err)
	}
	return decode(resp, out)
}

// decode reads an answer: into out, or as a refusal.
func decode(resp *http.Response, out any) error {
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read the answer of %s: %w", resp.Request.URL.Host, err)
	}
	if resp.StatusCode/100 != 2 {
		return refusal(resp, body)
	}
	if out == nil || len(bytes.TrimSpace(body)) == 0 {
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		return fmt.Errorf("the answer of %s is not the JSON that was expected: %w", resp.Request.URL.Host, err)
	}
	return nil
}

// refusal reads the error shapes of ARM, Graph and vaults, and the flat one of
// the token service.
func refusal(resp *http.Response, body []byte) error {
	r := &Refusal{Status: resp.StatusCode, Code: "UnexpectedAnswer", Message: resp.Status}
	var nested struct {
		Error struct{ Code, Message string }
	}
	var flat struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	if json.Unmarshal(body, &nested) == nil && nested.Error.Code != "" {
		r.Code, r.Message = nested.Error.Code, nested.Error.Message
	} else if json.Unmarshal(body, &flat) == nil && flat.Error != "" {
		r.Code = flat.Error
		r.Message, _, _ = strings.Cut(strings.ReplaceAll(flat.Description, "\r\n", " "), " Trace ID:")
	}
	r.Message = text.Printable(r.Message)
	return r
}

// manage calls the management API.
func (c *Cloud) manage(ctx context.Context, method, path, version string, in, out any) error {
	sep := "?"
	if strings.Contains(path, "?") {
		sep = "&"
	}
	return send(ctx, c.arm, method, c.Management+escapePath(path)+sep+"api-version="+version, in, out)
}

// directory calls the directory API.
func (c *Cloud) directory(ctx context.Context, method, path string, in, out any) error {
	return send(ctx, c.graph, method, c.Graph+"/v1.0"+path, in, out)
}

// escapePath escapes the path of an id, which may have what its parts may.
func escapePath(path string) string {
	path, query, found := strings.Cut(path, "?")
	path = (&url.URL{Path: path}).EscapedPath()
	if found {
		path += "?" + query
	}
	return path
}

// list follows a listing to its end.
func list[T any](ctx context.Context, p runtime.Pipeline, target string) ([]T, error) {
	all := []T{}
	for target != "" {
		var page struct {
			Value []T    `json:"value"`
			Next  string `json:"nextLink"`
			OData string `json:"@odata.nextLink"`
		}
		if err := send(ctx, p, http.MethodGet, target, nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Value...)
		target = page.Next + page.OData
	}
	return all, nil
}

func (c *Cloud) subscription() string { return "/subscriptions/" + c.SubscriptionID }

func (c *Cloud) groupPath(group string) string { return c.subscription() + "/resourceGroups/" + group }

// resource is a resource of the management API as far as all are the same.
type resource struct {
	ID       string            `json:"id"`
	Name     string            `json:"name"`
	Location string            `json:"location"`
	Tags     map[string]string `json:"tags"`
}

// groupOf is the resource group in an id.
func groupOf(id string) string {
	parts := strings.Split(id, "/") // "", subscriptions, S, resourceGroups, G, ...
	if len(parts) < 5 || !strings.EqualFold(parts[3], "resourceGroups") {
		return ""
	}
	return parts[4]
}

// Identity is a user-assigned managed identity, or an application with its
// service principal. What the cloud chooses is empty until it is made.
type Identity struct {
	Application bool
	ID          string // of the resource, or the application's object id
	Name        string
	Group       string // of a managed identity
	Location    string
	ClientID    string
	PrincipalID string
	TenantID    string
	Tags        map[string]string
	made        bool // by connect, as the mark says
}

// label is an identity for people.
func (i *Identity) label() string {
	kind := "managed identity "
	if i.Application {
		kind = "application "
	}
	out := kind + text.Printable(i.Name)
	if i.ClientID != "" {
		out += " (client id " + i.ClientID + ")"
	}
	return out
}

// missing reports that an identity is still to be made.
func (i *Identity) missing() bool { return i.PrincipalID == "" }

type wireIdentity struct {
	resource
	Properties struct {
		TenantID    string `json:"tenantId"`
		ClientID    string `json:"clientId"`
		PrincipalID string `json:"principalId"`
	} `json:"properties"`
}

func (w *wireIdentity) identity() *Identity {
	return &Identity{
		ID: w.ID, Name: w.Name, Group: groupOf(w.ID), Location: w.Location, Tags: w.Tags,
		ClientID: w.Properties.ClientID, PrincipalID: w.Properties.PrincipalID, TenantID: w.Properties.TenantID,
		made: w.Tags[markTag] == markMade,
	}
}

const typeIdentity = "/providers/Microsoft.ManagedIdentity/userAssignedIdentities"

func (c *Cloud) identities(ctx context.Context) ([]wireIdentity, error) {
	return list[wireIdentity](ctx, c.arm, c.Management+c.subscription()+typeIdentity+"?api-version="+versionIdentity)
}

// Application finds the one application with a name or client id; nil if there
// is none. Names need not be unique: several are an error.
func (c *Cloud) application(ctx context.Context, nameOrID string) (*Identity, error) {
	filter := "displayName eq '" + strings.ReplaceAll(nameOrID, "'", "''") + "'"
	if isGUID(nameOrID) {
		filter = "appId eq '" + nameOrID + "'"
	}
	type object struct {
		ID          string   `json:"id"`
		AppID       string   `json:"appId"`
		DisplayName string   `json:"displayName"`
		Tags        []string `json:"tags"`
	}
	apps, err := list[object](ctx, c.graph, c.Graph+"/v1.0/applications?$filter="+url.QueryEscape(filter))
	if err != nil || len(apps) == 0 {
		return nil, err
	}
	if len(apps) > 1 {
		var ids []string
		for _, a := range apps {
			ids = append(ids, a.AppID)
		}
		return nil, &Problem{PhaseIdentity, fmt.Errorf("%d applications have the display name %s: %s", len(apps), text.Printable(nameOrID), strings.Join(ids, ", ")),
			"name the one that is meant by its client id"}
	}
	out := &Identity{Application: true, ID: apps[0].ID, Name: apps[0].DisplayName, ClientID: apps[0].AppID, TenantID: c.TenantID, Tags: map[string]string{}}
	for _, t := range apps[0].Tags {
		out.Tags[t] = ""
		out.made = out.made || t == markTag
	}
	principals, err := list[object](ctx, c.graph, c.Graph+"/v1.0/servicePrincipals?$filter="+url.QueryEscape("appId eq '"+out.ClientID+"'"))
	if err != nil {
		return nil, err
	}
	if len(principals) > 0 {
		out.PrincipalID = principals[0].ID
	}
	return out, nil
}

// Credential is a federated credential.
type Credential struct {
	Name        string   `json:"name"`
	Issuer      string   `json:"issuer"`
	Subject     string   `json:"subject"`
	Audiences   []string `json:"audiences"`
	Description string   `json:"description,omitempty"`
}

func (c *Cloud) credentials(ctx context.Context, id *Identity) ([]Credential, error) {
	if id.Application {
		return list[Credential](ctx, c.graph, c.Graph+"/v1.0/applications/"+url.PathEscape(id.ID)+"/federatedIdentityCredentials")
	}
	type wire struct {
		Name       string     `json:"name"`
		Properties Credential `json:"properties"`
	}
	all, err := list[wire](ctx, c.arm, c.Management+escapePath(id.ID)+"/federatedIdentityCredentials?api-version="+versionIdentity)
	out := make([]Credential, len(all))
	for i, w := range all {
		out[i] = w.Properties
		out[i].Name = w.Name
	}
	return out, err
}

func (c *Cloud) putCredential(ctx context.Context, id *Identity, f *Credential) error {
	if id.Application {
		return c.directory(ctx, http.MethodPost, "/applications/"+url.PathEscape(id.ID)+"/federatedIdentityCredentials", f, nil)
	}
	in := map[string]any{"properties": map[string]any{"issuer": f.Issuer, "subject": f.Subject, "audiences": f.Audiences}}
	return c.manage(ctx, http.MethodPut, id.ID+"/federatedIdentityCredentials/"+f.Name, versionIdentity, in, nil)
}

func (c *Cloud) deleteCredential(ctx context.Context, id *Identity, name string) error {
	if id.Application {
		return gone(c.directory(ctx, http.MethodDelete, "/applications/"+url.PathEscape(id.ID)+"/federatedIdentityCredentials/"+url.PathEscape(name), nil, nil))
	}
	return gone(c.manage(ctx, http.MethodDelete, id.ID+"/federatedIdentityCredentials/"+name, versionIdentity, nil, nil))
}

// gone is err, unless it says that there is nothing to remove.
func gone(err error) error {
	if isMissing(err) {
		return nil
	}
	return err
}

// Vault is a key vault.
type Vault struct {
	ID, Name, Group, Location, URI string
	TenantID                       string
	RBAC                           bool // roles decide, not access policies
	Policies                       []Policy
	Tags                           map[string]string
}

// Policy is an access policy of a vault.
type Policy struct {
	TenantID      string      `json:"tenantId"`
	ObjectID      string      `json:"objectId"`
	ApplicationID string      `json:"applicationId,omitempty"`
	Permissions   Permissions `json:"permissions"`
}

type wireVault struct {
	resource
	Properties struct {
		TenantID string   `json:"tenantId"`
		URI      string   `json:"vaultUri"`
		RBAC     bool     `json:"enableRbacAuthorization"`
		Policies []Policy `json:"accessPolicies"`
	} `json:"properties"`
}

func (w *wireVault) vault() *Vault {
	return &Vault{
		ID: w.ID, Name: w.Name, Group: groupOf(w.ID), Location: w.Location, URI: w.Properties.URI, TenantID: w.Properties.TenantID,
		RBAC: w.Properties.RBAC, Policies: w.Properties.Policies, Tags: w.Tags,
	}
}

const typeVault = "/providers/Microsoft.KeyVault/vaults"

func (c *Cloud) vaults(ctx context.Context) ([]wireVault, error) {
	return list[wireVault](ctx, c.arm, c.Management+c.subscription()+typeVault+"?api-version="+versionVault)
}

// Assignment is a role that a principal has.
type Assignment struct {
	ID          string
	Role        string // GUID of the definition
	Scope       string
	Description string
}

type wireAssignment struct {
	ID         string `json:"id"`
	Properties struct {
		RoleDefinitionID string `json:"roleDefinitionId"`
		PrincipalID      string `json:"principalId"`
		Scope            string `json:"scope"`
		Description      string `json:"description"`
	} `json:"properties"`
}

// assignments are those of a principal at a scope, above it and below it.
func (c *Cloud) assignments(ctx context.Context, scope, principal string) ([]Assignment, error) {
	all, err := list[wireAssignment](ctx, c.arm, c.Management+escapePath(scope)+"/providers/Microsoft.Authorization/roleAssignments?api-version="+versionRoles+
		"&$filter="+url.QueryEscape("principalId eq '"+principal+"'"))
	out := make([]Assignment, len(all))
	for i, w := range all {
		p := &w.Properties
		out[i] = Assignment{w.ID, strings.ToLower(p.RoleDefinitionID[strings.LastIndex(p.RoleDefinitionID, "/")+1:]), p.Scope, p.Description}
	}
	return out, err
}

// setTags merges tags into those of a resource, or takes them away.
func (c *Cloud) setTags(ctx context.Context, id, operation string, tags map[string]string) error {
	in := map[string]any{"operation": operation, "properties": map[string]any{"tags": tags}}
	return c.manage(ctx, http.MethodPatch, id+"/providers/Microsoft.Resources/tags/default", versionTags, in, nil)
}

// clusterIssuer is the issuer that a managed cluster is registered with.
func (c *Cloud) clusterIssuer(ctx context.Context, id string) (string, error) {
	var m client.Cluster
	if err := c.manage(ctx, http.MethodGet, id, client.VersionClusters, nil, &m); err != nil {
		return "", err
	}
	if m.Issuer() == "" {
		return "", &Problem{PhaseIssuer, errors.New("the cluster has no OIDC issuer"),
			"az aks update --ids " + quote(id) + " --enable-oidc-issuer --enable-workload-identity"}
	}
	return m.Issuer(), nil
}

func isGUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, r := range s {
		if dash := i == 8 || i == 13 || i == 18 || i == 23; dash != (r == '-') || !dash && !strings.ContainsRune("0123456789abcdefABCDEF", r) {
			return false
		}
	}
	return true
}
