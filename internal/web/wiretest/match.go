package wiretest

import (
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// values are the placeholders whose value is known.
type values map[string]string

var placeholder = regexp.MustCompile(`\{\{([a-zA-Z0-9_]+|\*)\}\}`)

// fill replaces the placeholders of a request.
func (v values) fill(s string) (string, error) {
	var unknown string
	s = placeholder.ReplaceAllStringFunc(s, func(p string) string {
		val, ok := v[p[2:len(p)-2]]
		if !ok {
			unknown = p
		}
		return val
	})
	if unknown != "" {
		return "", fmt.Errorf("%s has no value yet", unknown)
	}
	return s, nil
}

// match compares text with a pattern and captures what was unknown.
func (v values) match(pattern, got string) error {
	var re strings.Builder
	var names []string
	re.WriteString(`(?s)\A`)
	last := 0
	for _, loc := range placeholder.FindAllStringSubmatchIndex(pattern, -1) {
		re.WriteString(regexp.QuoteMeta(pattern[last:loc[0]]))
		last = loc[1]
		name := pattern[loc[2]:loc[3]]
		val, known := v[name]
		switch {
		case name == "*":
			re.WriteString(`.*?`)
		case known:
			re.WriteString(regexp.QuoteMeta(val))
		default:
			re.WriteString(`(.+?)`)
			names = append(names, name)
		}
	}
	re.WriteString(regexp.QuoteMeta(pattern[last:]))
	re.WriteString(`\z`)
	found := regexp.MustCompile(re.String()).FindStringSubmatch(got)
	if found == nil {
		return fmt.Errorf("%q, want %q", got, v.shown(pattern))
	}
	for i, name := range names {
		if old, twice := v[name]; twice && old != found[i+1] {
			return fmt.Errorf("{{%s}} is both %q and %q", name, old, found[i+1])
		}
		v[name] = found[i+1]
	}
	return nil
}

// shown is a pattern with its known values put in, for messages.
func (v values) shown(pattern string) string {
	return placeholder.ReplaceAllStringFunc(pattern, func(p string) string {
		if val, ok := v[p[2:len(p)-2]]; ok {
			return val
		}
		return p
	})
}

func (v values) compareBody(want, got string) []string {
	switch {
	case want == "{{*}}":
		return nil
	case want == "" && got != "":
		return []string{"there is a body, want none"}
	case want == "":
		return nil
	}
	wantValue, err := decode(want)
	if err != nil {
		if err := v.match(want, strings.Trim(got, "\n")); err != nil {
			return []string{"body: " + err.Error()}
		}
		return nil
	}
	gotValue, err := decode(got)
	if err != nil {
		return []string{"body is not JSON: " + err.Error()}
	}
	var problems []string
	v.compare("$", wantValue, gotValue, &problems)
	return problems
}

func decode(s string) (any, error) {
	d := json.NewDecoder(strings.NewReader(s))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("text after the value")
	}
	return v, nil
}

const more = "..."

// compare descends into both values. Members are visited in order of name,
// so that which of two sights of a placeholder comes first does not vary.
func (v values) compare(at string, want, got any, problems *[]string) {
	report := func(format string, args ...any) {
		*problems = append(*problems, at+": "+fmt.Sprintf(format, args...))
	}
	switch want := want.(type) {
	case map[string]any:
		obj, ok := got.(map[string]any)
		if !ok {
			report("%s, want an object", text(got))
			return
		}
		v.compareObject(at, want, obj, report, problems)
	case []any:
		arr, ok := got.([]any)
		if !ok {
			report("%s, want an array", text(got))
			return
		}
		open := len(want) > 0 && want[len(want)-1] == more
		if open {
			want = want[:len(want)-1]
		}
		if len(arr) < len(want) || !open && len(arr) > len(want) {
			report("%d elements, want %d", len(arr), len(want))
			return
		}
		for i := range want {
			v.compare(fmt.Sprintf("%s[%d]", at, i), want[i], arr[i], problems)
		}
	case string:
		s, ok := got.(string)
		if !ok {
			if placeholder.FindString(want) != want {
				report("%s, want %q", text(got), want)
				return
			}
			s = text(got)
		}
		if err := v.match(want, s); err != nil {
			report("%v", err)
		}
	default: // a number, true, false or null
		if text(got) != text(want) {
			report("%s, want %s", text(got), text(want))
		}
	}
}

func (v values) compareObject(at string, want, got map[string]any, report func(string, ...any), problems *[]string) {
	_, open := want[more]
	for _, name := range sortedKeys(want) {
		if name == more {
			continue
		}
		val, ok := got[name]
		if !ok {
			report("no member %q", name)
			continue
		}
		v.compare(at+"."+name, want[name], val, problems)
	}
	for _, name := range sortedKeys(got) {
		if _, ok := want[name]; !ok && !open {
			report("member %q = %s is not wanted", name, text(got[name]))
		}
	}
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// text is a value as JSON.
func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}
