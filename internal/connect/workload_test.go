package connect

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// workload runs phases and returns their outcomes.
func (r *rig) workload(w *Workload, phases []WorkloadPhase) ([]string, error) {
	r.t.Helper()
	if err := w.Resolve(r.t.Context()); err != nil {
		return nil, err
	}
	var out []string
	err := w.RunWorkload(r.t.Context(), phases, func(phase, outcome, _ string, _ time.Duration) { out = append(out, phase+" "+outcome) })
	return out, err
}

func (r *rig) newWorkload(req Request) *Workload {
	return &Workload{Connection: *r.connection(req), Expiration: 2 * time.Hour, Version: "test",
		Scope: "/subscriptions/" + r.SubscriptionID, Role: "Key Vault Secrets User"}
}

func TestWorkloadOfApplication(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	req := Request{Namespace: "default", Account: "web"}
	w := r.newWorkload(req)
	got, err := r.workload(w, w.Create())
	ok(t, err)
	want(t, "create", got, []string{"aad-application made", "service-account made", "federated-identity made", "role-assignment made"})
	app, err := r.cloud.application(t.Context(), ApplicationName("default", "web", r.Issuer))
	ok(t, err)
	if _, tagged := app.Tags["podkey version: test"]; !tagged {
		t.Errorf("tags %v", app.Tags)
	}
	want(t, "annotations", fmt.Sprint(r.kube.annotations("serviceaccounts/default/web")), fmt.Sprint(map[string]string{
		AnnotationClientID: app.ClientID, AnnotationTenantID: r.TenantID, AnnotationExpiration: "7200"}))
	creds, err := r.cloud.credentials(t.Context(), app)
	ok(t, err)
	want(t, "credential", fmt.Sprint(creds), fmt.Sprint([]Credential{{
		Name:   "azwi-" + strings.TrimRight(FederatedName("default", "web", r.Issuer), "="),
		Issuer: r.Issuer, Subject: "system:serviceaccount:default:web", Audiences: []string{Audience}, Description: "Federated Service Account for default/web"}}))

	sent, wrote := len(r.sent.written()), len(r.kube.written())
	w = r.newWorkload(req)
	got, err = r.workload(w, w.Create())
	ok(t, err)
	want(t, "again", got, []string{"aad-application exists", "service-account exists", "federated-identity exists", "role-assignment exists"})
	want(t, "written", fmt.Sprint(len(r.sent.written()), len(r.kube.written())), fmt.Sprint(sent, wrote))

	w = r.newWorkload(req)
	got, err = r.workload(w, WithoutImplied(w.Delete()))
	ok(t, err)
	want(t, "delete", got, []string{"role-assignment removed", "service-account removed", "aad-application removed"})
	w = r.newWorkload(req)
	got, err = r.workload(w, WithoutImplied(w.Delete()))
	ok(t, err)
	want(t, "delete again", got, []string{"role-assignment known", "service-account known", "aad-application known"})
}

func TestWorkloadOfManagedIdentity(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	r.kube.put("serviceaccounts/default/web", map[string]any{"metadata": map[string]any{"annotations": map[string]any{"team": "shop"}}})
	req := Request{Namespace: "default", Account: "web", Identity: "web", Group: "shop"}
	w := r.newWorkload(req)
	got, err := r.workload(w, w.Create())
	ok(t, err)
	want(t, "create", got, []string{"aad-application made", "service-account changed", "federated-identity made", "role-assignment made"})
	as := r.kube.annotations("serviceaccounts/default/web")
	want(t, "merged", fmt.Sprint(as["team"], " ", as[AnnotationClientID]), "shop "+r.Identity("web").ClientID)
	w = r.newWorkload(req)
	got, err = r.workload(w, w.Delete())
	ok(t, err)
	want(t, "delete", got, []string{"role-assignment removed", "federated-identity removed", "service-account removed", "aad-application removed"})
}

func TestWorkloadDeletesWhatIsGone(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	w := r.newWorkload(Request{Namespace: "default", Account: "web"})
	w.AssignmentID = r.cloud.groupPath("nowhere") + "/providers/Microsoft.Authorization/roleAssignments/11111111-2222-4333-8444-555555555555"
	w.ApplicationObjectID = "11111111-2222-4333-8444-555555555555"
	got, err := r.workload(w, w.Delete())
	ok(t, err)
	want(t, "delete", got, []string{"role-assignment known", "federated-identity known", "service-account known", "aad-application known"})
}

func TestWorkloadChecks(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	for range 2 {
		ok(t, r.cloud.directory(t.Context(), "POST", "/applications", map[string]any{"displayName": "twins"}, nil))
	}
	sent := len(r.sent.written())
	for text, change := range map[string]func(*Workload){
		"failed to run pre-run for phase service-account: --service-account-name is required":                                                         func(w *Workload) { w.Request.Account, w.Request.Application = "", "app" },
		"failed to run pre-run for phase service-account: --service-account-token-expiration must be greater than or equal to 1h0m0s":                 func(w *Workload) { w.Expiration = time.Minute },
		"failed to run pre-run for phase service-account: --service-account-token-expiration must be less than or equal to 24h0m0s":                   func(w *Workload) { w.Expiration = 25 * time.Hour },
		"failed to run pre-run for phase role-assignment: --azure-scope is required":                                                                  func(w *Workload) { w.Scope = "" },
		"failed to run pre-run for phase role-assignment: --azure-role is required":                                                                   func(w *Workload) { w.Role = "" },
		"failed to run phase aad-application: identity: 2 applications have the display name twins":                                                   func(w *Workload) { w.Request.Application = "twins" },
		"issuer: the issuer https://wrong.example is not the API server's":                                                                            func(w *Workload) { w.Request.Issuer = "https://wrong.example" },
		"issuer: the issuer " + strings.TrimSuffix(r.Issuer, "/") + " is not the API server's, " + r.Issuer + ": they differ by the slash at the end": func(w *Workload) { w.Request.Issuer = strings.TrimSuffix(r.Issuer, "/") },
	} {
		w := r.newWorkload(Request{Namespace: "default", Account: "web"})
		change(w)
		if _, err := r.workload(w, w.Create()); err == nil || !strings.HasPrefix(err.Error(), text) {
			t.Errorf("%s\ngot %v", text, err)
		}
	}
	w := r.newWorkload(Request{Namespace: "default", Account: "web"})
	w.Scope, w.Role = "", ""
	if _, err := r.workload(w, w.Delete()); err == nil || err.Error() != "failed to run pre-run for phase role-assignment: --role-assignment-id is required" {
		t.Error(err)
	}
	w.Cluster, w.Request.Issuer = nil, ""
	if _, err := r.workload(w, w.Create()[2:3]); err == nil || err.Error() != "failed to run pre-run for phase federated-identity: --service-account-issuer-url is required" {
		t.Error(err)
	}
	if _, err := WorkloadPhases(w.Create(), "", []string{"sa", "x"}); err == nil || err.Error() != "failed to compute skip phases: phase 'x' not found. Valid phases are: [aad-application service-account federated-identity role-assignment]" {
		t.Error(err)
	}
	left, err := WorkloadPhases(w.Create(), "", []string{"sa", "role-assignment"})
	ok(t, err)
	want(t, "left", len(left), 2)
	want(t, "written", len(r.sent.written()), sent)
}
