package deploy

import "strings"

// hidden stands for what is masked.
const hidden = "*******"

// The types, in lower case, that have write-only members.
const (
	typeSecret  = "microsoft.keyvault/vaults/secrets"
	typeCluster = "microsoft.containerservice/managedclusters"
)

// writeOnly are the members of bodies, by lower-case type, that hold secrets
// and that no GET shows: neither does what-if, nor a kept template, even if
// they are written in the template itself.
func writeOnly(kind string) []string {
	switch strings.ToLower(kind) {
	case typeSecret, "secrets":
		return []string{"properties", "value"}
	case typeCluster:
		return []string{"properties", "podkey", "kubeconfig"}
	}
	return nil
}

// masked is a body without its write-only member.
func masked(kind string, body map[string]any) map[string]any {
	path := writeOnly(kind)
	if len(path) == 0 {
		return body
	}
	return maskAt(body, path)
}

func maskAt(o map[string]any, path []string) map[string]any {
	out := make(map[string]any, len(o))
	for k, v := range o {
		inner, isObject := v.(map[string]any)
		switch {
		case !strings.EqualFold(k, path[0]):
		case len(path) > 1 && isObject:
			v = maskAt(inner, path[1:])
		default:
			v = hidden
		}
		out[k] = v
	}
	return out
}

// maskedTemplate is a template whose resources, at any depth, are masked.
func maskedTemplate(v any) any {
	switch v := v.(type) {
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = maskedTemplate(v[i])
		}
		return out
	case map[string]any:
		kind, _ := member(v, "type").(string)
		v = masked(kind, v)
		if strings.EqualFold(kind, typeDeployment) {
			v = withoutArguments(v)
		}
		if strings.HasPrefix(kind, "[") { // it may come to be any of them
			v = withoutArguments(masked(typeCluster, masked(typeSecret, v)))
		}
		out := make(map[string]any, len(v))
		for k, x := range v {
			out[k] = maskedTemplate(x)
		}
		return out
	}
	return v
}

// withoutArguments is a nested deployment without the parameters that it
// gives its template, but for those that the template declares to be plain:
// the others are secure, or nobody can tell.
func withoutArguments(body map[string]any) map[string]any {
	declared, _ := member(member(member(body, "properties"), "template"), "parameters").(map[string]any)
	return replace(body, "properties", func(props any) any {
		return within(props, "parameters", func(given any) any {
			o, ok := given.(map[string]any)
			if !ok {
				return hidden // an expression
			}
			out := make(map[string]any, len(o))
			for name, v := range o {
				if !plain(declared, name) {
					v = within(v, "value", func(any) any { return hidden })
				}
				out[name] = v
			}
			return out
		})
	})
}

// within is replace for an object; anything else is hidden.
func within(v any, name string, f func(any) any) any {
	if o, ok := v.(map[string]any); ok {
		return replace(o, name, f)
	}
	return hidden
}

// replace is an object with a member, in any case, changed.
func replace(o map[string]any, name string, f func(any) any) map[string]any {
	out := make(map[string]any, len(o))
	for k, v := range o {
		if strings.EqualFold(k, name) {
			v = f(v)
		}
		out[k] = v
	}
	return out
}

// plain tells whether a parameter is declared, and every time to be of a type
// that is not secure.
func plain(declared map[string]any, name string) bool {
	found := false
	for k, p := range declared {
		if !strings.EqualFold(k, name) {
			continue
		}
		kind, _ := member(p, "type").(string)
		switch strings.ToLower(kind) {
		case "string", "int", "bool", "object", "array":
			found = true
		default:
			return false
		}
	}
	return found
}
