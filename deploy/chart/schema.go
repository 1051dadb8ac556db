package chart

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// schema is the part of JSON Schema that values.schema.json uses. Helm checks
// the same file by itself.
type schema struct {
	Type                 string            `json:"type"`
	Enum                 []string          `json:"enum"`
	Properties           map[string]schema `json:"properties"`
	AdditionalProperties *bool             `json:"additionalProperties"`
	Minimum              *float64          `json:"minimum"`
}

// check returns what is wrong with a value. at is its path.
func (s schema) check(at string, v any) (problems []error) {
	wrong := func(format string, args ...any) []error {
		return append(problems, fmt.Errorf("%s "+format, append([]any{strings.TrimPrefix(at, ".")}, args...)...))
	}
	switch v := v.(type) {
	case map[string]any:
		if s.Type != "object" {
			return wrong("must be of type %s", s.Type)
		}
		for _, k := range slices.Sorted(maps.Keys(v)) {
			if p, known := s.Properties[k]; known {
				problems = append(problems, p.check(at+"."+k, v[k])...)
			} else if s.AdditionalProperties != nil && !*s.AdditionalProperties {
				problems = append(problems, fmt.Errorf("%s is not a value of this chart; here there are: %s",
					strings.TrimPrefix(at+"."+k, "."), strings.Join(slices.Sorted(maps.Keys(s.Properties)), ", ")))
			}
		}
	case []any:
		if s.Type != "array" {
			return wrong("must be of type %s", s.Type)
		}
	case string:
		if s.Type != "string" {
			return wrong("must be of type %s", s.Type)
		}
		if s.Enum != nil && !slices.Contains(s.Enum, v) {
			return wrong("must be one of: %s", strings.Join(s.Enum, ", "))
		}
	case bool:
		if s.Type != "boolean" {
			return wrong("must be of type %s", s.Type)
		}
	case float64:
		if s.Type != "integer" || v != float64(int64(v)) {
			return wrong("must be of type %s", s.Type)
		}
		if s.Minimum != nil && v < *s.Minimum {
			return wrong("must be at least %v", *s.Minimum)
		}
	}
	return problems
}
