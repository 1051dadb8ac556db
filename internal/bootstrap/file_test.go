package bootstrap

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestDocumentedFileIsValid reads the declaration that docs/bootstrap.md
// shows.
func TestDocumentedFileIsValid(t *testing.T) {
	b, err := os.ReadFile("../../docs/bootstrap.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "```yaml\n")
	doc, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("docs/bootstrap.md has no YAML block")
	}
	f, err := Parse([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Identities) != 1 || len(f.Vaults) != 2 || len(f.Applications) != 1 || len(f.Tenants) != 1 || len(f.Vaults[0].Secrets) != 2 {
		t.Errorf("not all of it was read: %+v", f)
	}
}

func TestEveryProblemIsReported(t *testing.T) {
	_, err := Parse([]byte(`
resourceGroups: [{location: x}]
applications:
  - {name: a, tokenVersion: 3, secret: {value: x, env: VAR}, federatedCredentials: [{name: f, issuer: i}]}
  - {name: a}
identities:
  - {name: i, federatedCredentials: [{name: f, namespace: ns, serviceAccount: sa, audiences: [a, b]}]}
vaults:
  - {name: v, resourceGroup: g, access: [{identity: nobody, role: r}, {identity: i}, {role: r}], secrets: [{value: x}, {name: nn}]}
roleAssignments: [{application: nobody, role: r}, {principalId: p}]
tenants: [{id: x, subscriptionId: z}]
`))
	if err == nil {
		t.Fatal("accepted")
	}
	for _, part := range []string{
		"resourceGroups[0]: name", "applications[0]: tokenVersion", "applications[0].secret:", "applications[0].federatedCredentials[0]:",
		"applications[1]: name is missing or used twice", "identities[0]: resourceGroup", "identities[0].federatedCredentials[0]: exactly one audience",
		`vaults[0].access[0]: identity "nobody" is not declared`, "vaults[0].access[1]: give role", "vaults[0].access[2]: give one of",
		"vaults[0].secrets[0]: name", "vaults[0].secrets[1]: give exactly one", "roleAssignments[0]:", "roleAssignments[1]: role is missing",
		"tenants[0]: id must be a GUID", "tenants[0]: subscriptionId must be a GUID",
	} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("no word of %q in\n%v", part, err)
		}
	}
}

func TestUnknownMembersAreRefused(t *testing.T) {
	for _, doc := range []string{"identites: []", "vaults: [{name: v, resourceGroup: g, secrts: []}]", "vaults: [{name: v, resourceGroup: g, secrets: [{name: s, vaule: x}]}]"} {
		if _, err := Parse([]byte(doc)); err == nil {
			t.Errorf("accepted: %s", doc)
		}
	}
}

func TestValuesDoNotPrint(t *testing.T) {
	f, err := Parse([]byte("vaults: [{name: v, resourceGroup: g, secrets: [{name: s, value: canary}]}]"))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{fmt.Sprintf("%v", f.Vaults[0].Secrets[0]), fmt.Sprintf("%+v", *f), fmt.Sprint(f.Vaults)} {
		if strings.Contains(text, "canary") {
			t.Errorf("printed: %s", text)
		}
	}
}

// FuzzParse: whatever the text, an error or a declaration that is valid.
func FuzzParse(f *testing.F) {
	f.Add([]byte("identities: [{name: i, resourceGroup: g}]"))
	f.Add([]byte("{"))
	f.Add([]byte("tenants:\n  - {id: 1}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := Parse(b)
		if err == nil && got.Validate() != nil {
			t.Error("accepted, but not valid")
		}
	})
}
