package arm

import (
	"strings"
	"testing"
)

// expression is a credential with an expression, and with a subject if that
// is not empty.
func expression(value string, version int, subject string) map[string]any {
	p := map[string]any{
		"issuer": "https://issuer.example/", "audiences": []string{"api://AzureADTokenExchange"},
		"claimsMatchingExpression": map[string]any{"value": value, "languageVersion": version},
	}
	if subject != "" {
		p["subject"] = subject
	}
	return map[string]any{"properties": p}
}

// TestFederatedExpression: az identity federated-credential create with
// --claims-matching-expression-value, in place of a subject.
func TestFederatedExpression(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.makeGroup("g")
	r.makeIdentity("g", "idn")
	path := identityPath("g", "idn") + "/federatedIdentityCredentials/many"
	const value = "claims['sub'] matches 'system:serviceaccount:shop:*'"
	r.must(201, "owner", "PUT", path, expression(value, 1, ""))
	a := r.must(200, "owner", "GET", path, nil)
	if a.at("properties.claimsMatchingExpression.value") != value || a.at("properties.claimsMatchingExpression.languageVersion") != 1.0 || strings.Contains(string(a.body), "subject") {
		t.Errorf("%s", a.body)
	}
	// Back to a subject: the expression is gone.
	r.must(200, "owner", "PUT", path, credential("system:serviceaccount:shop:web"))
	if a := r.must(200, "owner", "GET", path, nil); strings.Contains(string(a.body), "claims") || a.at("properties.subject") != "system:serviceaccount:shop:web" {
		t.Errorf("%s", a.body)
	}
}
