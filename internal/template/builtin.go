package template

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"strconv"
	"strings"
)

// builtin is a function of the language.
type builtin struct {
	least, most int // number of arguments; most < 0 is any
	eval        func(s *scope, args []any) (any, error)
	makes       bool   // the result is a new value, whose size counts
	walks       bool   // all of the arguments is looked at, so their size counts
	lambdas     bool   // takes lambdas
	refused     string // why it is not supported
}

// builtins are all functions, by lower-case name. Those without eval decide
// for themselves which arguments to evaluate, see [scope.call].
func builtins() map[string]builtin {
	all := map[string]builtin{
		"if": {least: 3, most: 3}, "and": {least: 2, most: -1}, "or": {least: 2, most: -1},
		"coalesce": {least: 1, most: -1}, "lambda": {least: 1, most: -1},
	}
	for _, group := range []map[string]builtin{
		templateFunctions(), scopeFunctions(), logicFunctions(), numberFunctions(), textFunctions(), hashFunctions(), dateFunctions(),
		arrayFunctions(), objectFunctions(), lambdaFunctions(), refusedFunctions(),
	} {
		maps.Copy(all, group)
	}
	return all
}

func refusedFunctions() map[string]builtin {
	const secrets = "secrets and keys of resources cannot be read by templates"
	out := map[string]builtin{}
	for name, why := range map[string]string{
		"managementGroup": "there are no management groups", "managementGroupResourceId": "there are no management groups",
		"pickZones": "there are no availability zones", "toLogicalZone": "there are no availability zones", "toLogicalZones": "there are no availability zones",
		"toPhysicalZone": "there are no availability zones", "toPhysicalZones": "there are no availability zones",
		"providers": "name the api-version", "getSecret": secrets, "list": secrets, "listKeys": secrets, "listSecrets": secrets,
		"listAccountSas": secrets, "listOutputsWithSecureValues": "secure outputs are not kept",
		"externalInput": "external inputs are resolved by clients", "extension": "extensions are not supported",
		"parseCidr": "there are no networks", "cidrSubnet": "there are no networks", "cidrHost": "there are no networks",
	} {
		out[strings.ToLower(name)] = builtin{least: 0, most: -1, refused: why}
	}
	return out
}

// templateFunctions reach what belongs to the template and its deployment.
func templateFunctions() map[string]builtin {
	return map[string]builtin{
		"parameters": {least: 1, most: 1, eval: func(s *scope, a []any) (any, error) {
			name, err := text(a, 0)
			if err != nil {
				return nil, err
			}
			if s.inBody {
				_, v, ok := find(s.args, name)
				if !ok {
					return nil, fmt.Errorf("the function has no parameter '%s'", clip(name))
				}
				return v, nil
			}
			return s.d.parameter(name)
		}},
		"variables": {least: 1, most: 1, eval: func(s *scope, a []any) (any, error) {
			name, err := text(a, 0)
			switch {
			case err != nil:
				return nil, err
			case s.inBody || s.defaults:
				return nil, errors.New("variables are not known here")
			}
			return s.d.variable(name)
		}},
		"copyindex":    {least: 0, most: 2, eval: copyIndex},
		"reference":    {least: 1, most: 3, eval: func(s *scope, a []any) (any, error) { return s.live((*scope).read, a) }},
		"references":   {least: 1, most: 2, eval: func(s *scope, a []any) (any, error) { return s.live((*scope).readAll, a) }},
		"resourceinfo": {least: 1, most: 1, eval: resourceInfo},
		"deployment":   {eval: func(s *scope, _ []any) (any, error) { return s.d.env.Deployment, nil }},
		"deployer":     {eval: func(s *scope, _ []any) (any, error) { return s.d.env.Deployer, nil }},
		"environment":  {eval: func(s *scope, _ []any) (any, error) { return s.d.env.Environment, nil }},
		"subscription": {eval: func(s *scope, _ []any) (any, error) { return ask(s.d.env.Subscription) }},
		"tenant":       {eval: func(s *scope, _ []any) (any, error) { return ask(s.d.env.Tenant) }},
		"resourcegroup": {eval: func(s *scope, _ []any) (any, error) {
			if s.d.env.Group == "" {
				return nil, errors.New("the deployment is not to a resource group")
			}
			return ask(s.d.env.ResourceGroup)
		}},
		"fail": {least: 1, most: 1, eval: func(_ *scope, a []any) (any, error) {
			message, err := text(a, 0)
			if err != nil {
				return nil, err
			}
			return nil, errors.New(clip(message))
		}},
	}
}

// live calls a function that reads resources, where that is possible.
func (s *scope) live(f func(*scope, []any) (any, error), args []any) (any, error) {
	if s.inBody || s.defaults {
		return nil, &Later{"reference"}
	}
	return f(s, args)
}

func ask(f func() (map[string]any, error)) (any, error) {
	if f == nil {
		return nil, errors.New("it is not known here")
	}
	v, err := f()
	if err != nil {
		return nil, &foreign{err}
	}
	return v, nil
}

// NotYet is what a function of [Env] answers if what it is asked for is known
// only while the deployment runs.
func NotYet(function string) error { return &Later{function} }

func copyIndex(s *scope, args []any) (any, error) {
	var name string
	var offset int64
	for i, a := range args {
		switch a := a.(type) {
		case string:
			if i > 0 {
				return nil, errors.New("the name of the loop must be the first argument")
			}
			name = a
		case int64:
			offset = a
		default:
			return nil, errors.New("the arguments must be the name of a loop and an offset")
		}
	}
	for i := len(s.loops) - 1; i >= 0; i-- {
		l := &s.loops[i]
		// Without a name, the loop of the resource is meant, which is the first.
		if name == "" && i == 0 || name != "" && strings.EqualFold(l.name, name) {
			return add(l.index, offset)
		}
	}
	if name == "" {
		return nil, errors.New("there is no copy loop here")
	}
	return nil, fmt.Errorf("there is no copy loop '%s' here", clip(name))
}

func resourceInfo(s *scope, args []any) (any, error) {
	name, err := text(args, 0)
	if err != nil {
		return nil, err
	}
	if !s.d.t.symbolic {
		return nil, errors.New("only templates of language version 2.0 have it")
	}
	r, err := s.refer(name)
	if err != nil {
		return nil, err
	}
	return map[string]any{"id": r.ID, "name": r.Name[strings.LastIndexByte(r.Name, '/')+1:], "type": r.Type, "apiVersion": r.APIVersion}, nil
}

func scopeFunctions() map[string]builtin {
	return map[string]builtin{
		"resourceid": {least: 2, most: -1, eval: func(s *scope, a []any) (any, error) {
			return s.idOf(a, 2, func(before []string) string {
				sub, group := s.d.env.SubscriptionID, s.d.env.Group
				switch len(before) {
				case 1:
					group = before[0]
				case 2:
					sub, group = before[0], before[1]
				}
				if group == "" {
					return "/subscriptions/" + sub
				}
				return "/subscriptions/" + sub + "/resourceGroups/" + group
			})
		}},
		"subscriptionresourceid": {least: 2, most: -1, eval: func(s *scope, a []any) (any, error) {
			return s.idOf(a, 1, func(before []string) string {
				if len(before) == 1 {
					return "/subscriptions/" + before[0]
				}
				return "/subscriptions/" + s.d.env.SubscriptionID
			})
		}},
		"tenantresourceid": {least: 2, most: -1, eval: func(s *scope, a []any) (any, error) {
			return s.idOf(a, 0, func([]string) string { return "" })
		}},
		"extensionresourceid": {least: 3, most: -1, eval: func(s *scope, a []any) (any, error) {
			base, err := text(a, 0)
			if err != nil {
				return nil, err
			}
			return s.idOf(a[1:], 0, func([]string) string { return normalID(base) })
		}},
	}
}

// idOf builds an id from [subscription,] [group,] type, names: the type is
// the first with a slash.
func (s *scope) idOf(args []any, most int, base func(before []string) string) (any, error) {
	words := make([]string, len(args))
	for i := range args {
		var err error
		if words[i], err = text(args, i); err != nil {
			return nil, err
		}
	}
	at := 0
	for at < len(words) && !strings.Contains(words[at], "/") {
		at++
	}
	if at > most || at == len(words) {
		return nil, errors.New("there is no argument that is a resource type, such as 'Microsoft.KeyVault/vaults', in its place")
	}
	return resourceID(base(words[:at]), strings.Trim(words[at], "/"), words[at+1:])
}

func logicFunctions() map[string]builtin {
	compare := func(ok func(c int) bool) builtin {
		return builtin{least: 2, most: 2, eval: func(_ *scope, a []any) (any, error) {
			c, err := order(a[0], a[1])
			return err == nil && ok(c), err
		}}
	}
	return map[string]builtin{
		"true":  {eval: func(*scope, []any) (any, error) { return true, nil }},
		"false": {eval: func(*scope, []any) (any, error) { return false, nil }},
		"null":  {eval: func(*scope, []any) (any, error) { return nil, nil }},
		"not": {least: 1, most: 1, eval: func(_ *scope, a []any) (any, error) {
			b, err := toBool(a[0])
			return !b, err
		}},
		"bool": {least: 1, most: 1, eval: func(_ *scope, a []any) (any, error) {
			switch v := a[0].(type) {
			case string:
				return strconv.ParseBool(strings.ToLower(v))
			case int64:
				return v != 0, nil
			}
			return toBool(a[0])
		}},
		"equals": {least: 2, most: 2, walks: true, eval: func(_ *scope, a []any) (any, error) {
			return equal(a[0], a[1]), nil
		}},
		"less":            compare(func(c int) bool { return c < 0 }),
		"lessorequals":    compare(func(c int) bool { return c <= 0 }),
		"greater":         compare(func(c int) bool { return c > 0 }),
		"greaterorequals": compare(func(c int) bool { return c >= 0 }),
	}
}

func toBool(v any) (bool, error) {
	switch v := v.(type) {
	case bool:
		return v, nil
	case string:
		if strings.EqualFold(v, "true") || strings.EqualFold(v, "false") {
			return strings.EqualFold(v, "true"), nil
		}
	}
	return false, fmt.Errorf("a value of type '%s' is given, but 'bool' is expected", kindOf(v))
}

// order compares two integers or two strings.
func order(a, b any) (int, error) {
	switch x := a.(type) {
	case int64:
		if y, ok := b.(int64); ok {
			switch {
			case x < y:
				return -1, nil
			case x > y:
				return 1, nil
			}
			return 0, nil
		}
	case string:
		if y, ok := b.(string); ok {
			return strings.Compare(x, y), nil
		}
	}
	return 0, fmt.Errorf("two integers or two strings are expected, not '%s' and '%s'", kindOf(a), kindOf(b))
}

func numberFunctions() map[string]builtin {
	binary := func(f func(a, b int64) (any, error)) builtin {
		return builtin{least: 2, most: 2, eval: func(_ *scope, args []any) (any, error) {
			a, err := integer(args, 0)
			if err != nil {
				return nil, err
			}
			b, err := integer(args, 1)
			if err != nil {
				return nil, err
			}
			return f(a, b)
		}}
	}
	extreme := func(better func(a, b int64) bool) builtin {
		return builtin{least: 1, most: -1, eval: func(_ *scope, args []any) (any, error) {
			if list, ok := args[0].([]any); ok && len(args) == 1 {
				args = list
			}
			if len(args) == 0 {
				return nil, errors.New("the array is empty")
			}
			best, err := integer(args, 0)
			for i := range args {
				n, e := integer(args, i)
				if e != nil {
					return nil, e
				}
				if better(n, best) {
					best = n
				}
			}
			return best, err
		}}
	}
	return map[string]builtin{
		"add": binary(func(a, b int64) (any, error) { return add(a, b) }),
		"sub": binary(func(a, b int64) (any, error) {
			if b == math.MinInt64 {
				return nil, errOverflow
			}
			return add(a, -b)
		}),
		"mul": binary(func(a, b int64) (any, error) {
			if a == 0 || b == 0 {
				return int64(0), nil
			}
			c := a * b
			if c/b != a || a == -1 && b == math.MinInt64 || b == -1 && a == math.MinInt64 {
				return nil, errOverflow
			}
			return c, nil
		}),
		"div": binary(func(a, b int64) (any, error) {
			switch {
			case b == 0:
				return nil, errors.New("division by zero")
			case b == -1 && a == math.MinInt64:
				return nil, errOverflow
			}
			return a / b, nil
		}),
		"mod": binary(func(a, b int64) (any, error) {
			switch b {
			case 0:
				return nil, errors.New("division by zero")
			case -1:
				return int64(0), nil
			}
			return a % b, nil
		}),
		"min": extreme(func(a, b int64) bool { return a < b }),
		"max": extreme(func(a, b int64) bool { return a > b }),
		"int": {least: 1, most: 1, eval: func(_ *scope, a []any) (any, error) {
			switch v := a[0].(type) {
			case int64:
				return v, nil
			case string:
				n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
				if err != nil {
					return nil, errors.New("the text is not an integer")
				}
				return n, nil
			case json.Number:
				f, err := v.Float64()
				if err != nil || f >= math.MaxInt64 || f <= math.MinInt64 {
					return nil, errOverflow
				}
				return int64(f), nil
			}
			return nil, wrongKind(a[0], "int' or 'string")
		}},
		"float": {least: 1, most: 1, eval: func(_ *scope, a []any) (any, error) {
			s, ok := a[0].(string)
			if !ok {
				return a[0], nil
			}
			if _, err := strconv.ParseFloat(s, 64); err != nil || !json.Valid([]byte(s)) {
				return nil, errors.New("the text is not a number")
			}
			return json.Number(s), nil
		}},
	}
}

var errOverflow = errors.New("the result is too large for an integer")

func add(a, b int64) (any, error) {
	c := a + b
	if (c > a) != (b > 0) && b != 0 {
		return nil, errOverflow
	}
	return c, nil
}

func wrongKind(v any, want string) error {
	return fmt.Errorf("a value of type '%s' is given, but '%s' is expected", kindOf(v), want)
}

func argument[T any](args []any, i int, want string) (T, error) {
	v, ok := args[i].(T)
	if !ok {
		return v, wrongKind(args[i], want)
	}
	return v, nil
}

func text(args []any, i int) (string, error)   { return argument[string](args, i, "string") }
func integer(args []any, i int) (int64, error) { return argument[int64](args, i, "int") }
func items(args []any, i int) ([]any, error)   { return argument[[]any](args, i, "array") }
func object(args []any, i int) (map[string]any, error) {
	return argument[map[string]any](args, i, "object")
}
func function1(args []any, i int) (*lambda, error) { return argument[*lambda](args, i, "lambda") }

// display is a value as string() and format() write it.
func display(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	case bool:
		if v {
			return "True", nil
		}
		return "False", nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	case json.Number:
		return v.String(), nil
	case *lambda:
		return "", errors.New("a lambda has no text")
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return "", errors.New("the value has no text")
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}
