package connect

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The way to Azure, with Azure's names and azidentity's sign-in, at which a
// Podkey server answers.
func TestConnectByAzureNames(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	o := AzureOptions{Environment: "azurepubliccloud", Subscription: r.SubscriptionID, Method: AuthSecret, ClientID: r.ClientID, ClientSecret: r.ClientSecret, Transport: r.Client}
	cloud, err := OpenAzure(t.Context(), o)
	ok(t, err)
	want(t, "tenant", cloud.TenantID, r.TenantID)
	r.cloud = cloud
	p, outcomes := r.connect(shopRequest())
	want(t, "identity", outcomes[1], "identity made")
	want(t, "vault", p.Vault.URI, "https://connect-kv.vault.azure.net/")
	found, err := r.connection(shopRequest()).Prove(t.Context(), p, true)
	ok(t, err)
	if last := found[len(found)-1]; !last.Works || last.What != "secrets list" {
		t.Errorf("%+v", found)
	}
	_, outcomes = r.connect(shopRequest())
	want(t, "again", outcomes, allExist)
	if script := r.plan(shopRequest()).Commands(); strings.Contains(script, "podkey exec") {
		t.Error(script)
	}

	for text, change := range map[string]func(*AzureOptions){
		"--client-id is required":            func(o *AzureOptions) { o.ClientID = "" },
		"--client-secret is required":        func(o *AzureOptions) { o.ClientSecret = "" },
		"--certificate-path is required":     func(o *AzureOptions) { o.Method = AuthCertificate },
		`unknown --auth-method "guess"`:      func(o *AzureOptions) { o.Method = "guess" },
		`unknown Azure environment "Moon"`:   func(o *AzureOptions) { o.Environment = "Moon" },
		`the subscription "x" is not a GUID`: func(o *AzureOptions) { o.Subscription = "x" },
	} {
		bad := o
		change(&bad)
		if _, err := OpenAzure(t.Context(), bad); err == nil || !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), r.ClientSecret) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestSubscriptionOfProfile(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("AZURE_CONFIG_DIR", dir)
	if _, err := profileSubscription(); err == nil || !strings.HasPrefix(err.Error(), "--subscription-id is required") {
		t.Error(err)
	}
	ok(t, os.WriteFile(filepath.Join(dir, "azureProfile.json"), []byte("\xef\xbb\xbf"+`{"subscriptions":[{"id":"a"},{"id":"b","isDefault":true}]}`), 0o600))
	got, err := profileSubscription()
	ok(t, err)
	want(t, "subscription", got, "b")
}

// Azure needs time to see what was just made; a Podkey server does not.
func TestWaitsForAzureAlone(t *testing.T) {
	t.Parallel()
	late := &Refusal{Status: 400, Code: "PrincipalNotFound"}
	for _, tt := range []struct {
		podkey       bool
		err          error
		asked, slept int
	}{{false, late, 3, 2}, {true, late, 1, 0}, {false, errors.New("other"), 1, 0}, {false, nil, 1, 0}} {
		asked, slept := 0, time.Duration(0)
		c := &Connection{Cloud: &Cloud{Podkey: tt.podkey}, Wait: func(_ context.Context, d time.Duration) error { slept += d; return nil }}
		_ = c.persist(t.Context(), func() error {
			if asked++; asked == 3 {
				return nil
			}
			return tt.err
		})
		want(t, fmt.Sprint(tt.podkey, tt.err), fmt.Sprint(asked, slept), fmt.Sprint(tt.asked, time.Duration(tt.slept)*tryAgain))
	}
	asked := 0
	c := &Connection{Cloud: &Cloud{}, Wait: func(context.Context, time.Duration) error { return nil }}
	if err := c.persist(t.Context(), func() error { asked++; return late }); err == nil || asked != tries {
		t.Errorf("%v after %d", err, asked)
	}
}

// What the commands say to kubectl is what connect itself would say, whatever
// was in the annotations before.
func TestCommandsCarryAnnotationsUnharmed(t *testing.T) {
	t.Parallel()
	const client = "11111111-2222-4333-8444-555555555555"
	run := func(t rapid.TB, lines []string) string {
		script := "kubectl() { for a; do printf '%s\\n' \"$a\"; done; case $1 in create) cat;; esac; }\n" + string(varClientID) + "=" + client + "\n" + strings.Join(lines, "\n") + "\n"
		out, err := exec.Command("sh", "-eu", "-c", script).Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	conn := &Connection{Cluster: &Cluster{}}
	rapid.Check(t, func(t *rapid.T) {
		old := rapid.SampledFrom([]string{"$(touch /tmp/x)", "`id`", `a"b\c`, "EOF", "it's", "$HOME", "a\nEOF\nb", ""}).Draw(t, "old")
		for _, id := range []*Identity{{}, {ClientID: client}} {
			a := &annotateAccount{ns: "shop", name: "web", id: id, keys: []string{AnnotationClientID}, mark: accountMark{Had: map[string]*string{AnnotationClientID: &old}, Set: map[string]string{}}}
			said := run(t, a.commands(conn))
			for k, v := range a.values(client) {
				if !strings.Contains(said, "\n"+k+"="+v+"\n") {
					t.Fatalf("%q is not in\n%s", v, said)
				}
			}
			m := &makeAccount{ns: "shop", name: "web", id: &Identity{ClientID: id.ClientID, TenantID: old}, tenant: true}
			said = run(t, m.commands(conn))
			full := *m
			full.id = &Identity{ClientID: client, TenantID: old}
			if document := full.commands(conn)[1]; !strings.HasSuffix(said, document+"\n") {
				t.Fatalf("%s\nis not the end of\n%s", document, said)
			}
		}
	})
}
