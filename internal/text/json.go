package text

import (
	"strconv"
	"unicode/utf8"
)

// AppendJSON quotes s as JSON and nothing more: no escapes for the sake of
// HTML, and text beyond ASCII as it is. What is not UTF-8 becomes U+FFFD.
func AppendJSON(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		if i+8 <= len(s) && plain8(s[i:i+8]) {
			i += 8
			continue
		}
		c := s[i]
		if plain(c) {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				b = append(append(b, s[start:i]...), "\ufffd"...)
				start = i + 1
			}
			i += n
			continue
		}
		b = append(b, s[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = appendEscape(b, rune(c))
		}
		i++
		start = i
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}

// AppendJSONLine quotes s as JSON for a file that people read too. What cannot
// be printed is escaped, line separators of every kind included, so that a
// name cannot forge a line or steer a terminal.
func AppendJSONLine(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if plain(c) && c != 0x7f {
			i++
			continue
		}
		b = append(b, s[start:i]...)
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case r == utf8.RuneError && n == 1:
			b = append(b, `\ufffd`...)
		case r >= 0xa0 && r != '\u2028' && r != '\u2029' && strconv.IsPrint(r):
			b = append(b, s[i:i+n]...)
		case r > 0xffff:
			b = append(b, `\ufffd`...)
		default:
			b = appendEscape(b, r)
		}
		i += n
		start = i
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}

// appendEscape writes a character below U+10000 by its number.
func appendEscape(b []byte, r rune) []byte {
	const hex = "0123456789abcdef"
	return append(b, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
}

// plain reports whether a byte stands for itself in a JSON string.
func plain(c byte) bool {
	return c >= ' ' && c < utf8.RuneSelf && c != '"' && c != '\\'
}

// plain8 is plain for the first eight bytes of s at once: values are long, and
// nearly all of their bytes are plain. Taking 32 from each byte, and 1 from
// each that differs from a quote (or backslash) by that much, sets the top bit
// of those that are not plain; the top bit of a byte beyond ASCII is set
// already. A borrow out of a byte can only add to what is found.
func plain8(s string) bool {
	_ = s[7]
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	x := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
	quote, slash := x^(ones*'"'), x^(ones*'\\')
	return ((x-ones*' ')|(quote-ones)|(slash-ones)|x)&highs == 0
}
