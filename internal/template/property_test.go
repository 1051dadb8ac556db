package template

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestOrderProperty: in any order of writing, by names or by references, a
// resource comes after those that it needs; with one arrow back, there is no
// order, and that is said.
func TestOrderProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 12).Draw(t, "n")
		needs := make([][]int, n)
		for i := 1; i < n; i++ {
			needs[i] = rapid.SliceOfNDistinct(rapid.IntRange(0, i-1), 0, min(i, 3), rapid.ID[int]).Draw(t, "needs")
		}
		var back int
		if len(needs[n-1]) > 0 && rapid.Bool().Draw(t, "cycle") {
			back = needs[n-1][0]
			needs[back] = append(needs[back], n-1)
		} else {
			back = -1
		}
		written := make([]string, 0, n)
		for _, i := range rapid.Permutation(seq(n)).Draw(t, "order") {
			var names, tags []string
			for _, j := range needs[i] {
				if rapid.Bool().Draw(t, "by reference") {
					tags = append(tags, fmt.Sprintf(`"t%d": "[reference('n%d', '2023-01-31').clientId]"`, j, j))
				} else {
					names = append(names, fmt.Sprintf(`"n%d"`, j))
				}
			}
			written = append(written, fmt.Sprintf(`{%s, "name": "n%d", "dependsOn": [%s], "tags": {%s}}`, identity, i, strings.Join(names, ", "), strings.Join(tags, ", ")))
		}
		d, err := bind(doc(`"resources": [`+strings.Join(written, ", ")+`]`), nil)
		if back >= 0 {
			if err == nil || !strings.Contains(err.Error(), "Circular") {
				t.Fatalf("%v", err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		at := map[string]int{}
		for i, r := range d.Resources() {
			at[r.Name] = i
		}
		for i := range needs {
			for _, j := range needs[i] {
				if at[fmt.Sprintf("n%d", j)] > at[fmt.Sprintf("n%d", i)] {
					t.Fatalf("n%d comes after n%d", j, i)
				}
			}
		}
	})
}

func seq(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

// TestSecretProperty: whatever the secret is, nothing that is shown of a
// deployment has it.
func TestSecretProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		secret := rapid.StringMatching(`[A-Za-z0-9\[\]'"\\ <>é%{}-]{4,60}`).Draw(t, "secret")
		use := rapid.SampledFrom([]string{
			`[parameters('s')]`, `[concat('a', parameters('s'), 'b')]`, `[variables('v')]`, `[string(createObject('k', parameters('s')))]`, `[first(createArray(parameters('s')))]`,
			`[join(split(parameters('s'), '-'), '-')]`, `[format('{0}', parameters('s'))]`, `[replace(parameters('s'), 'zzz', '')]`, `[if(true(), parameters('s'), '')]`,
			`[reduce(createArray(parameters('s')), '', lambda('a', 'b', concat(lambdaVariables('a'), lambdaVariables('b'))))]`, `[my.echo(parameters('s'))]`,
		}).Draw(t, "use")
		d, err := bind(doc(`"parameters": {"s": {"type": "securestring"}, "copy": {"type": "string", "defaultValue": `+quote(strings.ReplaceAll(use, "variables('v')", "parameters('s')"))+`}},
			"functions": [{"namespace": "my", "members": {"echo": {"parameters": [{"name": "x", "type": "string"}], "output": {"type": "string", "value": "[parameters('x')]"}}}}],
			"variables": {"v": "[parameters('s')]"}, "resources": [], "outputs": {"o": {"type": "string", "value": `+quote(use)+`}}`), map[string]any{"s": secret})
		if err != nil {
			if strings.Contains(err.Error(), secret) {
				t.Fatal(err)
			}
			return
		}
		out, err := d.Outputs(nil)
		if err != nil {
			if strings.Contains(err.Error(), secret) {
				t.Fatal(err)
			}
			return
		}
		if v := out["o"].Value; v != nil {
			t.Fatalf("%v", v)
		}
		for name, p := range d.Parameters() {
			if p.Value != nil {
				t.Fatalf("%s: %v", name, p.Value)
			}
		}
	})
}
