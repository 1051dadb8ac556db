package arm

import (
	"slices"
	"strings"
)

// Kinds of token in a $filter.
type tokKind uint8

const (
	tokEnd    tokKind = iota
	tokWord           // a keyword, property or function
	tokText           // 'text', unquoted in tok
	tokSymbol         // ( ) ,
)

// filterParser is a recursive-descent parser with one token of look-ahead.
type filterParser struct {
	rest string
	kind tokKind
	tok  string
}

// next reads the next token.
func (p *filterParser) next() error {
	p.rest = strings.TrimLeft(p.rest, " \t")
	if p.rest == "" {
		p.kind, p.tok = tokEnd, "end of filter"
		return nil
	}
	switch c := p.rest[0]; {
	case c == '(' || c == ')' || c == ',':
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
	return badFilter("'%s' is not expected", clip(p.rest))
}

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '/' || c == '.' || c == '-'
}

// text reads a quoted text, in which a doubled quote stands for one.
func (p *filterParser) text() error {
	var b strings.Builder
	for s := p.rest[1:]; ; {
		i := strings.IndexByte(s, '\'')
		if i < 0 {
			return badFilter("a quote is not closed")
		}
		b.WriteString(s[:i])
		s = s[i+1:]
		if !strings.HasPrefix(s, "'") {
			p.kind, p.tok, p.rest = tokText, b.String(), s
			return nil
		}
		b.WriteByte('\'')
		s = s[1:]
	}
}

func (p *filterParser) is(kind tokKind, tok string) bool {
	return p.kind == kind && strings.EqualFold(p.tok, tok)
}

// expect reads past a symbol.
func (p *filterParser) expect(symbol string) error {
	if !p.is(tokSymbol, symbol) {
		return badFilter("'%s' is missing before '%s'", symbol, clip(p.tok))
	}
	return p.next()
}

func (p *filterParser) or(depth int) (filter, error) {
	fs, err := p.series("or", func() (filter, error) { return p.and(depth) })
	if err != nil || len(fs) == 1 {
		return first(fs), err
	}
	return either(fs), nil
}

func (p *filterParser) and(depth int) (filter, error) {
	fs, err := p.series("and", func() (filter, error) { return p.one(depth) })
	if err != nil || len(fs) == 1 {
		return first(fs), err
	}
	return both(fs), nil
}

func first(fs []filter) filter {
	if len(fs) == 0 {
		return nil
	}
	return fs[0]
}

// series reads filters joined by a word.
func (p *filterParser) series(word string, one func() (filter, error)) ([]filter, error) {
	var fs []filter
	for {
		f, err := one()
		if err != nil {
			return nil, err
		}
		fs = append(fs, f)
		if !p.is(tokWord, word) {
			return fs, nil
		}
		if err := p.next(); err != nil {
			return nil, err
		}
	}
}

var filterKeywords = []string{"and", "or", "eq", "ne"}

func (p *filterParser) one(depth int) (filter, error) {
	if depth > maxFilterDepth {
		return nil, badFilter("parentheses are nested more than %d deep", maxFilterDepth)
	}
	if p.is(tokSymbol, "(") {
		if err := p.next(); err != nil {
			return nil, err
		}
		f, err := p.or(depth + 1)
		if err != nil {
			return nil, err
		}
		return f, p.expect(")")
	}
	if p.kind != tokWord || slices.Contains(filterKeywords, strings.ToLower(p.tok)) {
		return nil, badFilter("a property or function is expected, not '%s'", clip(p.tok))
	}
	word := strings.ToLower(p.tok)
	if word == "not" {
		return nil, badFilter("the operator 'not' is not supported")
	}
	if err := p.next(); err != nil {
		return nil, err
	}
	if p.is(tokSymbol, "(") {
		return p.call(word)
	}
	if p.kind != tokWord {
		return nil, badFilter("an operator is expected after '%s', not '%s'", clip(word), clip(p.tok))
	}
	op := strings.ToLower(p.tok)
	if op != "eq" && op != "ne" {
		return nil, badFilter("the operator '%s' is not supported; supported are 'eq', 'ne'", clip(op))
	}
	if err := p.next(); err != nil {
		return nil, err
	}
	if p.kind != tokText {
		return nil, badFilter("a text in single quotes is expected after '%s %s', not '%s'", clip(word), op, clip(p.tok))
	}
	f := compare{word, op, p.tok}
	return f, p.next()
}

// call reads a function's arguments; its name has been read.
func (p *filterParser) call(name string) (filter, error) {
	if err := p.next(); err != nil { // past "("
		return nil, err
	}
	f := call{function: name}
	for !p.is(tokSymbol, ")") {
		if len(f.args) > 0 {
			if err := p.expect(","); err != nil {
				return nil, err
			}
		}
		switch p.kind {
		case tokText:
			f.args = append(f.args, callArg{text: p.tok})
		case tokWord:
			f.args = append(f.args, callArg{text: strings.ToLower(p.tok), property: true})
		default:
			return nil, badFilter("'%s' is not an argument", clip(p.tok))
		}
		if err := p.next(); err != nil {
			return nil, err
		}
	}
	return f, p.next()
}
