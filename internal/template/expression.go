package template

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// node is a parsed expression.
type node interface{}

type (
	// literal is a string or an integer.
	literal struct{ value any }
	// call is f(args), or ns.f(args) of the template's own functions.
	call struct {
		namespace, name string
		args            []node
	}
	// access is base.name or base[index].
	access struct {
		base  node
		index node // of .name, a literal
		safe  bool // .? or [?: null instead of an error
	}
)

// isExpression tells whether a string of a template is an expression.
func isExpression(s string) bool {
	return len(s) >= 2 && s[0] == '[' && s[len(s)-1] == ']' && !strings.HasPrefix(s, "[[")
}

// unescape is what a string that is no expression stands for.
func unescape(s string) string {
	if strings.HasPrefix(s, "[[") {
		return s[1:]
	}
	return s
}

// Escape makes a string that stands for s wherever a template has strings.
func Escape(s string) string {
	if strings.HasPrefix(s, "[") {
		return "[" + s
	}
	return s
}

// parseExpression parses a string for which isExpression holds. Errors say
// where in the expression.
func parseExpression(s string) (node, error) {
	if len(s) > maxExpression {
		return nil, fmt.Errorf("the expression is longer than %d characters", maxExpression)
	}
	p := parser{s: s[1 : len(s)-1]}
	n, err := p.expression(0)
	if err != nil {
		return nil, err
	}
	p.space()
	if p.at < len(p.s) {
		return nil, p.fail("unexpected text after the expression")
	}
	return n, nil
}

type parser struct {
	s  string
	at int
}

// fail counts the position from the opening bracket, which is 0.
func (p *parser) fail(what string) error {
	return fmt.Errorf("%s at position %d of the expression", what, p.at+1)
}

func (p *parser) space() {
	for p.at < len(p.s) && strings.IndexByte(" \t\r\n", p.s[p.at]) >= 0 {
		p.at++
	}
}

// peek passes space and returns the next byte, 0 at the end.
func (p *parser) peek() byte {
	p.space()
	if p.at == len(p.s) {
		return 0
	}
	return p.s[p.at]
}

// take passes a byte if it is the next one.
func (p *parser) take(c byte) bool {
	if p.peek() != c || c == 0 {
		return false
	}
	p.at++
	return true
}

func (p *parser) expression(depth int) (node, error) {
	if depth > maxNesting {
		return nil, p.fail("too many nested calls")
	}
	n, err := p.primary(depth)
	if err != nil {
		return nil, err
	}
	for links := 0; ; links++ {
		if links > maxNesting {
			return nil, p.fail("too many accesses in a row")
		}
		switch {
		case p.take('.'):
			safe := p.take('?')
			p.space()
			name := p.word()
			if name == "" {
				return nil, p.fail("the name of a property is expected")
			}
			n = access{base: n, index: literal{name}, safe: safe}
		case p.take('['):
			safe := p.take('?')
			index, err := p.expression(depth + 1)
			if err != nil {
				return nil, err
			}
			if !p.take(']') {
				return nil, p.fail("']' is expected")
			}
			n = access{base: n, index: index, safe: safe}
		default:
			return n, nil
		}
	}
}

func (p *parser) primary(depth int) (node, error) {
	c := p.peek()
	switch {
	case c == '\'':
		return p.text()
	case c == '-' || c == '+' || c >= '0' && c <= '9':
		return p.number()
	}
	name := p.word()
	if name == "" {
		return nil, p.fail("a function, string or number is expected")
	}
	f := call{name: name}
	if p.take('.') {
		p.space()
		if f.namespace, f.name = name, p.word(); f.name == "" {
			return nil, p.fail("the name of a function is expected")
		}
	}
	if !p.take('(') {
		return nil, p.fail("'(' is expected")
	}
	if p.take(')') {
		return f, nil
	}
	for {
		arg, err := p.expression(depth + 1)
		if err != nil {
			return nil, err
		}
		f.args = append(f.args, arg)
		if p.take(')') {
			return f, nil
		}
		if !p.take(',') {
			return nil, p.fail("',' or ')' is expected")
		}
	}
}

func (p *parser) word() string {
	start := p.at
	for p.at < len(p.s) && isWord(p.s[p.at]) {
		p.at++
	}
	return p.s[start:p.at]
}

// text reads a string, in which a doubled quote stands for one.
func (p *parser) text() (node, error) {
	start := p.at
	var b strings.Builder
	for p.at++; p.at < len(p.s); p.at++ {
		if p.s[p.at] != '\'' {
			b.WriteByte(p.s[p.at])
			continue
		}
		if p.at++; p.at == len(p.s) || p.s[p.at] != '\'' {
			return literal{b.String()}, nil
		}
		b.WriteByte('\'')
	}
	p.at = start
	return nil, p.fail("the string that begins there has no end")
}

func (p *parser) number() (node, error) {
	start := p.at
	p.at++
	for p.at < len(p.s) && (isWord(p.s[p.at]) || p.s[p.at] == '.') {
		p.at++
	}
	n, err := strconv.ParseInt(p.s[start:p.at], 10, 64)
	if err != nil {
		p.at = start
		return nil, p.fail(fmt.Sprintf("an integer between %d and %d is expected", math.MinInt64, math.MaxInt64))
	}
	return literal{n}, nil
}
