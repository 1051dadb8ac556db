package template

import (
	"encoding/json"
	"strings"
	"unicode/utf8"
)

// parameter is one that the template declares.
type parameter struct {
	path       string
	kind       string // string, int, bool, object, array, securestring, secureobject
	raw        map[string]any
	hasDefault bool
	defaultTo  any
}

func (p *parameter) secure() bool { return isSecure(p.kind) }

func isSecure(kind string) bool { return kind == "securestring" || kind == "secureobject" }

var typeMembers = []string{
	"type", "$ref", "metadata", "defaultValue", "allowedValues", "minLength", "maxLength", "minValue", "maxValue", "nullable",
	"properties", "additionalProperties", "items", "prefixItems", "discriminator", "sealed",
}

func (t *Template) loadParameters(root map[string]any, path string) error {
	t.parameters = map[string]*parameter{}
	all, err := section(root, path, "parameters", maxNamed)
	if err != nil {
		return err
	}
	path = member(path, "parameters")
	for _, name := range sorted(all) {
		at := member(path, name)
		raw, ok := all[name].(map[string]any)
		if !ok {
			return errorAt(at, "A parameter must be an object.")
		}
		if err := t.checkType(raw, at, 0); err != nil {
			return err
		}
		p := &parameter{path: at, raw: raw}
		if p.kind, err = t.typeName(raw, at); err != nil {
			return err
		}
		if p.defaultTo, p.hasDefault = lookup(raw, "defaultValue"); p.hasDefault {
			if err := t.parseAll(p.defaultTo, member(at, "defaultValue")); err != nil {
				return err
			}
		}
		t.parameters[name] = p
	}
	return nil
}

// checkType makes sure that a type is one that [Template.checkValue] knows.
func (t *Template) checkType(v any, path string, depth int) error {
	raw, ok := v.(map[string]any)
	if !ok {
		return errorAt(path, "A type must be an object.")
	}
	if depth > 16 {
		return errorAt(path, "The type is nested too deeply.")
	}
	if err := onlyMembers(raw, path, typeMembers); err != nil {
		return err
	}
	if _, err := t.typeName(raw, path); err != nil {
		return err
	}
	if list := get(raw, "allowedValues"); list != nil {
		if _, ok := list.([]any); !ok {
			return errorAt(path, "'allowedValues' must be a list.")
		}
	}
	for _, name := range []string{"minLength", "maxLength", "minValue", "maxValue"} {
		if n, has := lookup(raw, name); has {
			if _, ok := n.(int64); !ok {
				return errorAt(path, "'%s' must be an integer.", name)
			}
		}
	}
	props, err := section(raw, path, "properties", 1024)
	if err != nil {
		return err
	}
	for _, name := range sorted(props) {
		if err := t.checkType(props[name], member(member(path, "properties"), name), depth+1); err != nil {
			return err
		}
	}
	for _, name := range []string{"items", "additionalProperties"} {
		if more := get(raw, name); more != nil && more != false && more != true {
			if err := t.checkType(more, member(path, name), depth+1); err != nil {
				return err
			}
		}
	}
	list, err := array(raw, path, "prefixItems")
	for i, item := range list {
		if err := t.checkType(item, element(member(path, "prefixItems"), i), depth+1); err != nil {
			return err
		}
	}
	return err
}

// typeName is the name of a type, in lower case, with references followed.
func (t *Template) typeName(raw map[string]any, path string) (string, error) {
	resolved, err := t.resolve(raw, path)
	if err != nil {
		return "", err
	}
	name, _ := get(resolved, "type").(string)
	switch name := strings.ToLower(name); name {
	case "string", "int", "bool", "object", "array", "securestring", "secureobject":
		return name, nil
	case "":
		return "", errorAt(path, "The 'type' is missing.")
	}
	return "", errorAt(path, "The type '%s' is not known: it must be 'string', 'securestring', 'int', 'bool', 'object', 'secureobject' or 'array'.", clip(name))
}

// resolve follows $ref to the template's own definitions.
func (t *Template) resolve(raw map[string]any, path string) (map[string]any, error) {
	for range 16 {
		v, has := lookup(raw, "$ref")
		if !has {
			return raw, nil
		}
		ref, _ := v.(string)
		name, ok := strings.CutPrefix(ref, "#/definitions/")
		if !ok {
			return nil, errorAt(path, "The reference '%s' is not to a definition of the template.", clip(ref))
		}
		name = strings.NewReplacer("~1", "/", "~0", "~").Replace(name)
		next, ok := get(t.definitions, name).(map[string]any)
		if !ok {
			return nil, errorAt(path, "The type definition '%s' does not exist.", clip(name))
		}
		raw = next
	}
	return nil, errorAt(path, "The type refers to itself.")
}

// checkValue makes sure that a value is of a type. Messages name the place
// and the rule, not the value, which may be secret.
func (t *Template) checkValue(v any, raw map[string]any, path string, depth int) error {
	if depth > maxDepth {
		return errorAt(path, "The value is nested too deeply.")
	}
	if nullable, _ := get(raw, "nullable").(bool); nullable && v == nil {
		return nil
	}
	own := raw
	raw, err := t.resolve(raw, path)
	if err != nil {
		return err
	}
	if nullable, _ := get(raw, "nullable").(bool); nullable && v == nil {
		return nil
	}
	kind, err := t.typeName(raw, path)
	if err != nil {
		return err
	}
	if want, have := plainKind(kind), kindOf(v); have != want {
		return errorAt(path, "The value is of type '%s', but '%s' is expected.", have, want)
	}
	for _, r := range []map[string]any{own, raw} {
		if err := allowed(v, r, path); err != nil {
			return err
		}
		if err := inRange(v, r, path); err != nil {
			return err
		}
	}
	switch v := v.(type) {
	case []any:
		return t.checkItems(v, raw, path, depth)
	case map[string]any:
		return t.checkMembers(v, raw, path, depth)
	}
	return nil
}

func plainKind(kind string) string { return strings.TrimPrefix(kind, "secure") }

func allowed(v any, raw map[string]any, path string) error {
	list, ok := get(raw, "allowedValues").([]any)
	if !ok {
		return nil
	}
	// For an array, each item must be allowed, unless whole arrays are listed.
	if items, isArray := v.([]any); isArray && !listsArrays(list) {
		for i, x := range items {
			if !contains(list, x) {
				return errorAt(element(path, i), "The value is not one of the allowed values.")
			}
		}
		return nil
	}
	if !contains(list, v) {
		return errorAt(path, "The value is not one of the allowed values.")
	}
	return nil
}

func listsArrays(list []any) bool {
	for _, x := range list {
		if kindOf(x) != "array" {
			return false
		}
	}
	return len(list) > 0
}

func contains(list []any, v any) bool {
	for _, x := range list {
		if equal(x, v) {
			return true
		}
	}
	return false
}

func inRange(v any, raw map[string]any, path string) error {
	var n int64
	low, high := "minLength", "maxLength"
	switch v := v.(type) {
	case string:
		n = int64(utf8.RuneCountInString(v))
	case []any:
		n = int64(len(v))
	case int64:
		n, low, high = v, "minValue", "maxValue"
	default:
		return nil
	}
	if least, ok := get(raw, low).(int64); ok && n < least {
		return errorAt(path, "The value is below the '%s' of %d.", low, least)
	}
	if most, ok := get(raw, high).(int64); ok && n > most {
		return errorAt(path, "The value is above the '%s' of %d.", high, most)
	}
	return nil
}

func (t *Template) checkItems(v []any, raw map[string]any, path string, depth int) error {
	prefix, _ := get(raw, "prefixItems").([]any)
	items, typed := get(raw, "items").(map[string]any)
	if get(raw, "items") == false && len(v) > len(prefix) {
		return errorAt(path, "The list has more items than the type allows.")
	}
	for i, x := range v {
		of := items
		if i < len(prefix) {
			of, _ = prefix[i].(map[string]any)
		} else if !typed {
			continue
		}
		if err := t.checkValue(x, of, element(path, i), depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (t *Template) checkMembers(v, raw map[string]any, path string, depth int) error {
	if d, ok := get(raw, "discriminator").(map[string]any); ok {
		return t.checkVariant(v, d, path, depth)
	}
	props, typed := get(raw, "properties").(map[string]any)
	for _, name := range sorted(props) {
		of, _ := props[name].(map[string]any)
		x, has := lookup(v, name)
		if !has {
			resolved, err := t.resolve(of, path)
			if err != nil {
				return err
			}
			if get(of, "nullable") == true || get(resolved, "nullable") == true {
				continue
			}
			return errorAt(path, "The property '%s' is missing.", clip(name))
		}
		if err := t.checkValue(x, of, member(path, name), depth+1); err != nil {
			return err
		}
	}
	more, given := lookup(raw, "additionalProperties")
	of, _ := more.(map[string]any)
	for _, name := range sorted(v) {
		if _, known := lookup(props, name); known {
			continue
		}
		if given && more == false || get(raw, "sealed") == true && typed {
			return errorAt(path, "The property '%s' is not known.", clip(name))
		}
		if of != nil {
			if err := t.checkValue(v[name], of, member(path, name), depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkVariant checks an object whose type one of its own members names.
func (t *Template) checkVariant(v, d map[string]any, path string, depth int) error {
	name, _ := get(d, "propertyName").(string)
	variants, _ := get(d, "mapping").(map[string]any)
	which, _ := get(v, name).(string)
	of, ok := variants[which].(map[string]any)
	if !ok {
		return errorAt(path, "The property '%s' does not name a known variant.", clip(name))
	}
	return t.checkValue(v, of, path, depth+1)
}

// kindOf is the name of a value's type.
func kindOf(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "bool"
	case int64:
		return "int"
	case json.Number:
		return "float"
	case string:
		return "string"
	case []any:
		return "array"
	case map[string]any:
		return "object"
	}
	return "lambda"
}

// equal compares values as the language does: text exactly, objects by
// members.
func equal(a, b any) bool {
	switch a := a.(type) {
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for i := range a {
			if !equal(a[i], b[i]) {
				return false
			}
		}
		return true
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for k, x := range a {
			y, has := b[k]
			if !has || !equal(x, y) {
				return false
			}
		}
		return true
	case *lambda:
		return false
	}
	if _, scalar := b.([]any); scalar {
		return false
	}
	if _, scalar := b.(map[string]any); scalar {
		return false
	}
	if _, l := b.(*lambda); l {
		return false
	}
	return a == b
}
