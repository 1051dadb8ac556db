package template

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Text is counted in Unicode characters.

func textFunctions() map[string]builtin {
	simple := func(f func(string) (any, error)) builtin {
		return builtin{least: 1, most: 1, makes: true, eval: func(_ *scope, a []any) (any, error) {
			t, err := text(a, 0)
			if err != nil {
				return nil, err
			}
			return f(t)
		}}
	}
	pair := func(f func(a, b string) any) builtin {
		return builtin{least: 2, most: 2, eval: func(_ *scope, args []any) (any, error) {
			a, err := text(args, 0)
			if err != nil {
				return nil, err
			}
			b, err := text(args, 1)
			if err != nil {
				return nil, err
			}
			return f(a, b), nil
		}}
	}
	return map[string]builtin{
		"tolower": simple(func(t string) (any, error) { return strings.ToLower(t), nil }),
		"toupper": simple(func(t string) (any, error) { return strings.ToUpper(t), nil }),
		"trim":    simple(func(t string) (any, error) { return strings.TrimSpace(t), nil }),
		"string": {least: 1, most: 1, makes: true, walks: true, eval: func(_ *scope, a []any) (any, error) {
			return display(a[0])
		}},
		"concat":    {least: 1, most: -1, makes: true, eval: concat},
		"format":    {least: 1, most: -1, makes: true, eval: format},
		"substring": {least: 2, most: 3, makes: true, eval: substring},
		"padleft":   {least: 2, most: 3, makes: true, eval: padLeft},
		"replace": {least: 3, most: 3, makes: true, eval: func(s *scope, a []any) (any, error) {
			t, err := text(a, 0)
			if err != nil {
				return nil, err
			}
			from, err := text(a, 1)
			if err != nil {
				return nil, err
			}
			to, err := text(a, 2)
			if err != nil {
				return nil, err
			}
			if from == "" {
				return nil, errors.New("the text to be replaced is empty")
			}
			if err := s.d.spend(strings.Count(t, from) * (len(to)/16 + 1)); err != nil {
				return nil, err
			}
			return strings.ReplaceAll(t, from, to), nil
		}},
		"split": {least: 2, most: 2, makes: true, eval: split},
		"join": {least: 2, most: 2, makes: true, eval: func(s *scope, a []any) (any, error) {
			list, err := items(a, 0)
			if err != nil {
				return nil, err
			}
			sep, err := text(a, 1)
			if err != nil {
				return nil, err
			}
			if err := s.d.spend(len(list) * (len(sep)/16 + 1)); err != nil {
				return nil, err
			}
			parts := make([]string, len(list))
			for i, v := range list {
				if parts[i], err = display(v); err != nil {
					return nil, err
				}
			}
			return strings.Join(parts, sep), nil
		}},
		"startswith": pair(func(a, b string) any { return strings.HasPrefix(strings.ToLower(a), strings.ToLower(b)) }),
		"endswith":   pair(func(a, b string) any { return strings.HasSuffix(strings.ToLower(a), strings.ToLower(b)) }),
		"uri":        {least: 2, most: 2, makes: true, eval: joinURI},
		"uricomponent": simple(func(t string) (any, error) {
			return strings.ReplaceAll(url.QueryEscape(t), "+", "%20"), nil
		}),
		"uricomponenttostring": simple(func(t string) (any, error) {
			u, err := url.PathUnescape(t)
			if err != nil || !utf8.ValidString(u) {
				return nil, errors.New("the text is not a URI component")
			}
			return u, nil
		}),
		"base64":         simple(func(t string) (any, error) { return base64.StdEncoding.EncodeToString([]byte(t)), nil }),
		"base64tostring": simple(func(t string) (any, error) { return fromBase64(t) }),
		"base64tojson": simple(func(t string) (any, error) {
			plain, err := fromBase64(t)
			if err != nil {
				return nil, err
			}
			return parseJSON(plain)
		}),
		"datauri": simple(func(t string) (any, error) {
			return "data:text/plain;charset=utf8;base64," + base64.StdEncoding.EncodeToString([]byte(t)), nil
		}),
		"datauritostring": simple(fromDataURI),
		"json":            simple(parseJSON),
	}
}

func parseJSON(t string) (any, error) {
	v, err := Decode([]byte(t))
	if err != nil {
		return nil, errors.New("the text is not JSON")
	}
	return v, nil
}

func fromBase64(t string) (string, error) {
	b, err := base64.StdEncoding.DecodeString(t)
	if err != nil {
		b, err = base64.RawStdEncoding.DecodeString(t)
	}
	if err != nil || !utf8.Valid(b) {
		return "", errors.New("the text is not base64 of a text")
	}
	return string(b), nil
}

func fromDataURI(t string) (any, error) {
	rest, ok := strings.CutPrefix(t, "data:")
	head, data, comma := strings.Cut(rest, ",")
	if !ok || !comma {
		return nil, errors.New("the text is not a data URI")
	}
	if strings.HasSuffix(head, ";base64") {
		return fromBase64(data)
	}
	plain, err := url.PathUnescape(data)
	if err != nil {
		return nil, errors.New("the text is not a data URI")
	}
	return plain, nil
}

// concat joins texts, or arrays.
func concat(_ *scope, args []any) (any, error) {
	if _, ok := args[0].([]any); ok {
		out := []any{}
		for i := range args {
			list, err := items(args, i)
			if err != nil {
				return nil, err
			}
			out = append(out, list...)
		}
		return out, nil
	}
	var b strings.Builder
	for _, a := range args {
		switch a.(type) {
		case []any, map[string]any, nil:
			return nil, wrongKind(a, "string")
		}
		t, err := display(a)
		if err != nil {
			return nil, err
		}
		b.WriteString(t)
	}
	return b.String(), nil
}

func substring(_ *scope, args []any) (any, error) {
	t, err := text(args, 0)
	if err != nil {
		return nil, err
	}
	runes := []rune(t)
	start, err := integer(args, 1)
	if err != nil {
		return nil, err
	}
	all := int64(len(runes))
	if start < 0 || start > all {
		return nil, fmt.Errorf("the start %d is outside of the text, which has %d characters", start, all)
	}
	n := all - start
	if len(args) == 3 {
		if n, err = integer(args, 2); err != nil {
			return nil, err
		}
	}
	if n < 0 || n > all-start {
		return nil, fmt.Errorf("the start %d and length %d must refer to a place within the text, which has %d characters", start, n, all)
	}
	return string(runes[start : start+n]), nil
}

func padLeft(_ *scope, args []any) (any, error) {
	t, err := display(args[0])
	if err != nil {
		return nil, err
	}
	width, err := integer(args, 1)
	if err != nil {
		return nil, err
	}
	pad := " "
	if len(args) == 3 {
		if pad, err = text(args, 2); err != nil {
			return nil, err
		}
	}
	if width < 0 || width > 16384 || utf8.RuneCountInString(pad) != 1 {
		return nil, errors.New("the width must be between 0 and 16384, and the padding one character")
	}
	return strings.Repeat(pad, max(0, int(width)-utf8.RuneCountInString(t))) + t, nil
}

// split cuts a text at one or several separators.
func split(s *scope, args []any) (any, error) {
	t, err := text(args, 0)
	if err != nil {
		return nil, err
	}
	var seps []string
	switch v := args[1].(type) {
	case string:
		seps = []string{v}
	case []any:
		for i := range v {
			sep, err := text(v, i)
			if err != nil {
				return nil, err
			}
			seps = append(seps, sep)
		}
	default:
		return nil, wrongKind(v, "string' or 'array")
	}
	if err := s.d.spend(len(t) / 16 * len(seps)); err != nil {
		return nil, err
	}
	out, start := []any{}, 0
	for at := 0; at < len(t); {
		cut := 0
		for _, sep := range seps {
			if sep != "" && strings.HasPrefix(t[at:], sep) {
				cut = len(sep)
				break
			}
		}
		if cut == 0 {
			at++
			continue
		}
		out = append(out, t[start:at])
		at += cut
		start = at
	}
	return append(out, t[start:]), nil
}

func joinURI(_ *scope, args []any) (any, error) {
	base, err := text(args, 0)
	if err != nil {
		return nil, err
	}
	rel, err := text(args, 1)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(base)
	if err != nil || !u.IsAbs() {
		return nil, errors.New("the base is not an absolute URI")
	}
	ref, err := url.Parse(rel)
	if err != nil {
		return nil, errors.New("the second argument is not a URI")
	}
	return u.ResolveReference(ref).String(), nil
}

// format fills in {0}, {1,10} and {2:D3}: what .NET's composite formatting
// has of it for text, integers and booleans.
func format(s *scope, args []any) (any, error) {
	pattern, err := text(args, 0)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	for i := 0; i < len(pattern); i++ {
		c := pattern[i]
		if (c == '{' || c == '}') && i+1 < len(pattern) && pattern[i+1] == c {
			b.WriteByte(c)
			i++
			continue
		}
		if c == '}' {
			return nil, errors.New("the format has a '}' without its '{'")
		}
		if c != '{' {
			b.WriteByte(c)
			continue
		}
		end := strings.IndexByte(pattern[i:], '}')
		if end < 0 {
			return nil, errors.New("the format has a '{' without its '}'")
		}
		item, err := formatItem(pattern[i+1:i+end], args[1:])
		if err != nil {
			return nil, err
		}
		if err := s.d.spend(len(item) / 16); err != nil {
			return nil, err
		}
		b.WriteString(item)
		i += end
	}
	return b.String(), nil
}

func formatItem(item string, args []any) (string, error) {
	item, spec, _ := strings.Cut(item, ":")
	number, width, aligned := strings.Cut(item, ",")
	n, err := strconv.Atoi(strings.TrimSpace(number))
	if err != nil || n < 0 || n >= len(args) {
		return "", fmt.Errorf("the format names the argument '%s', of which there is none", clip(number))
	}
	t, err := formatValue(args[n], spec)
	if err != nil || !aligned {
		return t, err
	}
	w, err := strconv.Atoi(strings.TrimSpace(width))
	if err != nil || w < -16384 || w > 16384 {
		return "", errors.New("the format has a malformed width")
	}
	pad := strings.Repeat(" ", max(0, max(w, -w)-utf8.RuneCountInString(t)))
	if w < 0 {
		return t + pad, nil
	}
	return pad + t, nil
}

func formatValue(v any, spec string) (string, error) {
	n, isInt := v.(int64)
	if spec == "" || !isInt {
		if _, number := v.(json.Number); number && spec != "" {
			return "", fmt.Errorf("the format '%s' is not supported", clip(spec))
		}
		return display(v)
	}
	digits := 0
	if len(spec) > 1 {
		var err error
		if digits, err = strconv.Atoi(spec[1:]); err != nil || digits < 0 || digits > 99 {
			return "", fmt.Errorf("the format '%s' is not supported", clip(spec))
		}
	}
	sign := ""
	if n < 0 {
		sign = "-"
	}
	plain := strings.TrimPrefix(strconv.FormatInt(n, 10), "-")
	switch spec[0] {
	case 'D', 'd', 'G', 'g':
		if spec[0] == 'G' || spec[0] == 'g' {
			digits = 0
		}
		return sign + strings.Repeat("0", max(0, digits-len(plain))) + plain, nil
	case 'X', 'x':
		hex := strconv.FormatUint(uint64(n), 16)
		hex = strings.Repeat("0", max(0, digits-len(hex))) + hex
		if spec[0] == 'X' {
			hex = strings.ToUpper(hex)
		}
		return hex, nil
	case 'N', 'n', 'F', 'f':
		if len(spec) == 1 {
			digits = 2
		}
		if spec[0] == 'N' || spec[0] == 'n' {
			for i := len(plain) - 3; i > 0; i -= 3 {
				plain = plain[:i] + "," + plain[i:]
			}
		}
		if digits > 0 {
			plain += "." + strings.Repeat("0", digits)
		}
		return sign + plain, nil
	}
	return "", fmt.Errorf("the format '%s' is not supported", clip(spec))
}
