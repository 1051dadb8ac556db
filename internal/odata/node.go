package odata

import (
	"fmt"
	"slices"
	"strings"

	"github.com/podkey/podkey/internal/text"
)

// node is a part of a filter.
type node interface {
	fmt.Stringer
	holds(env Env) bool
	// check refuses what the rules do not have. Within any, variable is its
	// variable and of the collection.
	check(r *Rules, variable string, of Property) error
}

type (
	// both is a conjunction, either a disjunction, of two or more parts.
	both   []node
	either []node
	// negation is true if its part is not.
	negation struct{ of node }
	// compare is a comparison of a property with a value.
	compare struct {
		property, op string
		value        literal
	}
	// within is true of a property that equals one of the values.
	within struct {
		property string
		values   []literal
	}
	// call is a function.
	call struct {
		function string
		args     []argument
	}
	// element is true of a collection that has an element of which the part
	// is true, which knows it by the variable.
	element struct {
		property, variable string
		of                 node
	}
)

// literal is a value as it is written. bare is set for a GUID without quotes.
type literal struct {
	kind Kind
	text string // also true, false and null
	bare bool
}

// argument of a call: a text or a property's name.
type argument struct {
	text     string
	property bool
}

func (n both) holds(env Env) bool {
	return !slices.ContainsFunc(n, func(m node) bool { return !m.holds(env) })
}

func (n either) holds(env Env) bool {
	return slices.ContainsFunc(n, func(m node) bool { return m.holds(env) })
}

func (n negation) holds(env Env) bool { return !n.of.holds(env) }

func (n compare) holds(env Env) bool {
	return n.value.equals(env.Property(n.property)) == (n.op == "eq")
}

func (n within) holds(env Env) bool {
	v := env.Property(n.property)
	return slices.ContainsFunc(n.values, func(l literal) bool { return l.equals(v) })
}

func (n element) holds(env Env) bool {
	for _, text := range env.Property(n.property).Texts {
		if n.of.holds(elementEnv{n.variable, text}) {
			return true
		}
	}
	return false
}

// elementEnv is one element of a collection: any knows nothing else.
type elementEnv struct{ variable, text string }

func (e elementEnv) Property(string) Value      { return OfText(e.text) }
func (e elementEnv) Call(string, []string) bool { return false }

func (n call) holds(env Env) bool {
	args := make([]string, len(n.args))
	for i, a := range n.args {
		args[i] = a.text
		if a.property {
			v := env.Property(a.text)
			if v.Kind != Text {
				return false // nothing is true of what is not there
			}
			args[i] = v.Text
		}
	}
	switch n.function {
	case "startswith":
		return strings.HasPrefix(fold(args[0]), fold(args[1]))
	case "endswith":
		return strings.HasSuffix(fold(args[0]), fold(args[1]))
	case "contains":
		return strings.Contains(fold(args[0]), fold(args[1]))
	case "substringof":
		return strings.Contains(fold(args[1]), fold(args[0]))
	}
	return env.Call(n.function, args)
}

// fold is the form in which texts are compared. Indexes over the same
// properties use it too, so that a look-up finds what a comparison would.
func fold(s string) string { return strings.ToLower(s) }

func (l literal) equals(v Value) bool {
	switch {
	case l.kind != v.Kind:
		return false
	case l.kind == Bool:
		return v.Bool == (l.text == "true")
	case l.kind == Text && v.Exact:
		return l.text == v.Text
	}
	return l.kind == Null || fold(l.text) == fold(v.Text)
}

func (n both) check(r *Rules, variable string, of Property) error {
	return checkAll(n, r, variable, of)
}

func (n either) check(r *Rules, variable string, of Property) error {
	return checkAll(n, r, variable, of)
}

func checkAll(ns []node, r *Rules, variable string, of Property) error {
	for _, n := range ns {
		if err := n.check(r, variable, of); err != nil {
			return err
		}
	}
	return nil
}

func (n negation) check(r *Rules, variable string, of Property) error {
	if !r.Not {
		return unsupported("", "the operator 'not' is not supported")
	}
	return n.of.check(r, variable, of)
}

func (n compare) check(r *Rules, variable string, of Property) error {
	return checkValues(r, variable, of, n.property, n.op, n.value)
}

func (n within) check(r *Rules, variable string, of Property) error {
	return checkValues(r, variable, of, n.property, "in", n.values...)
}

// checkValues refuses a comparison whose property, operator or kind of value
// is not one of the rules'.
func checkValues(r *Rules, variable string, of Property, name, op string, values ...literal) error {
	p, known := r.Properties[name]
	if variable != "" {
		p, known = Property{Kind: Text, Ops: of.Ops}, name == variable
	}
	ops := strings.Fields(p.Ops)
	switch {
	case !known && variable != "":
		return unsupported(name, "within 'any' only its variable '%s' is supported, not '%s'", variable, clip(name))
	case !known:
		return unsupported(name, "the property '%s' is not supported here; supported are %s", clip(name), nameList(r.Properties, ""))
	case p.Kind == Texts:
		return unsupported(name, "the property '%s' is a collection: use %s/any(x:x eq '...')", name, name)
	case !slices.Contains(ops, op):
		return unsupported(name, "the operator '%s' is not supported for '%s'", op, name)
	}
	for _, v := range values {
		switch {
		case v.kind == p.Kind && !(v.bare && p.Kind != Text):
		case v.kind == Null && slices.Contains(ops, "null"):
		default:
			return unsupported(name, "the value %s is not one that '%s' can be compared with", clip(v.String()), name)
		}
	}
	return nil
}

func (n call) check(r *Rules, variable string, of Property) error {
	signatures, known := r.Functions[n.function]
	if variable != "" {
		signatures, known = nil, false
		if slices.Contains(strings.Fields(of.Ops), n.function) {
			signatures, known = []string{variable + ",text"}, true
		}
	}
	switch {
	case !known:
		return unsupported("", "the function '%s' is not supported here; supported are %s", clip(n.function), nameList(r.Functions, "()"))
	case !slices.Contains(signatures, n.signature()):
		return unsupported("", "the arguments of '%s' are not ones that it takes", n.function)
	}
	return nil
}

// signature tells what the arguments are: text or a property's name each.
func (n call) signature() string {
	kinds := make([]string, len(n.args))
	for i, a := range n.args {
		kinds[i] = "text"
		if a.property {
			kinds[i] = a.text
		}
	}
	return strings.Join(kinds, ",")
}

func (n element) check(r *Rules, variable string, of Property) error {
	p, known := r.Properties[n.property]
	switch {
	case variable != "":
		return unsupported(n.property, "'any' within 'any' is not supported")
	case !known:
		return unsupported(n.property, "the property '%s' is not supported here; supported are %s", clip(n.property), nameList(r.Properties, ""))
	case p.Kind != Texts:
		return unsupported(n.property, "the property '%s' is not a collection", n.property)
	}
	return n.of.check(r, n.variable, p)
}

func nameList[V any](m map[string]V, suffix string) string {
	if len(m) == 0 {
		return "none"
	}
	var all []string
	for n := range m {
		all = append(all, "'"+n+suffix+"'")
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

func (n both) String() string   { return join(n, " and ") }
func (n either) String() string { return join(n, " or ") }

func join(ns []node, sep string) string {
	parts := make([]string, len(ns))
	for i, n := range ns {
		parts[i] = grouped(n)
	}
	return strings.Join(parts, sep)
}

// grouped is a part's text, in parentheses if it would fall apart without.
func grouped(n node) string {
	switch n.(type) {
	case both, either:
		return "(" + n.String() + ")"
	}
	return n.String()
}

func (n negation) String() string { return "not " + grouped(n.of) }

func (n compare) String() string { return n.property + " " + n.op + " " + n.value.String() }

func (n within) String() string {
	parts := make([]string, len(n.values))
	for i, v := range n.values {
		parts[i] = v.String()
	}
	return n.property + " in (" + strings.Join(parts, ",") + ")"
}

func (n call) String() string {
	parts := make([]string, len(n.args))
	for i, a := range n.args {
		parts[i] = a.text
		if !a.property {
			parts[i] = quote(a.text)
		}
	}
	return n.function + "(" + strings.Join(parts, ",") + ")"
}

func (n element) String() string {
	return n.property + "/any(" + n.variable + ":" + n.of.String() + ")"
}

func (l literal) String() string {
	if l.kind == Text && !l.bare {
		return quote(l.text)
	}
	return l.text
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// clip makes text from a request fit for a message.
func clip(s string) string { return text.Clip(s, 120) }
