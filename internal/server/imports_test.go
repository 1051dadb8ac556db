package server

import (
	"flag"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const module = "github.com/podkey/podkey/"

// arrows is the direction of imports: a package may import those on its right
// and nothing else of ours. docs/architecture.md draws it.
var arrows = map[string]string{
	"cmd/podkey":                   "internal/cli",
	"internal/cli":                 "internal/server internal/client internal/bootstrap internal/demo internal/proxy internal/workload internal/connect internal/install internal/webhook internal/admission internal/sidecar internal/intercept internal/imds internal/kubeconfig internal/pki internal/text deploy/chart",
	"internal/webhook":             "internal/pki internal/text",
	"internal/admission":           "internal/pki internal/text",
	"internal/sidecar":             "internal/imds internal/text",
	"internal/intercept":           "",
	"internal/install":             "deploy/chart internal/text",
	"internal/install/installtest": "",
	"internal/connect":             "internal/client internal/text",
	"deploy/chart":                 "",
	"tools/image":                  "internal/image",
	"internal/image":               "",
	"internal/demo":                "internal/server internal/client",
	"podkeytest":                   "internal/server internal/client internal/bootstrap",
	"internal/bootstrap":           "internal/client",
	"internal/server":              "internal/server/deploy internal/server/graph internal/server/sts internal/server/session internal/server/aks internal/server/issuer internal/server/keyvault internal/server/arm internal/server/rbac internal/server/directory internal/client internal/install internal/token internal/store internal/pki internal/audit internal/web internal/fault deploy/chart",
	"internal/server/graph":        "internal/odata internal/server/rbac internal/server/directory internal/web internal/audit internal/fault internal/text",
	"internal/server/deploy":       "internal/server/arm internal/template internal/store internal/web internal/fault",
	"internal/template":            "internal/text",
	"internal/server/arm":          "internal/odata internal/server/keyvault internal/server/rbac internal/server/directory internal/store internal/web internal/audit internal/fault internal/text",
	"internal/server/keyvault":     "internal/server/rbac internal/pki internal/store internal/web internal/audit internal/fault internal/text",
	"internal/server/sts":          "internal/server/session internal/server/directory internal/token internal/web internal/audit internal/fault internal/text",
	"internal/server/session":      "internal/store",
	"internal/server/aks":          "internal/server/arm internal/server/rbac internal/install internal/kubeconfig internal/store internal/web internal/fault internal/text deploy/chart",
	"internal/server/issuer":       "internal/token internal/web internal/audit internal/fault",
	"internal/server/rbac":         "internal/server/directory internal/store internal/audit internal/fault",
	"internal/server/directory":    "internal/store internal/fault internal/text",
	"internal/token":               "internal/store",
	"internal/store":               "internal/fault",
	"internal/store/storetest":     "internal/store",
	"internal/web":                 "internal/audit internal/fault",
	"internal/web/wiretest":        "",
	"internal/client":              "internal/fault",
	"internal/workload":            "internal/pki",
	"internal/proxy":               "",
	"internal/kubeconfig":          "internal/text",
	"internal/imds":                "",
	"internal/pki":                 "",
	"internal/audit":               "internal/text",
	"internal/odata":               "internal/text",
	"internal/fault":               "",
	"internal/text":                "",
}

func goList(t *testing.T, args ...string) []string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

func TestImportsPointDown(t *testing.T) {
	seen := map[string]bool{}
	for _, line := range goList(t, "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...") {
		fields := strings.Fields(line)
		pkg := strings.TrimPrefix(fields[0], module)
		seen[pkg] = true
		allowed, known := arrows[pkg]
		if !known {
			t.Errorf("package %s is not in the list of arrows: add it with what it may import", pkg)
			continue
		}
		for _, imp := range fields[1:] {
			if imp, ours := strings.CutPrefix(imp, module); ours && !slices.Contains(strings.Fields(allowed), imp) {
				t.Errorf("%s must not import %s", pkg, imp)
			}
		}
	}
	for pkg := range arrows {
		if !seen[pkg] {
			t.Errorf("the list of arrows names %s, which does not exist", pkg)
		}
	}
}

func TestEveryPackageSaysWhatItOwns(t *testing.T) {
	for _, line := range goList(t, "-f", `{{.ImportPath}}|{{.Doc}}`, "./...") {
		if pkg, doc, _ := strings.Cut(line, "|"); doc == "" {
			t.Errorf("%s has no package comment", pkg)
		}
	}
}

var update = flag.Bool("update", false, "rewrite testdata/modules.txt")

// TestLinkedModules counts what is linked into the program: a module that
// appears or goes is a decision, and its commit says why.
func TestLinkedModules(t *testing.T) {
	var mods []string
	for _, line := range goList(t, "-deps", "-f", `{{with .Module}}{{.Path}}{{end}}`, "./cmd/podkey") {
		if line != "" && line+"/" != module {
			mods = append(mods, line)
		}
	}
	slices.Sort(mods)
	got := strings.Join(slices.Compact(mods), "\n") + "\n"
	const golden = "testdata/modules.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("the linked modules changed; if that is meant, run: go test ./internal/server -run LinkedModules -update\n%s", diff)
	}
}
