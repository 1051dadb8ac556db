package connect

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"

	"github.com/podkey/podkey/internal/text"
)

// PodTemplate is what a pod's template must have, as YAML.
func PodTemplate(account string) string {
	return `metadata:
  labels:
    azure.workload.identity/use: "true"
spec:
  serviceAccountName: ` + account + "\n"
}

// Missing says what else the cluster lacks for pods to be injected.
func (c *Connection) Missing(ctx context.Context) (notes []string) {
	if c.Cluster == nil {
		return nil
	}
	there, known := c.Cluster.webhookThere(ctx)
	switch {
	case !known:
		notes = append(notes, "whether the webhook is installed could not be seen: kubectl get mutatingwebhookconfigurations")
	case !there:
		notes = append(notes, "no webhook that injects pods is installed in the cluster: install Podkey's chart, or azure-workload-identity's")
	}
	return notes
}

// Finding is one thing that the proof tried.
type Finding struct {
	What  string `json:"what"`
	Works bool   `json:"works"`
	Text  string `json:"text"`
	Hint  string `json:"hint,omitempty"`
}

// How long a proof waits for Azure to have copied what was just made.
const (
	proofTries = 25
	proofWait  = 5 * time.Second
)

// Prove does what a pod does: it has the API server issue a token of the
// service account, exchanges it, and asks the vault with it. Nothing is
// written. made says that something was made a moment ago, which Azure takes
// its time to see.
func (c *Connection) Prove(ctx context.Context, p *Plan, made bool) ([]Finding, error) {
	r := &c.Request
	if c.Cluster == nil || p.Identity == nil || p.Identity.missing() {
		return nil, &Problem{PhaseCheck, errors.New("there is nothing to prove it by: no cluster, or no identity"), ""}
	}
	var out []Finding
	found := func(what string, err error, text, hint string) bool {
		f := Finding{What: what, Works: err == nil, Text: text, Hint: hint}
		if err != nil {
			f.Text = oneLine(err)
		} else {
			f.Hint = ""
		}
		out = append(out, f)
		return err == nil
	}
	token, err := c.Cluster.token(ctx, r.Namespace, r.Account, r.audience())
	if !found("token", err, "issued for "+r.subject(), c.tokenHint()) {
		return out, nil
	}
	issuer, err := compareClaims(token, p.Issuer, r.subject(), r.audience())
	if !found("claims", err, "iss "+text.Printable(issuer)+", sub and aud as in the federated credential", "podkey connect again, without --issuer") {
		return out, nil
	}
	v := p.Vault
	if v == nil || v.URI == "" {
		return out, nil
	}
	if !strings.HasPrefix(v.URI, "https://") {
		return out, fmt.Errorf("the address of the vault is %s", text.Printable(v.URI))
	}
	resource, err := c.vaultResource(ctx, v.URI)
	if !found("vault", err, "answers at "+text.Printable(v.URI), "") {
		return out, nil
	}
	var access string
	err = c.eventually(ctx, made, func() (err error) {
		access, err = c.exchange(ctx, p.Identity, token, resource)
		return err
	})
	if !found("exchange", err, "an access token for "+p.Identity.label(), c.exchangeHint(err)) {
		return out, nil
	}
	for _, try := range tryouts(r) {
		text := ""
		err := c.eventually(ctx, made, func() (err error) {
			text, err = c.ask(ctx, v.URI+try.path, access)
			return err
		})
		found(try.what, err, text, "podkey connect again, without skipping "+PhasePermission)
	}
	return out, nil
}

func oneLine(err error) string { return text.Printable(strings.ReplaceAll(err.Error(), "\n", "; ")) }

func (c *Connection) tokenHint() string {
	return "you must be allowed to create serviceaccounts/token: kubectl auth can-i create serviceaccounts/token -n " + quote(c.Request.Namespace)
}

// exchangeHint says what to do about the refusals that are about the cluster.
func (c *Connection) exchangeHint(err error) string {
	if err == nil {
		return ""
	}
	for _, code := range []string{"AADSTS90061", "AADSTS50166", "AADSTS7000272"} {
		if strings.Contains(err.Error(), code) && c.Cloud.Podkey {
			return "let the server know the cluster's keys: podkey cluster register -g GROUP -n NAME --kubeconfig FILE, or podkey cluster push-keys"
		}
	}
	return ""
}

// eventually repeats what Azure may refuse for a while after a change.
func (c *Connection) eventually(ctx context.Context, made bool, do func() error) error {
	for n := 1; ; n++ {
		err := do()
		r, ok := errors.AsType[*Refusal](err)
		if !ok || !made || c.Cloud.Podkey || n == proofTries {
			return err
		}
		soon := r.Status == http.StatusForbidden || strings.Contains(r.Message, "AADSTS70021") || strings.Contains(r.Message, "AADSTS70025") || strings.Contains(r.Message, "AADSTS7002")
		if !soon {
			return err
		}
		if err := c.wait(ctx, proofWait); err != nil {
			return err
		}
	}
}

// compareClaims compares a token with what the federated credential has. The
// token is not verified here: the token service does that.
func compareClaims(token, issuer, subject, audience string) (string, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "", errors.New("the token is not a JWT")
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return "", errors.New("the token is not a JWT")
	}
	var claims struct {
		Issuer   string `json:"iss"`
		Subject  string `json:"sub"`
		Audience any    `json:"aud"`
	}
	if err := json.Unmarshal(raw, &claims); err != nil {
		return "", errors.New("the token's claims are not JSON")
	}
	var audiences []string
	switch a := claims.Audience.(type) {
	case string:
		audiences = []string{a}
	case []any:
		for _, one := range a {
			s, _ := one.(string)
			audiences = append(audiences, s)
		}
	}
	var differ []string
	if issuer != "" && claims.Issuer != issuer {
		differ = append(differ, fmt.Sprintf("iss is %s, the credential has %s", text.Printable(claims.Issuer), text.Printable(issuer)))
	}
	if claims.Subject != subject {
		differ = append(differ, fmt.Sprintf("sub is %s, the credential has %s", text.Printable(claims.Subject), subject))
	}
	if !slices.Contains(audiences, audience) {
		differ = append(differ, fmt.Sprintf("aud is %s, the credential has %s", printableList(audiences), text.Printable(audience)))
	}
	if len(differ) > 0 {
		return claims.Issuer, errors.New(strings.Join(differ, "; "))
	}
	return claims.Issuer, nil
}

// vaultResource asks a vault what tokens it wants.
func (c *Connection) vaultResource(ctx context.Context, uri string) (string, error) {
	p := c.Cloud.pipeline(nil, "")
	req, err := runtime.NewRequest(ctx, http.MethodGet, uri+"secrets?api-version="+versionSecrets)
	if err != nil {
		return "", err
	}
	resp, err := p.Do(req)
	if err != nil {
		return "", fmt.Errorf("%s does not answer: %w", req.Raw().URL.Host, err)
	}
	defer resp.Body.Close()
	_, after, ok := strings.Cut(resp.Header.Get("WWW-Authenticate"), `resource="`)
	resource, _, closed := strings.Cut(after, `"`)
	if !ok || !closed || !strings.HasPrefix(resource, "https://") {
		return "", fmt.Errorf("%s answers %d without saying what tokens it wants", req.Raw().URL.Host, resp.StatusCode)
	}
	// As the SDK does: who answers for a vault must not choose for what else it
	// is sent a token.
	if u, err := url.Parse(resource); err != nil || !strings.HasSuffix(req.Raw().URL.Host, "."+u.Host) {
		return "", fmt.Errorf("%s wants tokens for %s, to which it does not belong", req.Raw().URL.Host, text.Printable(resource))
	}
	return resource, nil
}

// exchange has a service account's token exchanged for an access token.
func (c *Connection) exchange(ctx context.Context, id *Identity, assertion, resource string) (string, error) {
	form := url.Values{
		"grant_type": {"client_credentials"}, "client_id": {id.ClientID}, "scope": {resource + "/.default"},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "client_assertion": {assertion},
	}
	var out struct {
		AccessToken string `json:"access_token"`
	}
	target := c.Cloud.Login + "/" + url.PathEscape(id.TenantID) + "/oauth2/v2.0/token"
	err := request(ctx, c.Cloud.pipeline(nil, ""), http.MethodPost, target, &out, func(req *policy.Request) error {
		return req.SetBody(streaming.NopCloser(bytes.NewReader([]byte(form.Encode()))), "application/x-www-form-urlencoded")
	})
	return out.AccessToken, err
}

// tryout is one question to the vault that changes nothing.
type tryout struct{ what, path string }

// tryouts are the questions for what was asked for. Getting is tried with a
// name that nothing has: a vault decides first whether it may be asked.
func tryouts(r *Request) []tryout {
	want, err := r.Want.Normal()
	if err != nil {
		return nil
	}
	var out []tryout
	for i, list := range want.kinds() {
		name := "podkey-check-" + strings.ToLower(rand.Text()[:10])
		if i == 0 && r.CheckSecret != "" {
			name = url.PathEscape(r.CheckSecret)
		}
		if slices.Contains(*list, "get") {
			out = append(out, tryout{kindNames[i] + " get", kindNames[i] + "/" + name + "?api-version=" + versionSecrets})
		}
		if slices.Contains(*list, "list") {
			out = append(out, tryout{kindNames[i] + " list", kindNames[i] + "?maxresults=1&api-version=" + versionSecrets})
		}
	}
	return out
}

// ask asks the vault. What it answers is not kept: it may be a secret.
func (c *Connection) ask(ctx context.Context, target, access string) (string, error) {
	err := request(ctx, c.Cloud.pipeline(nil, ""), http.MethodGet, target, nil, func(req *policy.Request) error {
		req.Raw().Header.Set("Authorization", "Bearer "+access)
		return nil
	})
	if isRefusal(err, "SecretNotFound", "KeyNotFound", "CertificateNotFound") && !strings.Contains(target, "/podkey-check-") {
		return "", err
	}
	if isRefusal(err, "SecretNotFound", "KeyNotFound", "CertificateNotFound") {
		return "allowed", nil
	}
	if err != nil {
		return "", err
	}
	return "read", nil
}
