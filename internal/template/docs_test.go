package template

import (
	"os"
	"strings"
	"testing"
)

// TestDocumented: the page names every function that there is, and none that
// there is not.
func TestDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/templates.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(page), "| kind | functions |")
	table, _, end := strings.Cut(rest, "\n\n")
	if !ok || !end {
		t.Fatal("the page has no table of functions")
	}
	named := map[string]bool{}
	for i, part := range strings.Split(table, "`") {
		if i%2 == 1 {
			named[strings.ToLower(part)] = true
		}
	}
	for name, b := range builtins() {
		if b.refused == "" && !named[name] {
			t.Errorf("the page does not name %s", name)
		}
	}
	for name := range named {
		if b, ok := builtins()[name]; !ok || b.refused != "" {
			t.Errorf("the page names %s, which there is not", name)
		}
	}
}
