package template

import (
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Decode reads a JSON document as the clients of Azure Resource Manager send
// it: az pastes the text of a template file, as it is, into a body whose key
// before it has no quotes. So comments, keys without quotes, line breaks in
// strings and a comma after the last item are accepted, as Azure accepts them. Two members of
// one object with the same name are refused, and so is text after the document.
//
// The result is made of nil, bool, int64, json.Number (for numbers that are
// not 64-bit integers), string, []any and map[string]any. Errors never quote
// the document: it may hold secrets.
func Decode(text []byte) (any, error) {
	d := decoder{s: string(text)}
	if !utf8.ValidString(d.s) {
		return nil, &Error{Line: 1, Column: 1, Message: "The text is not valid UTF-8."}
	}
	d.s = strings.TrimPrefix(d.s, "\ufeff")
	v, err := d.value(0)
	if err != nil {
		return nil, err
	}
	if err := d.space(); err != nil {
		return nil, err
	}
	if d.at < len(d.s) {
		return nil, d.fail("There is text after the end of the document.")
	}
	return v, nil
}

// DecodeObject is [Decode] for a document that must be an object.
func DecodeObject(text []byte) (map[string]any, error) {
	v, err := Decode(text)
	if err != nil {
		return nil, err
	}
	o, ok := v.(map[string]any)
	if !ok {
		return nil, &Error{Line: 1, Column: 1, Message: "The document is not an object."}
	}
	return o, nil
}

type decoder struct {
	s  string
	at int
}

func (d *decoder) fail(message string) error {
	before := d.s[:min(d.at, len(d.s))]
	line := 1 + strings.Count(before, "\n")
	column := 1 + utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:])
	return &Error{Line: line, Column: column, Message: message}
}

// space passes white space and comments.
func (d *decoder) space() error {
	for d.at < len(d.s) {
		switch c := d.s[d.at]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			d.at++
		case strings.HasPrefix(d.s[d.at:], "\u00a0"):
			d.at += len("\u00a0")
		case strings.HasPrefix(d.s[d.at:], "\ufeff"): // of a file that was pasted in
			d.at += len("\ufeff")
		case strings.HasPrefix(d.s[d.at:], "//"):
			n := strings.IndexAny(d.s[d.at:], "\r\n")
			if n < 0 {
				n = len(d.s) - d.at
			}
			d.at += n
		case strings.HasPrefix(d.s[d.at:], "/*"):
			n := strings.Index(d.s[d.at+2:], "*/")
			if n < 0 {
				return d.fail("A comment has no end.")
			}
			d.at += n + 4
		default:
			return nil
		}
	}
	return nil
}

// next passes space and returns the byte that follows, 0 at the end.
func (d *decoder) next() (byte, error) {
	if err := d.space(); err != nil {
		return 0, err
	}
	if d.at == len(d.s) {
		return 0, d.fail("The document ends too early.")
	}
	return d.s[d.at], nil
}

func (d *decoder) value(depth int) (any, error) {
	c, err := d.next()
	if err != nil {
		return nil, err
	}
	switch {
	case depth > maxDepth:
		return nil, d.fail("Objects and arrays are nested too deeply.")
	case c == '{':
		return d.object(depth)
	case c == '[':
		return d.array(depth)
	case c == '"' || c == '\'':
		return d.text(c)
	case c == '-' || c >= '0' && c <= '9':
		return d.number()
	}
	word := d.word()
	switch word {
	case "true":
		return true, nil
	case "false":
		return false, nil
	case "null":
		return nil, nil
	}
	d.at -= len(word)
	return nil, d.fail("A value is expected here.")
}

func (d *decoder) object(depth int) (any, error) {
	d.at++
	out := map[string]any{}
	for {
		c, err := d.next()
		if err != nil {
			return nil, err
		}
		if c == '}' {
			d.at++
			return out, nil
		}
		start := d.at
		var key string
		if c == '"' || c == '\'' {
			if key, err = d.text(c); err != nil {
				return nil, err
			}
		} else if key = d.word(); key == "" {
			return nil, d.fail("The name of a member is expected here.")
		}
		if _, twice := out[key]; twice {
			d.at = start
			return nil, d.fail("An object has two members with the same name.")
		}
		if c, err = d.next(); err != nil {
			return nil, err
		}
		if c != ':' {
			return nil, d.fail("A colon is expected after the name of a member.")
		}
		d.at++
		v, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		out[key] = v
		if err := d.comma('}'); err != nil {
			return nil, err
		}
	}
}

func (d *decoder) array(depth int) (any, error) {
	d.at++
	out := []any{}
	for {
		c, err := d.next()
		if err != nil {
			return nil, err
		}
		if c == ']' {
			d.at++
			return out, nil
		}
		v, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
		if err := d.comma(']'); err != nil {
			return nil, err
		}
	}
}

// comma passes the comma between two items; the end may follow instead.
func (d *decoder) comma(end byte) error {
	c, err := d.next()
	switch {
	case err != nil:
		return err
	case c == ',':
		d.at++
	case c != end:
		return d.fail("A comma or the end of the object or array is expected here.")
	}
	return nil
}

// word is a run of letters, digits, '_' and '$'.
func (d *decoder) word() string {
	start := d.at
	for d.at < len(d.s) && isWord(d.s[d.at]) {
		d.at++
	}
	return d.s[start:d.at]
}

func isWord(c byte) bool {
	return c == '_' || c == '$' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

func (d *decoder) number() (any, error) {
	start := d.at
	for d.at < len(d.s) && strings.IndexByte("+-.0123456789eE", d.s[d.at]) >= 0 {
		d.at++
	}
	s := d.s[start:d.at]
	if !json.Valid([]byte(s)) {
		d.at = start
		return nil, d.fail("The number is malformed.")
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n, nil
	}
	return json.Number(s), nil
}

// text reads a string. Line breaks in it stand for themselves.
func (d *decoder) text(quote byte) (string, error) {
	start := d.at
	d.at++
	var b strings.Builder
	for d.at < len(d.s) {
		c := d.s[d.at]
		switch {
		case c == quote:
			d.at++
			return b.String(), nil
		case c == '\\':
			r, err := d.escape()
			if err != nil {
				return "", err
			}
			b.WriteRune(r)
		default:
			b.WriteByte(c)
			d.at++
		}
	}
	d.at = start
	return "", d.fail("A string has no end.")
}

// escape reads a backslash and what it stands for.
func (d *decoder) escape() (rune, error) {
	const letters, meaning = `"'\/bfnrt`, "\"'\\/\b\f\n\r\t"
	if d.at+1 < len(d.s) {
		if i := strings.IndexByte(letters, d.s[d.at+1]); i >= 0 {
			d.at += 2
			return rune(meaning[i]), nil
		}
	}
	r, ok := d.hex()
	if ok && utf16.IsSurrogate(r) {
		low, second := d.hex()
		r = utf16.DecodeRune(r, low)
		ok = second && r != utf8.RuneError
	}
	if !ok {
		return 0, d.fail("A string has an unknown or broken escape.")
	}
	return r, nil
}

// hex reads \uXXXX.
func (d *decoder) hex() (rune, bool) {
	if !strings.HasPrefix(d.s[d.at:], `\u`) || d.at+6 > len(d.s) {
		return 0, false
	}
	n, err := strconv.ParseUint(d.s[d.at+2:d.at+6], 16, 16)
	if err != nil {
		return 0, false
	}
	d.at += 6
	return rune(n), true
}
