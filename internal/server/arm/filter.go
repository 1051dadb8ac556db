package arm

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/podkey/podkey/internal/fault"
)

// Limits of a $filter: bytes of text and depth of parentheses.
const (
	maxFilter      = 4096
	maxFilterDepth = 32
)

// filter is a parsed $filter: the part of OData that the management API
// understands.
//
//	or   = and { "or" and }
//	and  = one { "and" one }
//	one  = "(" or ")" | property ("eq"|"ne") 'text' | function "(" arguments ")"
//
// Keywords, properties and functions are known in any case. A quote inside a
// text is doubled.
type filter interface {
	fmt.Stringer
	// holds reports whether the filter is true of what env describes.
	holds(env *filterEnv) bool
	// names reports each property and function that the filter uses.
	names(visit func(call bool, name, op string))
}

type (
	// both is a conjunction, either a disjunction, of two or more filters.
	both   []filter
	either []filter
	// compare is a comparison of a property with a text.
	compare struct{ property, op, text string }
	// call is a function: its arguments are texts or a property's name.
	call struct {
		function string
		args     []callArg
	}
)

type callArg struct {
	text     string
	property bool
}

// filterEnv is one object as a filter sees it. Each of tags is tried in turn
// for tagName and tagValue, so that both speak of the same tag.
type filterEnv struct {
	property func(name string) string // by lower-case name
	call     func(name string, args []string) bool
	tags     map[string]string

	tagName, tagValue string // of the tag being tried
}

// filterRules say which filters a listing understands: properties with their
// operators and functions with the kinds of their arguments, all in lower
// case. The rest is refused by name: a filter that was ignored would answer
// another question than the one that was asked.
type filterRules struct {
	properties map[string]string   // name -> operators, such as "eq ne"
	functions  map[string][]string // name -> what call.signature may be
}

// parseFilter parses s and checks it against the rules. An empty s gives nil,
// which everything matches.
func parseFilter(s string, rules *filterRules) (filter, error) {
	if strings.TrimSpace(s) == "" {
		return nil, nil
	}
	if len(s) > maxFilter || !utf8.ValidString(s) {
		return nil, badFilter("it is longer than %d bytes or not UTF-8", maxFilter)
	}
	p := filterParser{rest: s}
	if err := p.next(); err != nil {
		return nil, err
	}
	f, err := p.or(0)
	if err != nil {
		return nil, err
	}
	if p.kind != tokEnd {
		return nil, badFilter("'%s' is not expected", clip(p.tok))
	}
	return f, rules.check(f)
}

func badFilter(format string, args ...any) error {
	return fault.BadRequest("InvalidFilterInQueryString", "The filter in the query string is not valid: "+format+".", args...)
}

// check refuses what the listing does not understand.
func (r *filterRules) check(f filter) (err error) {
	f.names(func(isCall bool, name, op string) {
		if err != nil {
			return
		}
		operators, isProperty := r.properties[name]
		signatures, isFunction := r.functions[name]
		switch {
		case isCall && !isFunction:
			err = badFilter("the function '%s' is not supported here; supported are %s", clip(name), nameList(r.functions, "()"))
		case isCall && !slices.Contains(signatures, op):
			err = badFilter("the arguments of '%s' are not ones that it takes", name)
		case !isCall && !isProperty:
			err = badFilter("the property '%s' is not supported here; supported are %s", clip(name), nameList(r.properties, ""))
		case !isCall && !slices.Contains(strings.Fields(operators), op):
			err = badFilter("the operator '%s' is not supported for '%s'", op, name)
		}
	})
	return err
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

// match reports whether a filter, which may be nil, is true of env. With
// tags, it is enough that one of them makes it true.
func match(f filter, env *filterEnv) bool {
	if f == nil || f.holds(env) {
		return true
	}
	for k, v := range env.tags {
		env.tagName, env.tagValue = k, v
		if f.holds(env) {
			return true
		}
	}
	return false
}

func (f both) holds(env *filterEnv) bool {
	return !slices.ContainsFunc(f, func(g filter) bool { return !g.holds(env) })
}

func (f either) holds(env *filterEnv) bool {
	return slices.ContainsFunc(f, func(g filter) bool { return g.holds(env) })
}

func (f compare) holds(env *filterEnv) bool {
	var same bool
	switch f.property {
	case "tagname":
		same = env.tagName != "" && strings.EqualFold(env.tagName, f.text)
	case "tagvalue":
		same = env.tagName != "" && env.tagValue == f.text // values have case, names have not
	default:
		same = strings.EqualFold(env.property(f.property), f.text)
	}
	return same == (f.op == "eq")
}

func (f call) holds(env *filterEnv) bool {
	args := make([]string, len(f.args))
	for i, a := range f.args {
		switch {
		case a.property && a.text == "tagname":
			args[i] = env.tagName
		case a.property:
			args[i] = env.property(a.text)
		default:
			args[i] = a.text
		}
	}
	switch f.function {
	case "substringof":
		return strings.Contains(strings.ToLower(args[1]), strings.ToLower(args[0]))
	case "startswith":
		return args[0] != "" && strings.HasPrefix(strings.ToLower(args[0]), strings.ToLower(args[1]))
	}
	return env.call(f.function, args)
}

func (f both) names(visit func(bool, string, string)) {
	for _, g := range f {
		g.names(visit)
	}
}

func (f either) names(visit func(bool, string, string)) {
	for _, g := range f {
		g.names(visit)
	}
}

func (f compare) names(visit func(bool, string, string)) { visit(false, f.property, f.op) }

// names reports a call with its signature in place of an operator.
func (f call) names(visit func(bool, string, string)) { visit(true, f.function, f.signature()) }

// signature tells what the arguments are: "text" or a property's name each.
// substringof('a',name) has the signature "text,name".
func (f call) signature() string {
	kinds := make([]string, len(f.args))
	for i, a := range f.args {
		kinds[i] = "text"
		if a.property {
			kinds[i] = a.text
		}
	}
	return strings.Join(kinds, ",")
}

func (f both) String() string   { return join(f, " and ") }
func (f either) String() string { return join(f, " or ") }

func join(fs []filter, sep string) string {
	parts := make([]string, len(fs))
	for i, f := range fs {
		parts[i] = f.String()
		switch f.(type) {
		case both, either:
			parts[i] = "(" + parts[i] + ")"
		}
	}
	return strings.Join(parts, sep)
}

func (f compare) String() string { return f.property + " " + f.op + " " + quote(f.text) }

func (f call) String() string {
	parts := make([]string, len(f.args))
	for i, a := range f.args {
		parts[i] = a.text
		if !a.property {
			parts[i] = quote(a.text)
		}
	}
	return f.function + "(" + strings.Join(parts, ",") + ")"
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
