package admission

import (
	"bytes"
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth is far beyond any pod and bounds the stack.
const maxDepth = 256

// reader walks over a JSON text once and hands out what is asked for; the rest
// it checks and passes over. A pod of hundreds of kilobytes has a few hundred
// bytes that matter here, and encoding/json, which goes over them twice and
// again for every RawMessage, would alone exceed the time that an admission
// may take.
//
// It is strict: keys are compared exactly, as Kubernetes does, and no member
// that is read may occur twice. null is the same as absent. After the first
// error every method returns the zero value, and err tells.
//
// Names and texts that it hands out as bytes are parts of the whole and good as
// long as that; strings are copies.
type reader struct {
	s     []byte
	i     int
	depth int
	keys  []span // names read in the open objects, innermost last
	odd   bool   // there was a name with escapes in it
	err   error

	variables *names // of containers, that are kept
}

// span is a part of the text: a name as it is written there. No pointers, for
// there are many of them, and they come and go.
type span struct{ from, to int }

func (r *reader) fail(format string, args ...any) { r.failAt(r.i, format, args...) }

func (r *reader) failAt(at int, format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%s: %s", where(r.s[:at]), fmt.Sprintf(format, args...))
	}
	r.i = len(r.s)
}

// peek is the next byte that is not white space, 0 at the end and after an
// error. There is hardly any white space in what API servers send.
func (r *reader) peek() byte {
	if r.i < len(r.s) && r.s[r.i] > ' ' {
		return r.s[r.i]
	}
	return r.pastSpace()
}

func (r *reader) pastSpace() byte {
	for r.i < len(r.s) {
		switch c := r.s[r.i]; c {
		case ' ', '\t', '\n', '\r':
			r.i++
		default:
			return c
		}
	}
	return 0
}

// unexpected fails because what is next is not what belongs there.
func (r *reader) unexpected(want string) {
	switch c := r.peek(); {
	case r.err != nil:
	case r.i >= len(r.s):
		r.fail("the text ends where %s belongs", want)
	case c == '{':
		r.fail("an object where %s belongs", want)
	case c == '[':
		r.fail("an array where %s belongs", want)
	case c == '"':
		r.fail("a string where %s belongs", want)
	case c == 'n':
		r.fail("null where %s belongs", want)
	case c == 't' || c == 'f':
		r.fail("a boolean where %s belongs", want)
	case c == '-' || c >= '0' && c <= '9':
		r.fail("a number where %s belongs", want)
	default:
		r.fail("not JSON: %q at byte %d", c, r.i)
	}
}

// null passes over a null.
func (r *reader) null() bool {
	if r.peek() == 'n' {
		r.literal("null")
		return true
	}
	return false
}

func (r *reader) literal(word string) {
	if len(r.s)-r.i < len(word) || string(r.s[r.i:r.i+len(word)]) != word {
		r.fail("not JSON: %q at byte %d", r.s[r.i], r.i)
		return
	}
	r.i += len(word)
}

// enter passes an opening bracket.
func (r *reader) enter(bracket byte, want string) bool {
	switch {
	case r.peek() == bracket:
		return r.deeper()
	case r.err == nil && !r.null():
		r.unexpected(want)
	}
	return false
}

func (r *reader) deeper() bool {
	r.i++
	if r.depth++; r.depth > maxDepth {
		r.fail("nested more than %d deep", maxDepth)
		return false
	}
	return true
}

// more passes what follows an element: a comma, or the closing bracket.
func (r *reader) more(closing byte) bool {
	switch c := r.peek(); {
	case c == ',':
		r.i++
		return true
	case c == closing:
		r.i++
		r.depth--
	case r.err != nil:
	case r.i >= len(r.s):
		r.fail("the text ends inside")
	default:
		r.fail("not JSON: %q at byte %d", c, r.i)
	}
	return false
}

// members yields the names of an object's members. The body of the loop reads
// the value; one that it does not read is passed over.
func (r *reader) members(yield func([]byte) bool) {
	if !r.enter('{', "an object") {
		return
	}
	if r.peek() == '}' {
		r.more('}')
		return
	}
	base := len(r.keys)
	var seen map[string]bool // for objects of many members
	for {
		key, at := r.name()
		if r.err != nil {
			return
		}
		start := r.i
		if more := yield(key); r.err != nil || !more {
			return
		}
		if r.i == start {
			r.skip()
		} else {
			if r.duplicate(key, base, &seen) {
				r.failAt(at.from-1, "%q occurs twice", clip(string(key)))
			}
			r.keys = append(r.keys, at)
		}
		if r.err != nil {
			return
		}
		if !r.more('}') {
			r.keys = r.keys[:base]
			return
		}
	}
}

// name reads a member's name and its colon, up to the value.
func (r *reader) name() ([]byte, span) {
	if r.peek() != '"' {
		r.unexpected("a name")
		return nil, span{}
	}
	from := r.i + 1
	if end := plainName(r.s, r.i); end >= 0 {
		r.i = end
		r.peek()
		return r.s[from : end-2], span{from, end - 2}
	}
	key := r.quoted()
	at := span{from, r.i - 1}
	r.odd = r.odd || len(key) != at.to-at.from
	if r.peek() != ':' {
		r.unexpected("a colon")
		return nil, span{}
	}
	r.i++
	r.peek()
	return key, at
}

// was is a name that was read, without its escapes.
func (r *reader) was(at span) []byte {
	s := r.s[at.from:at.to]
	if bytes.IndexByte(s, '\\') < 0 {
		return s
	}
	again := reader{s: r.s, i: at.from - 1}
	return again.quoted()
}

func (r *reader) duplicate(key []byte, base int, seen *map[string]bool) bool {
	names := r.keys[base:]
	if len(names) < 32 {
		for _, k := range names {
			// As long, or longer by what escapes add.
			n := k.to - k.from
			if n == len(key) && bytes.Equal(r.s[k.from:k.to], key) || r.odd && n > len(key) && bytes.Equal(r.was(k), key) {
				return true
			}
		}
		return false
	}
	if *seen == nil {
		*seen = make(map[string]bool, 64)
		for _, k := range names {
			(*seen)[string(r.was(k))] = true
		}
	}
	if (*seen)[string(key)] {
		return true
	}
	(*seen)[string(key)] = true
	return false
}

// elements yields the indices of an array, as members does the names. Its
// elements are objects, everywhere that it is used: a null would be one that
// nothing can be added to.
func (r *reader) elements(yield func(int) bool) {
	if !r.enter('[', "an array") {
		return
	}
	if r.peek() == ']' {
		r.more(']')
		return
	}
	for i := 0; ; i++ {
		if r.peek() != '{' {
			r.unexpected("an object")
			return
		}
		start := r.i
		if more := yield(i); r.err != nil || !more {
			return
		}
		if r.i == start {
			r.skip()
		}
		if !r.more(']') {
			return
		}
	}
}

// text reads a string.
func (r *reader) text() string { return string(r.bytes()) }

// bytes reads a string without copying it, if there are no escapes in it.
func (r *reader) bytes() []byte {
	switch {
	case r.peek() == '"':
		return r.quoted()
	case r.err == nil && !r.null():
		r.unexpected("a string")
	}
	return nil
}

// boolean reads true or false.
func (r *reader) boolean() bool {
	if r.err != nil || r.null() {
		return false
	}
	switch r.peek() {
	case 't':
		r.literal("true")
		return r.err == nil
	case 'f':
		r.literal("false")
	default:
		r.unexpected("a boolean")
	}
	return false
}

// raw passes over a value and returns its text, nil for null.
func (r *reader) raw() []byte {
	if r.err != nil || r.null() {
		return nil
	}
	r.peek()
	start := r.i
	r.skip()
	if r.err != nil {
		return nil
	}
	return r.s[start:r.i]
}

// skip passes over a value.
func (r *reader) skip() {
	if r.depth <= maxDepth-maxQuick {
		if r.peek(); r.err == nil {
			if end := quickly(r.s, r.i); end >= 0 {
				r.i = end
				return
			}
		}
	}
	r.pass()
}

// pass is skip for any text; what is wrong with it is found here.
func (r *reader) pass() {
	switch c := r.peek(); {
	case c == '"':
		r.passString()
	case c == '{':
		if !r.deeper() {
			return
		}
		if r.peek() == '}' {
			r.more('}')
			return
		}
		for ok := true; ok; ok = r.more('}') {
			if r.peek() != '"' {
				r.unexpected("a name")
				return
			}
			r.passString()
			if r.peek() != ':' {
				r.unexpected("a colon")
				return
			}
			r.i++
			r.pass()
		}
	case c == '[':
		if !r.deeper() {
			return
		}
		if r.peek() == ']' {
			r.more(']')
			return
		}
		for ok := true; ok; ok = r.more(']') {
			r.pass()
		}
	case c == 't':
		r.literal("true")
	case c == 'f':
		r.literal("false")
	case c == 'n':
		r.literal("null")
	case c == '-' || c >= '0' && c <= '9':
		r.number()
	default: // also after an error, which stays
		r.unexpected("a value")
	}
}

func (r *reader) number() {
	start := r.i
	if r.s[r.i] == '-' {
		r.i++
	}
	if r.i < len(r.s) && r.s[r.i] == '0' {
		r.i++
	} else if !r.digits() {
		r.fail("not JSON: a number without digits at byte %d", start)
		return
	}
	if r.i < len(r.s) && r.s[r.i] == '.' {
		if r.i++; !r.digits() {
			r.fail("not JSON: a number without digits at byte %d", start)
			return
		}
	}
	if r.i < len(r.s) && (r.s[r.i] == 'e' || r.s[r.i] == 'E') {
		if r.i++; r.i < len(r.s) && (r.s[r.i] == '+' || r.s[r.i] == '-') {
			r.i++
		}
		if !r.digits() {
			r.fail("not JSON: a number without digits at byte %d", start)
		}
	}
}

func (r *reader) digits() bool {
	start := r.i
	for r.i < len(r.s) && r.s[r.i] >= '0' && r.s[r.i] <= '9' {
		r.i++
	}
	return r.i > start
}

// passString passes over a string and returns its text between the quotes, and
// whether there are escapes in it. The next byte must be a quote.
func (r *reader) passString() (body []byte, escaped bool) {
	s, start := r.s, r.i+1
	for i := start; ; {
		i = toSpecial(s, i)
		for i < len(s) && s[i] >= ' ' && s[i] != '"' && s[i] != '\\' {
			i++
		}
		switch {
		case i >= len(s):
			r.fail("the text ends inside a string")
			return nil, false
		case s[i] == '"':
			r.i = i + 1
			return s[start:i], escaped
		case s[i] != '\\':
			r.fail("not JSON: a control character inside a string at byte %d", i)
			return nil, false
		}
		n := escape(s[i:])
		if n == 0 {
			r.fail("not JSON: an unknown escape at byte %d", i)
			return nil, false
		}
		escaped = true
		i += n
	}
}

// escape is the length of the escape that s begins with, 0 if it is none.
func escape(s []byte) int {
	if len(s) < 2 {
		return 0
	}
	switch s[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if len(s) >= 6 {
			if _, err := strconv.ParseUint(string(s[2:6]), 16, 16); err == nil {
				return 6
			}
		}
	}
	return 0
}

// quoted reads a string, whose quote must be next. It is a part of the whole
// text unless there are escapes in it.
func (r *reader) quoted() []byte {
	body, escaped := r.passString()
	if !escaped {
		return body
	}
	b := make([]byte, 0, len(body))
	for i := 0; i < len(body); {
		if body[i] != '\\' {
			b = append(b, body[i])
			i++
			continue
		}
		switch body[i+1] {
		case 'b':
			b = append(b, '\b')
		case 'f':
			b = append(b, '\f')
		case 'n':
			b = append(b, '\n')
		case 'r':
			b = append(b, '\r')
		case 't':
			b = append(b, '\t')
		case 'u':
			c := unit(body[i:])
			i += 6
			if utf16.IsSurrogate(c) {
				// A half without its other half becomes U+FFFD alone.
				if c = utf16.DecodeRune(c, unit(body[i:])); c != utf8.RuneError {
					i += 6
				}
			}
			b = utf8.AppendRune(b, c)
			continue
		default:
			b = append(b, body[i+1])
		}
		i += 2
	}
	return b
}

// unit is the number in the \u escape that s begins with, -1 if there is none.
func unit(s []byte) rune {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return -1
	}
	n, err := strconv.ParseUint(string(s[2:6]), 16, 16)
	if err != nil {
		return -1
	}
	return rune(n)
}

// end fails if there is more than white space left.
func (r *reader) end() {
	if r.peek(); r.err == nil && r.i < len(r.s) {
		r.fail("not JSON: more text after the end, at byte %d", r.i)
	}
}
