package connect

import (
	"strings"
	"testing"
)

// What becomes of a service account, and of what was given to its identity,
// from what was found alone: nothing goes that connect did not make.
func TestWhatDisconnectPlans(t *testing.T) {
	t.Parallel()
	const mine, other = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
	set := func(id string) string { return `"set":{"` + AnnotationClientID + `":"` + id + `"}` }
	annotated := func(id, mark string) *Account {
		a := &Account{Annotations: map[string]string{AnnotationClientID: id}}
		if mark != "" {
			a.Annotations[markAnnotation] = mark
		}
		return a
	}
	with := func(a *Account, key, value string) *Account {
		a.Annotations[key] = value
		return a
	}
	used := annotated(mine, `{"made":true,`+set(mine)+`}`)
	used.used = true
	for name, tc := range map[string]struct {
		account *Account
		builtIn bool
		skip    string
		outcome string
		says    string // in the detail or the notes
	}{
		"none":                      {nil, false, "", Known, "shop/web is not there"},
		"of the built-in cluster":   {nil, true, "", Known, "shop/web is of the built-in cluster"},
		"never connected":           {annotated(mine, ""), false, "", Kept, "connect did not change it"},
		"of another identity":       {annotated(other, `{"made":true,`+set(other)+`}`), false, "", Kept, "another identity, client id " + other},
		"made, and as it was made":  {annotated(mine, `{"made":true,`+set(mine)+`}`), false, "", Removed, "shop/web"},
		"made, used by others":      {used, false, "", Changed, "others have added to it"},
		"made, annotated by others": {with(annotated(mine, `{"made":true,`+set(mine)+`}`), "team", "shop"), false, "", Changed, "others have added to it"},
		"changed":                   {annotated(mine, `{`+set(mine)+`}`), false, "", Changed, "its annotations are as before"},
		"changed, and again since":  {annotated("by hand", `{`+set(mine)+`}`), false, "", Changed, AnnotationClientID + " was changed since, and stays"},
		"skipped":                   {annotated("by hand", `{"made":true,`+set(mine)+`}`), false, PhaseAccount, Skipped, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := &Connection{Request: Request{Namespace: "shop", Account: "web", Skip: map[string]bool{tc.skip: true}}}
			p, err := c.PlanDisconnect(&Disconnection{State: State{
				Account: tc.account, Objects: !tc.builtIn, Identity: &Identity{Name: "web", ClientID: mine, PrincipalID: other},
			}})
			if err != nil {
				t.Fatal(err)
			}
			st := p.Steps[0]
			said := st.Detail() + strings.Join(st.Notes, " ")
			if st.Phase != PhaseAccount || st.Outcome != tc.outcome || !strings.Contains(said, tc.says) || tc.says == "" && said != "" {
				t.Errorf("%s %s: %s", st.Phase, st.Outcome, said)
			}
			if acts := len(st.actions) > 0; acts != (tc.outcome == Removed || tc.outcome == Changed) {
				t.Errorf("%s with %d actions", st.Outcome, len(st.actions))
			}
		})
	}
}

// Without an identity that is named, the service account must tell it.
func TestDisconnectNeedsAnIdentity(t *testing.T) {
	t.Parallel()
	r := newRig(t, own)
	r.kube.put("namespaces/shop", map[string]any{})
	for name, account := range map[string]map[string]any{
		"none":     nil,
		"unmarked": {"metadata": map[string]any{"annotations": map[string]any{"team": "shop"}}},
	} {
		if account != nil {
			r.kube.put("serviceaccounts/shop/web", account)
		}
		_, err := r.connection(Request{Namespace: "shop", Account: "web"}).SurveyDisconnect(t.Context())
		if err == nil || !strings.Contains(err.Error(), "no service account shop/web tells which identity is meant") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// One that is in nobody's directory is no mistake: there is nothing of it
	// to undo. Nor is a text that can be none.
	for _, id := range []string{"33333333-3333-4333-8333-333333333333", "none of these"} {
		r.kube.put("serviceaccounts/shop/web", map[string]any{"metadata": map[string]any{"annotations": map[string]any{AnnotationClientID: id}}})
		d, err := r.connection(Request{Namespace: "shop", Account: "web"}).SurveyDisconnect(t.Context())
		if err != nil || d.Identity != nil {
			t.Errorf("%q: %v, %v", id, d, err)
		}
	}
}
