package chart

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"reflect"
	"strconv"
	"strings"
	"text/template"

	"sigs.k8s.io/yaml"
)

// requiredError is the message of a value that must be given, or must not be
// with another.
type requiredError struct{ message string }

func (e *requiredError) Error() string { return e.message }

// parse parses the templates, with the functions of Helm's that they use,
// which do what Helm's do.
func parse() (*template.Template, error) {
	t := template.New("").Option("missingkey=zero")
	funcs := template.FuncMap{
		"toYaml": func(v any) (string, error) {
			b, err := yaml.Marshal(v)
			return strings.TrimSuffix(string(b), "\n"), err
		},
		"toJson": func(v any) (string, error) {
			b, err := json.Marshal(v)
			return string(b), err
		},
		"nindent": func(n int, s string) string {
			pad := strings.Repeat(" ", n)
			return "\n" + pad + strings.ReplaceAll(s, "\n", "\n"+pad)
		},
		"quote": func(v any) string { return strconv.Quote(fmt.Sprint(v)) },
		"default": func(def, v any) any {
			if v == nil || reflect.ValueOf(v).IsZero() {
				return def
			}
			return v
		},
		"fail": func(message string) (string, error) { return "", &requiredError{message} },
		"required": func(message string, v any) (any, error) {
			if v == nil || v == "" {
				return nil, &requiredError{message}
			}
			return v, nil
		},
		"sha256sum": func(s string) string {
			sum := sha256.Sum256([]byte(s))
			return hex.EncodeToString(sum[:])
		},
		"list":   func(v ...any) []any { return v },
		"append": func(list []any, v any) []any { return append(append([]any{}, list...), v) },
		"uniq": func(list []any) []any {
			var out []any
			seen := map[any]bool{}
			for _, v := range list {
				if !seen[v] {
					seen[v] = true
					out = append(out, v)
				}
			}
			return out
		},
		"dict": func(pairs ...any) (map[string]any, error) {
			if len(pairs)%2 != 0 {
				return nil, errors.New("dict: a name without a value")
			}
			m := map[string]any{}
			for i := 0; i < len(pairs); i += 2 {
				m[fmt.Sprint(pairs[i])] = pairs[i+1]
			}
			return m, nil
		},
		"merge": func(into, from map[string]any) map[string]any {
			for k, v := range from {
				if _, there := into[k]; !there {
					into[k] = v
				}
			}
			return into
		},
		"set": func(m map[string]any, k string, v any) map[string]any {
			m[k] = v
			return maps.Clone(m)
		},
		"int": func(v any) int {
			n, _ := strconv.Atoi(fmt.Sprint(v))
			return n
		},
		"add": func(a ...int) (sum int) {
			for _, n := range a {
				sum += n
			}
			return sum
		},
	}
	funcs["include"] = func(name string, data any) (string, error) {
		var b strings.Builder
		err := t.ExecuteTemplate(&b, name, data)
		return b.String(), err
	}
	t.Funcs(funcs)
	for _, glob := range []string{"podkey/templates/*.tpl", "podkey/templates/*.yaml"} {
		if err := parseFiles(t, glob); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func parseFiles(t *template.Template, glob string) error {
	names, err := fs.Glob(files, glob)
	for _, name := range names {
		b, err := files.ReadFile(name)
		if err != nil {
			return err
		}
		if _, err := t.New(name).Parse(string(b)); err != nil {
			return fmt.Errorf("parse the chart: %w", err)
		}
	}
	return err
}
