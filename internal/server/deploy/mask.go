package deploy

import "strings"

// writeOnly are the members of bodies, by lower-case type, that hold secrets
// and that no GET shows: neither does what-if, nor a kept template, even if
// they are written in the template itself.
func writeOnly(kind string) []string {
	switch strings.ToLower(kind) {
	case "microsoft.keyvault/vaults/secrets", "secrets":
		return []string{"properties", "value"}
	case "microsoft.containerservice/managedclusters":
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
			v = "*******"
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
		out := make(map[string]any, len(v))
		for k, x := range masked(kind, v) {
			out[k] = maskedTemplate(x)
		}
		return out
	}
	return v
}
