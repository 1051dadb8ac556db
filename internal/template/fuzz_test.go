package template

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"
)

// FuzzDecode: whatever is accepted is the same after a round trip through
// strict JSON, strict JSON is accepted if its names differ, and a refusal has
// a place and no value.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{`{"a": [1, -2.5e3, true, null, "\u00e9"], b: {'c': 'd',},}`, "// x\n{}", `"a` + "\n" + `b"`, `[[[]]]`, `{"a":1,"a":2}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		v, err := Decode(in)
		if err != nil {
			if e, ok := errors.AsType[*Error](err); !ok || e.Line < 1 || e.Column < 1 || v != nil {
				t.Fatalf("%v %v", v, err)
			}
			return
		}
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Decode(text)
		if err != nil || !reflect.DeepEqual(v, again) {
			t.Fatalf("%s\n%v\n%v %v", text, v, again, err)
		}
	})
}

// FuzzExpression: an expression is refused with an error, or has a value that
// is JSON; nothing panics or runs on. A text in quotes means itself.
func FuzzExpression(f *testing.F) {
	for _, s := range []string{
		`concat('a', string(1))`, `map(range(0, 3), lambda('x', add(lambdaVariables('x'), 1)))`, `format('{0,-3:D4}{{', 5)`, `parameters('obj').b.c[0]`,
		`if(true(), resourceGroup().id, reference('x'))`, `dateTimeAdd('2020-01-01', 'P1Y2M3DT4H', 'yyyy-MM-dd tt')`, `sort(createArray(2, 1), lambda('a', 'b', less(lambdaVariables('a'), lambdaVariables('b'))))`,
		`split('a,b', createArray(','))`, `json('{"a":[1]}').a[0]`, `union(createObject('a', 1), parameters('obj'))`, `'it''s'`, `my.hail('x')`, `padLeft('a', 10, 'é')`, `substring('äöü', 1, 1)`,
		`toObject(parameters('list'), lambda('e', lambdaVariables('e')))`, `uri('https://a/', '../b')`, `dataUriToString('data:,a%20b')`, `sys.concat('a')`, `parameters('obj').?x[?'y']`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		v, err := evaluate("[" + in + "]")
		if err == nil {
			if _, err := json.Marshal(v); err != nil {
				t.Fatalf("%q: %v", in, err)
			}
		} else if _, ok := errors.AsType[*Error](err); !ok {
			t.Fatalf("%q: %T %v", in, err, err)
		}
		got, err := evaluate(Escape(in))
		if isExpression(Escape(in)) || err != nil || got != jsonText(in) {
			t.Fatalf("%q stands for %q, %v", in, got, err)
		}
	})
}

// jsonText is a text as it comes through JSON: valid UTF-8.
func jsonText(s string) string {
	b, _ := json.Marshal(s)
	var out string
	_ = json.Unmarshal(b, &out)
	return out
}

// FuzzTemplate: a template is refused with an error, or comes to an end, with
// every resource behind those that it depends on.
func FuzzTemplate(f *testing.F) {
	for _, s := range []string{
		doc(`"resources": [{"type": "a/b", "apiVersion": "1", "name": "[format('n{0}', copyIndex())]", "copy": {"name": "c", "count": 2}, "dependsOn": ["x"]}, {"type": "a/b", "apiVersion": "1", "name": "x"}]`),
		symbolic(`"resources": {"a": {"existing": true, "type": "a/b", "apiVersion": "1", "name": "x"}, "b": {"type": "a/b/c", "apiVersion": "1", "name": "x/y", "properties": {"p": "[reference('a').q]"}}}, "outputs": {"o": {"type": "array", "copy": {"count": 2, "input": "[copyIndex()]"}}}`),
		doc(`"parameters": {"p": {"type": "securestring", "defaultValue": "[newGuid()]"}}, "variables": {"copy": [{"name": "v", "count": 2, "input": "[parameters('p')]"}]}, "resources": [{"type": "Microsoft.Resources/deployments", "apiVersion": "1", "name": "n", "properties": {"template": ` + doc(`"resources": []`) + `}}]`),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := bind(text, nil)
		if err != nil {
			if _, ok := errors.AsType[*Error](err); !ok {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		done := map[*Resource]bool{}
		for _, r := range d.Resources() {
			for _, before := range r.DependsOn() {
				if !done[before] {
					t.Fatalf("%s comes before %s", r.ID, before.ID)
				}
			}
			done[r] = true
			if _, _, err := d.Preview(r); err != nil {
				if _, ok := errors.AsType[*Error](err); !ok {
					t.Fatalf("%T %v", err, err)
				}
			}
		}
		_, _ = d.Outputs(world{})
	})
}
