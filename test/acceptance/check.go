package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// output is what a command wrote to standard output.
type output struct {
	text   string
	expand func(string) (string, error) // puts values in the place of ${name}
}

// check is one expectation of a command's output.
type check func(o output) error

// is expects a value at a path of the JSON.
func is(path string, want any) check {
	return func(o output) error {
		got, err := o.at(path)
		if err != nil {
			return err
		}
		w, err := o.wanted(want)
		if err != nil {
			return err
		}
		if !same(got, w) {
			return fmt.Errorf("%s is %s, not %s", path, brief(got), brief(w))
		}
		return nil
	}
}

// isFold is is for ids, which Azure compares without case.
func isFold(path, want string) check {
	return func(o output) error {
		got, err := o.at(path)
		if err != nil {
			return err
		}
		w, err := o.expand(want)
		if err != nil {
			return err
		}
		if s, ok := got.(string); !ok || !strings.EqualFold(s, w) {
			return fmt.Errorf("%s is %s, not %q", path, brief(got), w)
		}
		return nil
	}
}

// like expects a text at a path that matches a pattern.
func like(path, pattern string) check {
	re := regexp.MustCompile(pattern)
	return func(o output) error {
		got, err := o.at(path)
		if err != nil {
			return err
		}
		if s := plain(got); !re.MatchString(s) {
			return fmt.Errorf("%s is %s, which does not match %s", path, brief(got), pattern)
		}
		return nil
	}
}

// count expects a number of elements.
func count(path string, want int) check {
	return func(o output) error {
		got, err := o.at(path)
		if err != nil {
			return err
		}
		list, ok := got.([]any)
		if !ok || len(list) != want {
			return fmt.Errorf("%s has not %d elements: %s", orTop(path), want, brief(got))
		}
		return nil
	}
}

// has expects a list to have an element.
func has(path string, want any) check { return member(path, want, true) }

// lacks expects a list not to have it.
func lacks(path string, want any) check { return member(path, want, false) }

func member(path string, want any, there bool) check {
	return func(o output) error {
		got, err := o.at(path)
		if err != nil {
			return err
		}
		w, err := o.wanted(want)
		if err != nil {
			return err
		}
		list, ok := got.([]any)
		if !ok {
			return fmt.Errorf("%s is no list: %s", orTop(path), brief(got))
		}
		found := false
		for _, e := range list {
			found = found || same(e, w)
		}
		if found != there {
			return fmt.Errorf("%s has %s %s: %s", orTop(path), map[bool]string{true: "no", false: "still"}[there], brief(w), brief(got))
		}
		return nil
	}
}

// set expects a list of texts, in whatever order: az's own is that of its
// hash tables.
func set(path string, want ...string) check {
	return func(o output) error {
		got, err := o.at(path)
		if err != nil {
			return err
		}
		list, ok := got.([]any)
		if !ok || len(list) != len(want) {
			return fmt.Errorf("%s is %s, not the %d of %q", path, brief(got), len(want), want)
		}
		for _, w := range want {
			if !slices.Contains(list, any(w)) {
				return fmt.Errorf("%s has no %q: %s", path, w, brief(got))
			}
		}
		return nil
	}
}

// says expects standard output as a text, without the last line break.
func says(want string) check {
	return func(o output) error {
		w, err := o.expand(want)
		if err != nil {
			return err
		}
		if got := strings.TrimRight(o.text, "\r\n"); got != w {
			return fmt.Errorf("the output is %q, not %q", got, w)
		}
		return nil
	}
}

// contains expects a pattern somewhere in standard output.
func contains(pattern string) check {
	re := regexp.MustCompile(pattern)
	return func(o output) error {
		if !re.MatchString(o.text) {
			return fmt.Errorf("the output does not match %s", pattern)
		}
		return nil
	}
}

// omits expects a text not to be anywhere in standard output.
func omits(text string) check {
	return func(o output) error {
		w, err := o.expand(text)
		if err != nil {
			return err
		}
		if strings.Contains(o.text, w) {
			return fmt.Errorf("the output contains %s", text)
		}
		return nil
	}
}

// nothing expects empty standard output.
func nothing() check {
	return func(o output) error {
		if strings.TrimSpace(o.text) != "" {
			return fmt.Errorf("the output is not empty")
		}
		return nil
	}
}

func (o output) wanted(want any) (any, error) {
	if s, ok := want.(string); ok {
		return o.expand(s)
	}
	return want, nil
}

// at returns the value at a path into the JSON of the output: names and
// numbers of elements separated by dots; * stands for all elements of a list.
// The empty path is the whole.
func (o output) at(path string) (any, error) {
	var v any
	if err := json.Unmarshal([]byte(o.text), &v); err != nil {
		return nil, fmt.Errorf("the output is not JSON: %w", err)
	}
	return walk(v, path, path)
}

func walk(v any, path, whole string) (any, error) {
	if path == "" {
		return v, nil
	}
	step, rest, _ := strings.Cut(path, ".")
	switch t := v.(type) {
	case map[string]any:
		e, ok := t[step]
		if !ok {
			return nil, fmt.Errorf("%s is missing", whole)
		}
		return walk(e, rest, whole)
	case []any:
		if step == "*" {
			all := []any{}
			for _, e := range t {
				e, err := walk(e, rest, whole)
				if err != nil {
					return nil, err
				}
				all = append(all, e)
			}
			return all, nil
		}
		i, err := strconv.Atoi(step)
		if err != nil || i < 0 || i >= len(t) {
			return nil, fmt.Errorf("%s is missing: there are %d elements", whole, len(t))
		}
		return walk(t[i], rest, whole)
	}
	return nil, fmt.Errorf("%s is missing", whole)
}

// same compares a JSON value with a value of Go's.
func same(got, want any) bool {
	a, err1 := json.Marshal(got)
	b, err2 := json.Marshal(want)
	return err1 == nil && err2 == nil && string(a) == string(b)
}

// plain is a text as it is, anything else as JSON.
func plain(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	b, _ := json.Marshal(v)
	return string(b)
}

func brief(v any) string {
	b, _ := json.Marshal(v)
	if len(b) > 300 {
		return string(b[:300]) + "…"
	}
	return string(b)
}

func orTop(path string) string {
	if path == "" {
		return "the output"
	}
	return path
}
