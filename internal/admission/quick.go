package admission

import (
	"encoding/binary"
	"math/bits"
)

// maxQuick is how deep quickly goes.
const maxQuick = 64

// quickly returns the end of the value at i, if it is written as API servers do:
// without white space, escapes and fractions. For anything else, good or bad, it
// returns -1.
func quickly(s []byte, i int) int {
	var objects uint64 // of the open brackets the braces, innermost lowest
	for open := 0; ; {
		// At a value.
		if i >= len(s) {
			return -1
		}
		switch c := s[i]; {
		case c == '"':
			i = plain(s, i+1)
		case c == '{' || c == '[':
			if open++; open > maxQuick || i+1 >= len(s) {
				return -1
			}
			objects <<= 1
			if i++; c == '{' {
				objects |= 1
				if s[i] != '}' {
					if i = plainName(s, i); i < 0 {
						return -1
					}
					continue
				}
			} else if s[i] != ']' {
				continue
			}
		case c >= '1' && c <= '9':
			for i++; i < len(s) && s[i] >= '0' && s[i] <= '9'; i++ {
			}
			if i < len(s) && (s[i] == '.' || s[i]|0x20 == 'e') {
				return -1
			}
		case begins(s[i:], "true"), begins(s[i:], "null"):
			i += 4
		case begins(s[i:], "false"):
			i += 5
		default:
			return -1
		}
		// Behind a value: to the next one, or out of what ends here.
		for next := false; !next; {
			if open == 0 || i < 0 {
				return i
			}
			if i >= len(s) {
				return -1
			}
			object := objects&1 == 1
			switch c := s[i]; {
			case c == ',' && object:
				if i = plainName(s, i+1); i < 0 {
					return -1
				}
				next = true
			case c == ',':
				i++
				next = true
			case c == '}' && object, c == ']' && !object:
				i++
				open--
				objects >>= 1
			default:
				return -1
			}
		}
	}
}

// begins is bytes.HasPrefix, quicker for a prefix that the compiler knows.
func begins(s []byte, with string) bool {
	return len(s) >= len(with) && string(s[:len(with)]) == with
}

// plain returns the end of the string whose text begins at i, behind its quote.
// It is -1 if there are escapes in it or it is not good.
func plain(s []byte, i int) int {
	if i = toSpecial(s, i); i >= len(s) || s[i] != '"' {
		return -1
	}
	return i + 1
}

// toSpecial returns the first byte from i on that does not stand for itself in
// a string, or one of the last seven of s, which nobody has looked at.
func toSpecial(s []byte, i int) int {
	// The form of this loop matters: half of the time is spent in it.
	for ; uint(i)+8 <= uint(len(s)); i += 8 {
		if found := special(binary.LittleEndian.Uint64(s[i : i+8])); found != 0 {
			return i + bits.TrailingZeros64(found)/8
		}
	}
	return i
}

// plainName does so for a member's name, whose quote is at i, and goes on behind
// its colon.
func plainName(s []byte, i int) int {
	if i >= len(s) || s[i] != '"' {
		return -1
	}
	if i = plain(s, i+1); i < 0 || i >= len(s) || s[i] != ':' {
		return -1
	}
	return i + 1
}

// special has a bit set for bytes of w, read low byte first, that do not stand
// for themselves in a string: the highest bit of each quote, backslash and
// control character. Behind the first one there may be more that mean nothing.
//
// Turned by two, quotes are below 0x21 as control characters are, and no other
// byte is: one subtraction finds both.
func special(w uint64) uint64 {
	const low, high = 0x0101010101010101, 0x8080808080808080
	return (((w ^ 0x02*low) - 0x21*low) | ((w ^ '\\'*low) - low)) &^ w & high
}
