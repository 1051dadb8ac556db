// Package text makes text that others chose fit for where it goes: a message,
// a log record, a terminal, a JSON string.
//
// It owns the two decisions that every plane takes many times a second: what
// of a foreign text is repeated ([Clip]), and how a text is quoted as JSON
// ([AppendJSON], [AppendJSONLine]). It guarantees that neither a message nor a
// line has more lines, or steers a terminal, because of what is in it. It
// imports nothing of ours.
package text

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Clip makes a text fit to be repeated: printable, of one line and of at most
// so many bytes, with "..." in place of the rest. What cannot be printed
// becomes a question mark.
func Clip(s string, most int) string {
	cut := len(s) > most
	if cut {
		s = s[:most]
	}
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	if cut {
		s += "..."
	}
	return s
}

// Printable is [Clip] without a bound.
func Printable(s string) string { return Clip(s, len(s)) }
