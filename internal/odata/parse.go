package odata

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// Kinds of token.
type tokKind uint8

const (
	tokEnd    tokKind = iota
	tokWord           // a keyword, property, function or bare value
	tokText           // 'text', unquoted in tok
	tokSymbol         // ( ) , :
)

// parser is a recursive-descent parser with one token of look-ahead.
type parser struct {
	rest  string
	kind  tokKind
	tok   string
	terms int
}

func parse(s string) (node, error) {
	if len(s) > MaxText || !utf8.ValidString(s) {
		return nil, malformed("it is longer than %d bytes or not UTF-8", MaxText)
	}
	p := parser{rest: s}
	if err := p.next(); err != nil {
		return nil, err
	}
	n, err := p.or(0)
	if err != nil {
		return nil, err
	}
	if p.kind != tokEnd {
		return nil, malformed("'%s' is not expected", clip(p.tok))
	}
	return n, nil
}

// next reads the next token.
func (p *parser) next() error {
	p.rest = strings.TrimLeft(p.rest, " \t")
	if p.rest == "" {
		p.kind, p.tok = tokEnd, "end of filter"
		return nil
	}
	switch c := p.rest[0]; {
	case c == '(' || c == ')' || c == ',' || c == ':':
		p.kind, p.tok, p.rest = tokSymbol, p.rest[:1], p.rest[1:]
		return nil
	case c == '\'':
		return p.text()
	case isWord(c):
		n := 1
		for n < len(p.rest) && isWord(p.rest[n]) {
			n++
		}
		p.kind, p.tok, p.rest = tokWord, p.rest[:n], p.rest[n:]
		return nil
	}
	return malformed("'%s' is not expected", clip(p.rest))
}

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '/' || c == '.' || c == '-'
}

// text reads a quoted text.
func (p *parser) text() error {
	var b strings.Builder
	for s := p.rest[1:]; ; {
		i := strings.IndexByte(s, '\'')
		if i < 0 {
			return malformed("a quote is not closed")
		}
		b.WriteString(s[:i])
		s = s[i+1:]
		switch {
		case strings.HasPrefix(s, "'"):
			s = s[1:]
		case b.Len() == 0 || endsText(s):
			p.kind, p.tok, p.rest = tokText, b.String(), s
			return nil
		}
		b.WriteByte('\'')
	}
}

// endsText reports whether a quote before s is the end of a text: what may
// follow a text stands apart from it. Else it is within a word, as in O'Neil.
func endsText(s string) bool { return s == "" || strings.IndexByte(" \t),", s[0]) >= 0 }

func (p *parser) is(kind tokKind, tok string) bool {
	return p.kind == kind && strings.EqualFold(p.tok, tok)
}

// expect reads past a symbol.
func (p *parser) expect(symbol string) error {
	if !p.is(tokSymbol, symbol) {
		return malformed("'%s' is missing before '%s'", symbol, clip(p.tok))
	}
	return p.next()
}

func (p *parser) or(depth int) (node, error) {
	ns, err := p.series("or", func() (node, error) { return p.and(depth) })
	if err != nil || len(ns) == 1 {
		return first(ns), err
	}
	return either(ns), nil
}

func (p *parser) and(depth int) (node, error) {
	ns, err := p.series("and", func() (node, error) { return p.one(depth) })
	if err != nil || len(ns) == 1 {
		return first(ns), err
	}
	return both(ns), nil
}

func first(ns []node) node {
	if len(ns) == 0 {
		return nil
	}
	return ns[0]
}

// series reads parts joined by a word.
func (p *parser) series(word string, one func() (node, error)) ([]node, error) {
	var ns []node
	for {
		n, err := one()
		if err != nil {
			return nil, err
		}
		ns = append(ns, n)
		if !p.is(tokWord, word) {
			return ns, nil
		}
		if err := p.next(); err != nil {
			return nil, err
		}
	}
}

// reserved words cannot be names.
func reserved(word string) bool {
	return slices.Contains([]string{"and", "or", "not", "eq", "ne", "in", "true", "false", "null"}, word)
}

func (p *parser) one(depth int) (node, error) {
	if depth > maxDepth {
		return nil, malformed("it is nested more than %d deep", maxDepth)
	}
	if p.is(tokSymbol, "(") {
		if err := p.next(); err != nil {
			return nil, err
		}
		n, err := p.or(depth + 1)
		if err != nil {
			return nil, err
		}
		return n, p.expect(")")
	}
	if p.is(tokWord, "not") {
		if err := p.next(); err != nil {
			return nil, err
		}
		n, err := p.one(depth + 1)
		return negation{n}, err
	}
	if p.terms++; p.terms > maxTerms {
		return nil, malformed("it has more than %d terms", maxTerms)
	}
	word, err := p.name()
	if err != nil {
		return nil, err
	}
	if p.is(tokSymbol, "(") {
		if of, ok := strings.CutSuffix(word, "/any"); ok && of != "" {
			return p.any(of, depth)
		}
		return p.call(word)
	}
	return p.comparison(word)
}

// name reads a name, which is not a keyword.
func (p *parser) name() (string, error) {
	word := strings.ToLower(p.tok)
	if p.kind != tokWord || reserved(word) {
		return "", malformed("a property or function is expected, not '%s'", clip(p.tok))
	}
	return word, p.next()
}

// comparison reads what follows a property.
func (p *parser) comparison(property string) (node, error) {
	op := strings.ToLower(p.tok)
	switch {
	case p.kind != tokWord:
		return nil, malformed("an operator is expected after '%s', not '%s'", clip(property), clip(p.tok))
	case op != "eq" && op != "ne" && op != "in":
		return nil, unsupported(property, "the operator '%s' is not supported; supported are 'eq', 'ne', 'in'", clip(op))
	}
	if err := p.next(); err != nil {
		return nil, err
	}
	if op == "in" {
		return p.values(property)
	}
	v, err := p.value(property + " " + op)
	return compare{property, op, v}, err
}

// values reads the list of in.
func (p *parser) values(property string) (node, error) {
	if err := p.expect("("); err != nil {
		return nil, err
	}
	n := within{property: property}
	for {
		if p.terms++; p.terms > maxTerms {
			return nil, malformed("it has more than %d terms", maxTerms)
		}
		v, err := p.value(property + " in")
		if err != nil {
			return nil, err
		}
		n.values = append(n.values, v)
		if p.is(tokSymbol, ")") {
			return n, p.next()
		}
		if err := p.expect(","); err != nil {
			return nil, err
		}
	}
}

func (p *parser) value(after string) (literal, error) {
	l := literal{text: strings.ToLower(p.tok), bare: true}
	switch {
	case p.kind == tokText:
		l = literal{kind: Text, text: p.tok}
	case p.kind == tokWord && (l.text == "true" || l.text == "false"):
		l.kind, l.bare = Bool, false
	case p.kind == tokWord && l.text == "null":
		l.kind, l.bare = Null, false
	case p.kind == tokWord && isGUID(l.text):
		l.kind = Text
	default:
		return l, malformed("a value is expected after '%s', such as a text in single quotes, not '%s'", clip(after), clip(p.tok))
	}
	return l, p.next()
}

// isGUID reports whether s, in lower case, is a GUID in its common form.
func isGUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; i {
		case 8, 13, 18, 23:
			if c != '-' {
				return false
			}
		default:
			if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f') {
				return false
			}
		}
	}
	return true
}

// any reads what follows a collection's /any.
func (p *parser) any(property string, depth int) (node, error) {
	if err := p.next(); err != nil { // past "("
		return nil, err
	}
	variable, err := p.name()
	if err != nil {
		return nil, err
	}
	if err := p.expect(":"); err != nil {
		return nil, err
	}
	of, err := p.or(depth + 1)
	if err != nil {
		return nil, err
	}
	return element{property, variable, of}, p.expect(")")
}

// call reads a function's arguments; its name has been read.
func (p *parser) call(name string) (node, error) {
	if err := p.next(); err != nil { // past "("
		return nil, err
	}
	n := call{function: name}
	for !p.is(tokSymbol, ")") {
		if len(n.args) > 0 {
			if err := p.expect(","); err != nil {
				return nil, err
			}
		}
		switch {
		case p.kind == tokText:
			n.args = append(n.args, argument{text: p.tok})
		case p.kind == tokWord:
			n.args = append(n.args, argument{text: strings.ToLower(p.tok), property: true})
		default:
			return nil, malformed("'%s' is not an argument", clip(p.tok))
		}
		if err := p.next(); err != nil {
			return nil, err
		}
	}
	return n, p.next()
}
