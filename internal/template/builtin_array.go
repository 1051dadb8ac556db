package template

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

func arrayFunctions() map[string]builtin {
	return map[string]builtin{
		"array": {least: 1, most: 1, makes: true, eval: func(_ *scope, a []any) (any, error) {
			if list, ok := a[0].([]any); ok {
				return list, nil
			}
			return []any{a[0]}, nil
		}},
		"createarray": {least: 0, most: -1, makes: true, eval: func(_ *scope, a []any) (any, error) {
			return slices.Clone(a), nil
		}},
		"length": {least: 1, most: 1, eval: func(_ *scope, a []any) (any, error) {
			switch v := a[0].(type) {
			case string:
				return int64(utf8.RuneCountInString(v)), nil
			case []any:
				return int64(len(v)), nil
			case map[string]any:
				return int64(len(v)), nil
			}
			return nil, wrongKind(a[0], "array', 'object' or 'string")
		}},
		"empty": {least: 1, most: 1, eval: func(_ *scope, a []any) (any, error) {
			switch v := a[0].(type) {
			case nil:
				return true, nil
			case string:
				return v == "", nil
			case []any:
				return len(v) == 0, nil
			case map[string]any:
				return len(v) == 0, nil
			}
			return nil, wrongKind(a[0], "array', 'object' or 'string")
		}},
		"contains":     {least: 2, most: 2, walks: true, eval: containsFunction},
		"first":        {least: 1, most: 1, eval: func(_ *scope, a []any) (any, error) { return edge(a[0], false) }},
		"last":         {least: 1, most: 1, eval: func(_ *scope, a []any) (any, error) { return edge(a[0], true) }},
		"skip":         {least: 2, most: 2, makes: true, eval: func(_ *scope, a []any) (any, error) { return part(a, true) }},
		"take":         {least: 2, most: 2, makes: true, eval: func(_ *scope, a []any) (any, error) { return part(a, false) }},
		"range":        {least: 2, most: 2, makes: true, eval: rangeFunction},
		"indexof":      {least: 2, most: 2, walks: true, eval: func(_ *scope, a []any) (any, error) { return indexOf(a, false) }},
		"lastindexof":  {least: 2, most: 2, walks: true, eval: func(_ *scope, a []any) (any, error) { return indexOf(a, true) }},
		"union":        {least: 2, most: -1, makes: true, walks: true, eval: union},
		"intersection": {least: 2, most: -1, makes: true, walks: true, eval: intersection},
		"flatten": {least: 1, most: 1, makes: true, eval: func(_ *scope, a []any) (any, error) {
			list, err := items(a, 0)
			if err != nil {
				return nil, err
			}
			out := []any{}
			for i := range list {
				inner, err := items(list, i)
				if err != nil {
					return nil, err
				}
				out = append(out, inner...)
			}
			return out, nil
		}},
		"tryindexfromend": {least: 2, most: 2, eval: func(_ *scope, a []any) (any, error) { return fromEnd(a, true) }},
		"indexfromend":    {least: 2, most: 2, eval: func(_ *scope, a []any) (any, error) { return fromEnd(a, false) }},
	}
}

func fromEnd(args []any, safe bool) (any, error) {
	n, err := integer(args, 1)
	if err != nil {
		return nil, err
	}
	if args[0] == nil && safe {
		return nil, nil
	}
	list, err := items(args, 0)
	if err != nil {
		return nil, err
	}
	return pick(list, int64(len(list))-n, safe)
}

// containsFunction looks for an item, a member or a piece of text.
func containsFunction(_ *scope, args []any) (any, error) {
	switch in := args[0].(type) {
	case []any:
		return contains(in, args[1]), nil
	case map[string]any:
		name, err := text(args, 1)
		if err != nil {
			return nil, err
		}
		_, ok := lookup(in, name)
		return ok, nil
	case string:
		what, err := display(args[1])
		return strings.Contains(in, what), err
	}
	return nil, wrongKind(args[0], "array', 'object' or 'string")
}

// edge is the first or last item, or character; of nothing, nothing.
func edge(v any, last bool) (any, error) {
	switch v := v.(type) {
	case string:
		if last {
			_, n := utf8.DecodeLastRuneInString(v)
			return v[len(v)-n:], nil
		}
		_, n := utf8.DecodeRuneInString(v)
		return v[:n], nil
	case []any:
		switch {
		case len(v) == 0:
			return nil, nil
		case last:
			return v[len(v)-1], nil
		}
		return v[0], nil
	}
	return nil, wrongKind(v, "array' or 'string")
}

// part is what take and skip leave.
func part(args []any, rest bool) (any, error) {
	n, err := integer(args, 1)
	if err != nil {
		return nil, err
	}
	n = max(n, 0)
	switch v := args[0].(type) {
	case string:
		runes := []rune(v)
		n = min(n, int64(len(runes)))
		if rest {
			return string(runes[n:]), nil
		}
		return string(runes[:n]), nil
	case []any:
		n = min(n, int64(len(v)))
		if rest {
			return slices.Clone(v[n:]), nil
		}
		return slices.Clone(v[:n]), nil
	}
	return nil, wrongKind(args[0], "array' or 'string")
}

func rangeFunction(_ *scope, args []any) (any, error) {
	start, err := integer(args, 0)
	if err != nil {
		return nil, err
	}
	n, err := integer(args, 1)
	if err != nil {
		return nil, err
	}
	if n < 0 || n > 10000 || start > 2147483647 || start < -2147483648 || start+n > 2147483648 {
		return nil, errors.New("the count must be between 0 and 10000, and the numbers of 32 bits")
	}
	out := make([]any, n)
	for i := range out {
		out[i] = start + int64(i)
	}
	return out, nil
}

// indexOf looks for an item, or a piece of text without case; -1 if there is
// none.
func indexOf(args []any, last bool) (any, error) {
	switch in := args[0].(type) {
	case []any:
		found := int64(-1)
		for i, v := range in {
			if equal(v, args[1]) {
				if found = int64(i); !last {
					break
				}
			}
		}
		return found, nil
	case string:
		what, err := text(args, 1)
		if err != nil {
			return nil, err
		}
		in, what = strings.ToLower(in), strings.ToLower(what)
		at := strings.Index(in, what)
		if last {
			at = strings.LastIndex(in, what)
		}
		if at < 0 {
			return int64(-1), nil
		}
		return int64(utf8.RuneCountInString(in[:at])), nil
	}
	return nil, wrongKind(args[0], "array' or 'string")
}

// union merges objects, members of later ones before those of earlier ones and
// objects in them likewise; or arrays, each item once.
func union(s *scope, args []any) (any, error) {
	if _, ok := args[0].(map[string]any); ok {
		out := map[string]any{}
		for i := range args {
			o, err := object(args, i)
			if err != nil {
				return nil, err
			}
			out = merge(out, o)
		}
		return out, nil
	}
	out := []any{}
	for i := range args {
		list, err := items(args, i)
		if err != nil {
			return nil, err
		}
		for _, v := range list {
			if err := s.d.spend(len(out)/8 + 1); err != nil {
				return nil, err
			}
			if !contains(out, v) {
				out = append(out, v)
			}
		}
	}
	return out, nil
}

func merge(a, b map[string]any) map[string]any {
	out := make(map[string]any, len(a)+len(b))
	for k, v := range a {
		out[k] = v
	}
	for k, v := range b {
		key := k
		if _, same := out[k]; !same {
			if have, _, ok := find(out, k); ok {
				key = have
			}
		}
		x, both := out[key].(map[string]any)
		if y, ok := v.(map[string]any); ok && both {
			v = merge(x, y)
		}
		out[key] = v
	}
	return out
}

func intersection(s *scope, args []any) (any, error) {
	if first, ok := args[0].(map[string]any); ok {
		out := map[string]any{}
		for k, v := range first {
			out[k] = v
		}
		for i := range args[1:] {
			o, err := object(args, i+1)
			if err != nil {
				return nil, err
			}
			for k, v := range out {
				if x, ok := lookup(o, k); !ok || !equal(v, x) {
					delete(out, k)
				}
			}
		}
		return out, nil
	}
	out, err := items(args, 0)
	if err != nil {
		return nil, err
	}
	for i := range args[1:] {
		list, err := items(args, i+1)
		if err != nil {
			return nil, err
		}
		kept := []any{}
		for _, v := range out {
			if err := s.d.spend(len(list)/8 + 1); err != nil {
				return nil, err
			}
			if contains(list, v) && !contains(kept, v) {
				kept = append(kept, v)
			}
		}
		out = kept
	}
	return out, nil
}

func objectFunctions() map[string]builtin {
	return map[string]builtin{
		"createobject": {least: 0, most: -1, makes: true, eval: func(_ *scope, a []any) (any, error) {
			if len(a)%2 != 0 {
				return nil, errors.New("names and values must come in pairs")
			}
			out := map[string]any{}
			for i := 0; i < len(a); i += 2 {
				name, err := text(a, i)
				if err != nil {
					return nil, err
				}
				out[name] = a[i+1]
			}
			return out, nil
		}},
		"items": {least: 1, most: 1, makes: true, eval: func(_ *scope, a []any) (any, error) {
			o, err := object(a, 0)
			out := []any{}
			for _, k := range sorted(o) {
				out = append(out, map[string]any{"key": k, "value": o[k]})
			}
			return out, err
		}},
		"objectkeys": {least: 1, most: 1, makes: true, eval: func(_ *scope, a []any) (any, error) {
			o, err := object(a, 0)
			out := []any{}
			for _, k := range sorted(o) {
				out = append(out, k)
			}
			return out, err
		}},
		"shallowmerge": {least: 1, most: 1, makes: true, eval: func(_ *scope, a []any) (any, error) {
			list, err := items(a, 0)
			out := map[string]any{}
			for i := range list {
				o, err := object(list, i)
				if err != nil {
					return nil, err
				}
				for k, v := range o {
					out[k] = v
				}
			}
			return out, err
		}},
		"tryget": {least: 2, most: -1, eval: func(_ *scope, a []any) (any, error) {
			v := a[0]
			for _, index := range a[1:] {
				if v == nil {
					return nil, nil
				}
				var err error
				if v, err = pick(v, index, true); err != nil {
					return nil, err
				}
			}
			return v, nil
		}},
	}
}

// lambdaFunctions call a function for each item. The function may take one
// parameter more than it must: the item's index.
func lambdaFunctions() map[string]builtin {
	each := func(f func(s *scope, list []any, l *lambda) (any, error)) func(*scope, []any) (any, error) {
		return func(s *scope, a []any) (any, error) {
			list, err := items(a, 0)
			if err != nil {
				return nil, err
			}
			l, err := function1(a, 1)
			if err != nil {
				return nil, err
			}
			return f(s, list, l)
		}
	}
	return map[string]builtin{
		"lambdavariables": {least: 1, most: 1, eval: func(s *scope, a []any) (any, error) {
			name, err := text(a, 0)
			if err != nil {
				return nil, err
			}
			for v := s.locals; v != nil; v = v.next {
				if strings.EqualFold(v.name, name) {
					return v.value, nil
				}
			}
			return nil, fmt.Errorf("the lambda variable '%s' is not known here", clip(name))
		}},
		"map": {least: 2, most: 2, makes: true, lambdas: true, eval: each(func(s *scope, list []any, l *lambda) (any, error) {
			out := make([]any, len(list))
			for i, v := range list {
				var err error
				if out[i], err = s.apply(l, v, int64(i)); err != nil {
					return nil, err
				}
				if err := noLambda(out[i]); err != nil {
					return nil, err
				}
			}
			return out, nil
		})},
		"filter": {least: 2, most: 2, makes: true, lambdas: true, eval: each(func(s *scope, list []any, l *lambda) (any, error) {
			out := []any{}
			for i, v := range list {
				yes, err := s.applyBool(l, v, int64(i))
				if err != nil {
					return nil, err
				}
				if yes {
					out = append(out, v)
				}
			}
			return out, nil
		})},
		"sort": {least: 2, most: 2, makes: true, lambdas: true, eval: each(sortFunction)},
		"reduce": {least: 3, most: 3, makes: true, lambdas: true, eval: func(s *scope, a []any) (any, error) {
			list, err := items(a, 0)
			if err != nil {
				return nil, err
			}
			l, err := function1(a, 2)
			if err != nil {
				return nil, err
			}
			sum := a[1]
			for i, v := range list {
				if sum, err = s.apply(l, sum, v, int64(i)); err != nil {
					return nil, err
				}
				if err := noLambda(sum); err != nil {
					return nil, err
				}
			}
			return sum, nil
		}},
		"toobject": {least: 2, most: 3, makes: true, lambdas: true, eval: toObject},
		"groupby": {least: 2, most: 2, makes: true, lambdas: true, eval: each(func(s *scope, list []any, l *lambda) (any, error) {
			out := map[string]any{}
			for _, v := range list {
				key, err := s.applyText(l, v)
				if err != nil {
					return nil, err
				}
				group, _ := out[key].([]any)
				out[key] = append(group, v)
			}
			return out, nil
		})},
		"mapvalues": {least: 2, most: 2, makes: true, lambdas: true, eval: func(s *scope, a []any) (any, error) {
			o, err := object(a, 0)
			if err != nil {
				return nil, err
			}
			l, err := function1(a, 1)
			if err != nil {
				return nil, err
			}
			out := map[string]any{}
			for _, k := range sorted(o) {
				if out[k], err = s.apply(l, o[k]); err != nil {
					return nil, err
				}
				if err := noLambda(out[k]); err != nil {
					return nil, err
				}
			}
			return out, nil
		}},
	}
}

func (s *scope) applyBool(l *lambda, args ...any) (bool, error) {
	v, err := s.apply(l, args...)
	if err != nil {
		return false, err
	}
	b, ok := v.(bool)
	if !ok {
		return false, wrongKind(v, "bool")
	}
	return b, nil
}

func (s *scope) applyText(l *lambda, args ...any) (string, error) {
	v, err := s.apply(l, args...)
	if err != nil {
		return "", err
	}
	t, ok := v.(string)
	if !ok {
		return "", wrongKind(v, "string")
	}
	return t, nil
}

// sortFunction sorts by a function that tells whether a comes before b.
func sortFunction(s *scope, list []any, l *lambda) (any, error) {
	var failed error
	out := slices.Clone(list)
	slices.SortStableFunc(out, func(a, b any) int {
		if failed != nil {
			return 0
		}
		before, err := s.applyBool(l, a, b)
		if err == nil && before {
			return -1
		}
		after := false
		if err == nil {
			after, err = s.applyBool(l, b, a)
		}
		failed = err
		if after {
			return 1
		}
		return 0
	})
	return out, failed
}

func toObject(s *scope, args []any) (any, error) {
	list, err := items(args, 0)
	if err != nil {
		return nil, err
	}
	key, err := function1(args, 1)
	if err != nil {
		return nil, err
	}
	out := map[string]any{}
	for _, v := range list {
		name, err := s.applyText(key, v)
		if err != nil {
			return nil, err
		}
		out[name] = v
		if len(args) == 3 {
			value, err := function1(args, 2)
			if err != nil {
				return nil, err
			}
			if out[name], err = s.apply(value, v); err != nil {
				return nil, err
			}
			if err := noLambda(out[name]); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}
