package main

import (
	"errors"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

func TestWords(t *testing.T) {
	for line, want := range map[string][]string{
		`group create -n a`:                     {"group", "create", "-n", "a"},
		"a \\\n  --b":                           {"a", "--b"},
		`--body '{"a":"b c"}' ""`:               {"--body", `{"a":"b c"}`, ""},
		`x:"a b":y`:                             {"x:a b:y"},
		`--query "[?name=='x'].id | [0]" -otsv`: {"--query", "[?name=='x'].id | [0]", "-otsv"},
	} {
		got, err := words(line)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("words(%q) = %q, %v; want %q", line, got, err, want)
		}
	}
	for _, line := range []string{`a | b`, `a "b`, "a `b`", `a > b`, `a; b`, `a \b`} {
		if got, err := words(line); err == nil {
			t.Errorf("words(%q) = %q, want an error", line, got)
		}
	}
}

// Each command can be split, and one that must fail says in which words: a
// crash of az would do otherwise.
func TestRows(t *testing.T) {
	seen := map[string]bool{}
	for _, g := range allGroups() {
		if seen[g.name] {
			t.Errorf("two groups are named %s", g.name)
		}
		seen[g.name] = true
		if len(g.rows) == 0 {
			t.Errorf("%s has no row", g.name)
		}
		for i := range g.rows {
			r := &g.rows[i]
			kinds := 0
			for _, is := range []bool{r.az != "", r.sh != "", r.podkey != "", r.do != nil} {
				if is {
					kinds++
				}
			}
			if kinds != 1 {
				t.Errorf("%s: %s is %d kinds of row, not one", g.name, r.title(), kinds)
			}
			for _, line := range []string{r.az, r.podkey} {
				if _, err := words(line); err != nil {
					t.Errorf("%s: %v", g.name, err)
				}
			}
			if r.exit != 0 && (r.err == "" || regexp.MustCompile(r.err).MatchString("x: y")) {
				t.Errorf("%s: %s must fail, in any way: say how", g.name, r.title())
			}
			for _, c := range r.cannot {
				if c.why == "" || c.err == "" {
					t.Errorf("%s: %s: a refusal without a reason or a text", g.name, r.title())
				}
			}
		}
	}
}

func TestChecks(t *testing.T) {
	o := output{
		text:   `{"a": {"b": [{"n": "x"}, {"n": "y"}]}, "k": 7, "e": null}`,
		expand: func(s string) (string, error) { return expand(s, map[string]string{"v": "x"}) },
	}
	for name, c := range map[string]check{
		"is": is("a.b.0.n", "${v}"), "number": is("k", 7), "null": is("e", nil), "count": count("a.b", 2),
		"has": has("a.b.*.n", "y"), "lacks": lacks("a.b.*.n", "z"), "like": like("a.b.1.n", "^y$"), "fold": isFold("a.b.0.n", "X"), "omits": omits("zzz"),
	} {
		if err := c(o); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, c := range map[string]check{
		"is": is("a.b.0.n", "y"), "missing": is("a.c", nil), "count": count("a.b", 1), "count of no list": count("k", 1),
		"has": has("a.b.*.n", "z"), "lacks": lacks("a.b.*.n", "x"), "like": like("k", "^8"), "index": is("a.b.2.n", "x"),
		"omits": omits("${v}"), "unknown value": is("k", "${w}"), "says": says("x"), "nothing": nothing(), "contains": contains("zzz"),
	} {
		if err := c(o); err == nil {
			t.Errorf("%s holds", name)
		}
	}
	if err := is("k", "${w}")(o); !errors.Is(err, errMissing) {
		t.Errorf("a value that nobody gave: %v", err)
	}
}

func TestVersions(t *testing.T) {
	c := cannot{since: "2.61.0"}
	for v, want := range map[string]bool{"2.60.0": false, "2.61.0": true, "2.100.1": true, "2.9": false, "3": true} {
		if got := c.appliesTo(v); got != want {
			t.Errorf("since 2.61.0 applies to %s: %v", v, got)
		}
	}
	if c := (cannot{before: "2.61.0"}); !c.appliesTo("2.60.9") || c.appliesTo("2.61") {
		t.Error("before")
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	r := redactor{map[string]string{"operatorSecret": "s3cr3t-value", "tenant": "not-secret", "x": "y"}}
	got := r.clean("a s3cr3t-value not-secret eyJhbGciOiJSUzI1NiJ9.eyJhIjoxfQ.sig-x end")
	if want := "a ${operatorSecret} not-secret (a token) end"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFindForm(t *testing.T) {
	page := `<!doctype html><form action="/search"><input name="q"></form>
<form method="post" action="/login?x=1"><label>User <input type="email" name="user"></label><input type=password name=pw>
<input type="hidden" name="csrf" value="t"><button name="do" value="cancel">Cancel</button><button name="do" value="go">Sign in</button></form>`
	f, err := findForm([]byte(page))
	if err != nil || f == nil {
		t.Fatal(f, err)
	}
	if f.action != "/login?x=1" || len(f.inputs) != 3 || f.button().value != "go" {
		t.Errorf("got %+v", f)
	}
	if f, _ := findForm([]byte(`<p>You may close this page.</p>`)); f != nil {
		t.Errorf("a form where there is none: %+v", f)
	}
	if got := visible([]byte(`<style>b{}</style><h1>Signed  in</h1><p>Close <b>me</b></p>`)); strings.Join(strings.Fields(got), " ") != "Signed in Close me" {
		t.Errorf("visible text is %q", got)
	}
}
