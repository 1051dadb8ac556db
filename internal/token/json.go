package token

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// Limits of the JSON that we read from tokens and foreign documents.
const (
	maxDepth   = 32  // of nested objects and arrays
	maxMembers = 256 // of one object; they are compared with each other
)

// members calls visit for each member of the JSON object that data is, in
// order, with its decoded name and its raw value. Unlike encoding/json it is
// strict, because two readers of a token must never see two things in it:
// names are matched as they are written, a name that is repeated (however it
// is escaped) in any object at any depth is refused, and so are text that is
// not UTF-8, lone surrogates, and anything after the object.
func members(data []byte, visit func(name, value []byte) error) error {
	s := scanner{data: data}
	s.blank()
	if err := s.object(visit); err != nil {
		return err
	}
	s.blank()
	if s.pos != len(data) {
		return errTrailing
	}
	return nil
}

var (
	errJSON      = errors.New("not valid JSON")
	errTrailing  = errors.New("text after the JSON object")
	errRepeated  = errors.New("a member is repeated")
	errDeep      = errors.New("nested too deeply")
	errMany      = errors.New("too many members")
	errText      = errors.New("text is not valid Unicode")
	errNotString = errors.New("not a string")
	errNotList   = errors.New("not a list of strings")
	errNotTime   = errors.New("not a time in seconds")
)

// scanner walks over JSON text. Each method consumes one construct.
type scanner struct {
	data  []byte
	pos   int
	depth int
}

func (s *scanner) peek() byte {
	if s.pos < len(s.data) {
		return s.data[s.pos]
	}
	return 0 // never valid where a token may begin
}

func (s *scanner) blank() {
	for s.pos < len(s.data) {
		switch s.data[s.pos] {
		case ' ', '\t', '\r', '\n':
			s.pos++
		default:
			return
		}
	}
}

func (s *scanner) take(c byte) bool {
	if s.peek() != c {
		return false
	}
	s.pos++
	return true
}

// object consumes an object; visit may be nil.
func (s *scanner) object(visit func(name, value []byte) error) error {
	if !s.take('{') {
		return errJSON
	}
	if s.depth++; s.depth > maxDepth {
		return errDeep
	}
	s.blank()
	if s.take('}') {
		s.depth--
		return nil
	}
	var room [24][]byte
	names := room[:0]
	for {
		raw, err := s.str()
		if err != nil {
			return err
		}
		name, err := unquote(raw)
		if err != nil {
			return err
		}
		for _, n := range names {
			if bytes.Equal(n, name) {
				return errRepeated
			}
		}
		if len(names) == maxMembers {
			return errMany
		}
		names = append(names, name)
		s.blank()
		if !s.take(':') {
			return errJSON
		}
		s.blank()
		start := s.pos
		if err := s.value(); err != nil {
			return err
		}
		if visit != nil {
			if err := visit(name, s.data[start:s.pos]); err != nil {
				return err
			}
		}
		s.blank()
		if s.take('}') {
			s.depth--
			return nil
		}
		if !s.take(',') {
			return errJSON
		}
		s.blank()
	}
}

// array consumes an array and calls visit, which may be nil, for each raw
// element.
func (s *scanner) array(visit func(value []byte) error) error {
	if !s.take('[') {
		return errJSON
	}
	if s.depth++; s.depth > maxDepth {
		return errDeep
	}
	s.blank()
	if s.take(']') {
		s.depth--
		return nil
	}
	for {
		start := s.pos
		if err := s.value(); err != nil {
			return err
		}
		if visit != nil {
			if err := visit(s.data[start:s.pos]); err != nil {
				return err
			}
		}
		s.blank()
		if s.take(']') {
			s.depth--
			return nil
		}
		if !s.take(',') {
			return errJSON
		}
		s.blank()
	}
}

func (s *scanner) value() error {
	switch c := s.peek(); {
	case c == '{':
		return s.object(nil)
	case c == '[':
		return s.array(nil)
	case c == '"':
		raw, err := s.str()
		if err != nil {
			return err
		}
		return checkText(raw)
	case c == '-' || isDigit(c):
		return s.number()
	default:
		for _, word := range [...]string{"true", "false", "null"} {
			if bytes.HasPrefix(s.data[s.pos:], []byte(word)) {
				s.pos += len(word)
				return nil
			}
		}
		return errJSON
	}
}

// str consumes a string and returns it with its quotes. It checks where it
// ends; [unquote] and [checkText] check what is inside.
func (s *scanner) str() ([]byte, error) {
	start := s.pos
	if !s.take('"') {
		return nil, errJSON
	}
	for s.pos < len(s.data) {
		switch c := s.data[s.pos]; {
		case c == '"':
			s.pos++
			return s.data[start:s.pos], nil
		case c == '\\':
			s.pos += 2
		case c < ' ':
			return nil, errJSON
		default:
			s.pos++
		}
	}
	return nil, errJSON
}

func (s *scanner) number() error {
	s.take('-')
	if !s.take('0') && !s.digits() {
		return errJSON
	}
	if s.take('.') && !s.digits() {
		return errJSON
	}
	if s.take('e') || s.take('E') {
		if !s.take('+') {
			s.take('-')
		}
		if !s.digits() {
			return errJSON
		}
	}
	return nil
}

func (s *scanner) digits() bool {
	start := s.pos
	for isDigit(s.peek()) {
		s.pos++
	}
	return s.pos > start
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// checkText is unquote for those who do not want the result.
func checkText(raw []byte) error {
	if bytes.IndexByte(raw, '\\') < 0 {
		if !utf8.Valid(raw) {
			return errText
		}
		return nil
	}
	_, err := unquote(raw)
	return err
}

// unquote decodes a string that str returned. The result is a part of raw if
// there is nothing to decode.
func unquote(raw []byte) ([]byte, error) {
	in := raw[1 : len(raw)-1]
	if !utf8.Valid(in) {
		return nil, errText
	}
	if bytes.IndexByte(in, '\\') < 0 {
		return in, nil
	}
	out := make([]byte, 0, len(in))
	for i := 0; i < len(in); {
		c := in[i]
		if c != '\\' {
			out = append(out, c)
			i++
			continue
		}
		i += 2 // str saw to it that there is a character after the backslash
		switch e := in[i-1]; e {
		case '"', '\\', '/':
			out = append(out, e)
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r, ok := hex4(in[i:])
			if !ok {
				return nil, errJSON
			}
			i += 4
			if utf16.IsSurrogate(r) {
				if i+2 > len(in) || in[i] != '\\' || in[i+1] != 'u' {
					return nil, errText
				}
				low, ok := hex4(in[i+2:])
				if r = utf16.DecodeRune(r, low); !ok || r == utf8.RuneError {
					return nil, errText
				}
				i += 6
			}
			out = utf8.AppendRune(out, r)
		default:
			return nil, errJSON
		}
	}
	return out, nil
}

// hex4 reads four hexadecimal digits.
func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	var v [2]byte
	for i := range 4 {
		var d byte
		switch c := b[i]; {
		case isDigit(c):
			d = c - '0'
		case 'a' <= c && c <= 'f':
			d = c - 'a' + 10
		case 'A' <= c && c <= 'F':
			d = c - 'A' + 10
		default:
			return 0, false
		}
		v[i/2] = v[i/2]<<4 | d
	}
	return rune(binary.BigEndian.Uint16(v[:])), true
}

// stringValue decodes a member's raw value that must be a string.
func stringValue(raw []byte) (string, error) {
	if raw[0] != '"' {
		return "", errNotString
	}
	text, err := unquote(raw)
	return string(text), err
}

// stringList decodes a raw value that must be an array of strings.
func stringList(raw []byte) ([]string, error) {
	if raw[0] != '[' {
		return nil, errNotList
	}
	list := []string{}
	s := scanner{data: raw}
	err := s.array(func(value []byte) error {
		v, err := stringValue(value)
		list = append(list, v)
		return err
	})
	if err != nil {
		return nil, errNotList
	}
	return list, nil
}

// seconds decodes a raw value that must be a time in Unix seconds: a number
// from 0 to the end of the year 9999. A fraction, which RFC 7519 permits, is
// dropped.
func seconds(raw []byte) (int64, error) {
	const last = 253402300799
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil {
		if raw[0] == '"' {
			return 0, errNotTime
		}
		f, err := strconv.ParseFloat(string(raw), 64)
		if err != nil || !(f >= 0 && f <= last) {
			return 0, errNotTime
		}
		n = int64(math.Floor(f))
	}
	if n < 0 || n > last {
		return 0, errNotTime
	}
	return n, nil
}
