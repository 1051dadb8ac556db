package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// words splits a command as a shell would: at blanks, with single and double
// quotes and, before a line break, a backslash. It knows nothing else of a
// shell, and refuses what it would have to know.
func words(line string) ([]string, error) {
	var out []string
	var word strings.Builder
	inWord, quote := false, byte(0)
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case quote != 0:
			if c == quote {
				quote = 0
				continue
			}
			word.WriteByte(c)
		case c == '\'' || c == '"':
			quote, inWord = c, true
		case c == '\\' && i+1 < len(line) && line[i+1] == '\n':
			i++
		case c == ' ' || c == '\t' || c == '\n':
			if inWord {
				out = append(out, word.String())
				word.Reset()
				inWord = false
			}
		case strings.IndexByte("\\|&;<>`", c) >= 0:
			return nil, fmt.Errorf("%q has %q: write it as sh", line, c)
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("%q has an open quote", line)
	}
	if inWord {
		out = append(out, word.String())
	}
	return out, nil
}

var reference = regexp.MustCompile(`\$\{([A-Za-z][A-Za-z0-9]*)\}`)

// errMissing says that a value was never saved, because an earlier row failed.
var errMissing = errors.New("not run")

// expand puts values in the place of ${name}.
func expand(s string, values map[string]string) (string, error) {
	var missing error
	out := reference.ReplaceAllStringFunc(s, func(m string) string {
		name := m[2 : len(m)-1]
		v, ok := values[name]
		if !ok {
			missing = fmt.Errorf("%w: nothing gave it ${%s}", errMissing, name)
		}
		return v
	})
	return out, missing
}

// redactor hides secrets in what is printed.
type redactor struct{ values map[string]string }

var jwt = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{8,}(\.[A-Za-z0-9_-]*)*`)

// isSecret reports whether a value of this name must not be printed.
func isSecret(name string) bool {
	n := strings.ToLower(name)
	return strings.Contains(n, "secret") || strings.Contains(n, "password") || strings.Contains(n, "token")
}

func (r redactor) clean(s string) string {
	for name, v := range r.values {
		if isSecret(name) && len(v) >= 6 {
			s = strings.ReplaceAll(s, v, "${"+name+"}")
		}
	}
	return jwt.ReplaceAllString(s, "(a token)")
}
