package directory

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/podkey/podkey/internal/fault"
)

// Expression is a claims matching expression in version 1 of its language,
// by which a federated credential trusts more than one subject of an issuer:
//
//	expression = clause { " and " clause }
//	clause     = "claims['" name "'] " ( "eq" | "matches" ) " '" text "'"
//
// eq compares byte for byte. matches has * for any run of characters, empty
// or not, and ? for exactly one. A quote in a text is doubled. There is one
// blank where the rules show one, and nothing else: no or, no not, no
// parentheses, so that what a credential trusts can be seen at a glance.
type Expression struct {
	clauses []clause
}

type clause struct {
	claim   string
	pattern string
	glob    bool
}

// Limits of expressions: clauses, bytes of a claim's name, and bytes of a
// claim that is compared with a pattern, which a stranger may send.
const (
	maxClauses   = 8
	maxClaimName = 64
	maxClaim     = 2048
)

// ParseExpression reads an expression. It must have a clause on sub that
// demands at least one character: an issuer as a whole is not to be trusted
// by an oversight. Errors are faults of kind Invalid.
func ParseExpression(s string) (*Expression, error) {
	bad := func(format string, args ...any) (*Expression, error) {
		return nil, fault.BadRequest("BadRequest", "The claims matching expression is not valid: "+format+".", args...)
	}
	if !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
		return bad("it has characters that are not allowed")
	}
	if utf8.RuneCountInString(s) > maxFederatedText {
		return bad("it has more than %d characters", maxFederatedText)
	}
	var e Expression
	for rest := s; ; {
		if len(e.clauses) == maxClauses {
			return bad("it has more than %d clauses", maxClauses)
		}
		c, after, why := parseClause(rest)
		if why != "" {
			return bad("clause %d: %s", len(e.clauses)+1, why)
		}
		e.clauses = append(e.clauses, c)
		if after == "" {
			break
		}
		var ok bool
		if rest, ok = strings.CutPrefix(after, " and "); !ok {
			return bad("after clause %d, ' and ' and another clause are expected", len(e.clauses))
		}
	}
	if !slices.ContainsFunc(e.clauses, func(c clause) bool { return c.claim == "sub" && strings.Trim(c.pattern, "*?") != "" }) {
		return bad("it must say something of claims['sub'] besides wildcards")
	}
	return &e, nil
}

// parseClause reads one clause and returns what follows it, or why not.
func parseClause(s string) (c clause, rest, why string) {
	rest, ok := strings.CutPrefix(s, "claims['")
	if !ok {
		return c, "", "claims['NAME'] is expected"
	}
	if c.claim, rest, ok = strings.Cut(rest, "'] "); !ok || !validClaimName(c.claim) {
		return c, "", "the name of the claim is malformed"
	}
	if c.claim == "iss" || c.claim == "aud" {
		return c, "", "the claims iss and aud are compared with the issuer and the audience of the credential"
	}
	op, rest, _ := strings.Cut(rest, " ")
	switch op {
	case "eq":
	case "matches":
		c.glob = true
	default:
		return c, "", "the operator must be eq or matches"
	}
	if rest, ok = strings.CutPrefix(rest, "'"); !ok {
		return c, "", "a text in single quotes is expected"
	}
	var b strings.Builder
	for {
		i := strings.IndexByte(rest, '\'')
		if i < 0 {
			return c, "", "a quote is not closed"
		}
		b.WriteString(rest[:i])
		if rest = rest[i+1:]; !strings.HasPrefix(rest, "'") {
			break
		}
		b.WriteByte('\'')
		rest = rest[1:]
	}
	if c.pattern = b.String(); c.pattern == "" {
		return c, "", "the text must not be empty"
	}
	return c, rest, ""
}

func validClaimName(s string) bool {
	if s == "" || len(s) > maxClaimName {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' || c == '.') {
			return false
		}
	}
	return true
}

// String is the expression as it was written.
func (e *Expression) String() string {
	parts := make([]string, len(e.clauses))
	for i, c := range e.clauses {
		op := "eq"
		if c.glob {
			op = "matches"
		}
		parts[i] = "claims['" + c.claim + "'] " + op + " '" + strings.ReplaceAll(c.pattern, "'", "''") + "'"
	}
	return strings.Join(parts, " and ")
}

// Holds reports whether every clause is true. claim returns a claim that is a
// text; a clause about any other claim is false.
func (e *Expression) Holds(claim func(name string) (string, bool)) bool {
	for _, c := range e.clauses {
		v, ok := claim(c.claim)
		if !ok || len(v) > maxClaim || !c.glob && v != c.pattern || c.glob && !glob(c.pattern, v) {
			return false
		}
	}
	return true
}

// glob reports whether the whole of s matches the pattern. It takes no more
// steps than the product of the lengths.
func glob(pattern, s string) bool {
	p, t := []rune(pattern), []rune(s)
	i, j := 0, 0
	star, mark := -1, 0 // the last * seen, and where its run ends so far
	for j < len(t) {
		switch {
		case i < len(p) && p[i] == '*':
			star, mark = i, j
			i++
		case i < len(p) && (p[i] == '?' || p[i] == t[j]):
			i++
			j++
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	for i < len(p) && p[i] == '*' {
		i++
	}
	return i == len(p)
}
