// Package odata reads the query options of the management API and of the
// directory API: $filter above all, and $select, $top, $count and $skiptoken.
//
// It owns the language and nothing of either API. Each listing says by
// [Rules] which properties, operators and functions it understands, and the
// rest is refused by name: a filter that was ignored would answer another
// question than the one that was asked. It guarantees that what it accepts
// means what it says whatever its size (text, depth and number of terms are
// bounded), and that a filter's own text, see [Filter.String], parses to the
// same filter again.
package odata

import (
	"fmt"
	"slices"
	"strings"
)

// Limits of a filter: bytes of text, depth of nesting and number of
// comparisons and calls, each of which is evaluated for each object.
const (
	MaxText  = 4096
	maxDepth = 32
	maxTerms = 100
)

// Error is the refusal of a query option. Its text is for the client; it is a
// clause without capital letter or full stop.
type Error struct {
	// Unsupported is set if the option is well formed, but asks for what the
	// listing does not understand.
	Unsupported bool
	Property    string // what is not understood, if it is a property, in lower case
	Message     string
}

func (e *Error) Error() string { return e.Message }

func malformed(format string, args ...any) error {
	return &Error{Message: fmt.Sprintf(format, args...)}
}

func unsupported(property, format string, args ...any) error {
	return &Error{Unsupported: true, Property: property, Message: fmt.Sprintf(format, args...)}
}

// Kind is the type of a property or value.
type Kind uint8

// The kinds.
const (
	Null Kind = iota // no value; not a kind of property
	Text
	Bool
	Texts // a collection of texts
)

// Value is what an object has as a property. The zero Value is null.
type Value struct {
	Kind  Kind
	Text  string
	Bool  bool
	Texts []string
	Exact bool // a Text is compared with regard to case
}

// OfText is a text that is compared without regard to case.
func OfText(s string) Value { return Value{Kind: Text, Text: s} }

// OfTexts is a collection of texts, which are compared without regard to case.
func OfTexts(s []string) Value { return Value{Kind: Texts, Texts: s} }

// OfBool is a truth value.
func OfBool(b bool) Value { return Value{Kind: Bool, Bool: b} }

// Env is one object as a filter sees it.
type Env interface {
	// Property returns the value of a property, by its lower-case name. It is
	// asked for those of the rules only.
	Property(name string) Value
	// Call answers a function that is not one of the language's own
	// (startswith, endswith, contains, substringof), by its lower-case name.
	Call(function string, args []string) bool
}

// Property says what a listing understands of a property.
type Property struct {
	Kind Kind
	// Ops are the operators, separated by blanks: eq, ne, in, and null if the
	// value may be compared with null. For a collection they are what may be
	// said of one element within any: eq, startswith.
	Ops string
}

// Rules say which filters a listing understands. Names are in lower case.
type Rules struct {
	Properties map[string]Property
	// Functions are the calls: by name, each list of arguments that is
	// understood. An argument is the word text or a property's name:
	// startswith(displayName,'a') has the signature "displayname,text".
	Functions map[string][]string
	Not       bool // the operator not is understood
}

// Filter is a parsed filter. A nil Filter holds of everything.
type Filter struct{ root node }

// Parse reads a filter:
//
//	or    = and { "or" and }
//	and   = one { "and" one }
//	one   = "not" one | "(" or ")" | compare | call | any
//	compare = property ("eq"|"ne") value | property "in" "(" value { "," value } ")"
//	call  = function "(" [ argument { "," argument } ] ")"
//	any   = property "/any" "(" variable ":" or ")"
//	value = 'text' | GUID | "true" | "false" | "null"
//
// Keywords, properties and functions are known in any case. A quote inside a
// text is doubled; one within a word, as in 'O'Neil', stands for itself, because
// the az command line doubles none. An empty filter is nil. Errors are *[Error].
func Parse(s string) (*Filter, error) {
	if strings.TrimSpace(s) == "" {
		return nil, nil
	}
	root, err := parse(s)
	if err != nil {
		return nil, err
	}
	return &Filter{root}, nil
}

// ParseFor is Parse and [Filter.Check].
func ParseFor(s string, rules *Rules) (*Filter, error) {
	f, err := Parse(s)
	if err == nil {
		err = f.Check(rules)
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Check refuses what the listing does not understand. Errors are *[Error].
func (f *Filter) Check(rules *Rules) error {
	if f == nil {
		return nil
	}
	return f.root.check(rules, "", Property{})
}

// Holds reports whether the filter is true of the object. The filter must
// have passed [Filter.Check].
func (f *Filter) Holds(env Env) bool { return f == nil || f.root.holds(env) }

// String is the filter in one spelling of many: names in lower case.
func (f *Filter) String() string {
	if f == nil {
		return ""
	}
	return f.root.String()
}

// OneOf returns the texts of which the property must equal one for the filter
// to hold (a collection must have one), if the filter says so much: what an
// index can be asked for. The name is in lower case.
func (f *Filter) OneOf(property string) (texts []string, ok bool) {
	if f == nil {
		return nil, false
	}
	return oneOf(f.root, property)
}

func oneOf(n node, property string) (texts []string, ok bool) {
	switch n := n.(type) {
	case both:
		for _, m := range n {
			if texts, ok = oneOf(m, property); ok {
				return texts, true
			}
		}
	case either:
		for _, m := range n {
			some, ok := oneOf(m, property)
			if !ok {
				return nil, false
			}
			texts = append(texts, some...)
		}
		return texts, true
	case compare:
		if n.property == property && n.op == "eq" && n.value.kind == Text {
			return []string{n.value.text}, true
		}
	case within:
		if n.property != property {
			return nil, false
		}
		for _, v := range n.values {
			if v.kind != Text {
				return nil, false
			}
			texts = append(texts, v.text)
		}
		return texts, true
	case element:
		if n.property == property {
			return oneOf(n.of, n.variable)
		}
	}
	return nil, false
}

// Uses reports whether the filter has one of the operators or functions:
// not, ne, endswith and so on.
func (f *Filter) Uses(words ...string) bool {
	return f != nil && uses(f.root, words)
}

func uses(n node, words []string) bool {
	has := func(w string) bool { return slices.Contains(words, w) }
	switch n := n.(type) {
	case both:
		return slices.ContainsFunc(n, func(m node) bool { return uses(m, words) })
	case either:
		return slices.ContainsFunc(n, func(m node) bool { return uses(m, words) })
	case negation:
		return has("not") || uses(n.of, words)
	case compare:
		return has(n.op)
	case within:
		return has("in")
	case call:
		return has(n.function)
	case element:
		return has("any") || uses(n.of, words)
	}
	return false
}
