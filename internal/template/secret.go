package template

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Secure parameters must not come to light through what is made from them.
// Two nets hold them: an expression that uses one is known by its text to do
// so (taints), and every text that such an expression yields is remembered,
// so that it is recognised wherever it turns up later (collect).

// shortest is the length from which a text is looked for inside others. A
// shorter one is recognised only as a whole: it would be found everywhere.
const shortest = 4

func (d *Deployment) hasSecrets() bool { return d.secure || len(d.secrets) > 0 }

// maxSecrets bounds the secure texts of a deployment: every answer is searched
// for each.
const maxSecrets = 256

// Secrets are the texts that must not be shown, the longest first: one may be
// a part of another.
func (d *Deployment) Secrets() []string {
	return slices.SortedFunc(maps.Keys(d.secrets), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b))
	})
}

func (d *Deployment) checkSecrets() error {
	if len(d.secrets) > maxSecrets {
		return fmt.Errorf("the secure parameters hold, or are made into, more than %d texts", maxSecrets)
	}
	return nil
}

// collect remembers every text and number in a secure value. Names of members are
// structure, as for Azure.
func (d *Deployment) collect(v any) {
	switch v := v.(type) {
	case string:
		if v != "" {
			d.secrets[v] = true
		}
	case int64, json.Number: // a PIN is one
		if s, _ := display(v); len(s) >= shortest {
			d.secrets[s] = true
		}
	case []any:
		for _, x := range v {
			d.collect(x)
		}
	case map[string]any:
		for _, x := range v {
			d.collect(x)
		}
	}
}

// holdsSecret tells whether a value has a secure text in it.
func holdsSecret(v any, secrets []string) bool {
	switch v := v.(type) {
	case string:
		return v != "" && Redact(v, secrets) != v
	case int64, json.Number:
		s, _ := display(v)
		return slices.Contains(secrets, s)
	case []any:
		for _, x := range v {
			if holdsSecret(x, secrets) {
				return true
			}
		}
	case map[string]any:
		for k, x := range v {
			if holdsSecret(k, secrets) || holdsSecret(x, secrets) {
				return true
			}
		}
	}
	return false
}

// Redact takes secure texts out of a text, such as the message of an error.
// What a message shows only the beginning of, or without its line breaks, is
// recognised too.
func Redact(s string, secrets []string) string {
	for _, secret := range secrets {
		switch {
		case secret == "":
		case len(secret) < shortest:
			if s == secret {
				return hidden
			}
		default:
			s = redactOne(s, secret)
			if shown := printable(secret); shown != secret {
				s = redactOne(s, shown)
			}
		}
	}
	return s
}

const (
	hidden = "*******"
	probe  = 24 // bytes of a secret that are enough to recognise it
)

// redactOne hides every place where s has at least the beginning of secret.
func redactOne(s, secret string) string {
	begin := secret[:min(len(secret), probe)]
	i := strings.Index(s, begin)
	if i < 0 {
		return s
	}
	var b strings.Builder
	for ; i >= 0; i = strings.Index(s, begin) {
		n := len(begin)
		for n < len(secret) && i+n < len(s) && s[i+n] == secret[n] {
			n++
		}
		b.WriteString(s[:i])
		b.WriteString(hidden)
		s = s[i+n:]
	}
	b.WriteString(s)
	return b.String()
}

// RedactAll is [Redact] for every text in a value, in a copy of it.
func RedactAll(v any, secrets []string) any {
	switch v := v.(type) {
	case string:
		return Redact(v, secrets)
	case int64, json.Number:
		if holdsSecret(v, secrets) {
			return hidden
		}
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = RedactAll(v[i], secrets)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, x := range v {
			out[Redact(k, secrets)] = RedactAll(x, secrets)
		}
		return out
	}
	return v
}

// reveals are functions whose result says next to nothing of their arguments.
var reveals = map[string]bool{
	"length": true, "empty": true, "equals": true, "contains": true, "not": true, "and": true, "or": true, "greater": true,
	"greaterorequals": true, "less": true, "lessorequals": true, "startswith": true, "endswith": true, "indexof": true, "lastindexof": true, "bool": true,
}

// taints tells whether an expression's value is made from a secure parameter.
func (d *Deployment) taints(n node, s *scope, depth int) bool {
	return d.touches(n, s, depth, false)
}

// touches is taints; with all set, it tells whether the expression uses a
// secure parameter for anything.
func (d *Deployment) touches(n node, s *scope, depth int, all bool) bool {
	if depth > maxNesting*2 {
		return true
	}
	switch n := n.(type) {
	case access:
		return d.touches(n.base, s, depth+1, all) || d.touches(n.index, s, depth+1, all)
	case call:
		name, args := strings.ToLower(n.name), n.args
		switch {
		case n.namespace != "":
		case reveals[name] && !all:
			return false
		case name == "parameters" && !s.inBody:
			return d.taintedParameter(n, s, depth)
		case name == "variables":
			return d.taintedVariable(n, s, depth)
		case name == "if" && len(args) == 3 && !all:
			args = args[1:]
		}
		for _, a := range args {
			if d.touches(a, s, depth+1, all) {
				return true
			}
		}
	}
	return false
}

func (d *Deployment) taintedParameter(n call, s *scope, depth int) bool {
	name, known := literalText(n.args[0])
	if !known {
		return d.secure
	}
	key, p, ok := find(d.t.parameters, name)
	if !ok {
		return false
	}
	if p.secure() || holdsSecret(d.values[key], d.inherited) {
		return true
	}
	return p.hasDefault && d.taintsDeep(p.defaultTo, s, depth+1)
}

func (d *Deployment) taintedVariable(n call, s *scope, depth int) bool {
	name, known := literalText(n.args[0])
	if !known {
		return d.secure
	}
	raw, _, _ := d.t.variableText(name)
	return d.taintsDeep(raw, s, depth+1)
}

func literalText(n node) (string, bool) {
	l, _ := n.(literal)
	s, ok := l.value.(string)
	return s, ok
}

// taintsDeep is taints for every expression in a value as it is written.
func (d *Deployment) taintsDeep(v any, s *scope, depth int) bool {
	switch v := v.(type) {
	case string:
		n, ok := d.t.parsed[v]
		return ok && d.taints(n, s, depth+1)
	case []any:
		for _, x := range v {
			if d.taintsDeep(x, s, depth+1) {
				return true
			}
		}
	case map[string]any:
		for _, x := range v {
			if d.taintsDeep(x, s, depth+1) {
				return true
			}
		}
	}
	return false
}

// Storable is a template as it may be kept: without the default values of
// secure parameters and without secure texts, which an outer template may
// have put into it.
func Storable(root map[string]any, secrets []string) map[string]any {
	return RedactAll(withoutDefaults(root), secrets).(map[string]any)
}

func withoutDefaults(v any) any {
	switch v := v.(type) {
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = withoutDefaults(v[i])
		}
		return out
	case map[string]any:
		if kind, _ := get(v, "type").(string); isSecure(strings.ToLower(kind)) {
			v = withoutMembers(v, "defaultValue")
		}
		out := make(map[string]any, len(v))
		for k, x := range v {
			out[k] = withoutDefaults(x)
		}
		return out
	}
	return v
}
