package template

import (
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
)

// Later is the error of an expression that can be evaluated only while the
// deployment runs.
type Later struct{ function string }

// Error says so.
func (e *Later) Error() string {
	return fmt.Sprintf("the template function '%s' is not expected at this location: it is known only while the deployment runs", e.function)
}

func isRuntime(err error) bool {
	_, ok := errors.AsType[*Later](err)
	return ok
}

// scope is what names mean at one place of a template.
type scope struct {
	d        *Deployment
	loops    []loop         // copy loops around, innermost last
	locals   *local         // variables of lambdas
	args     map[string]any // parameters of the function whose body this is
	inBody   bool           // of a function of the template
	defaults bool           // of a parameter: utcNow and newGuid are known, variables are not
	runtime  Runtime        // nil where resources cannot be read
	partial  *partial       // set where what is known only later is left as it is written
	escape   bool           // results are parts of another template
	depth    int
}

type loop struct {
	name  string
	index int64
}

type local struct {
	name  string
	value any
	next  *local
}

// partial gathers what an evaluation before the deployment finds.
type partial struct {
	unknown bool            // something is known only later
	refs    func(*Resource) // told of each resource of the template that is read
}

// lambda is a function that is an argument of map, filter and the like. It
// is no value: nothing can hold it.
type lambda struct {
	names []string
	body  node
	scope *scope
}

func (s *scope) apply(l *lambda, args ...any) (any, error) {
	in := *l.scope
	for i, name := range l.names {
		if i < len(args) {
			in.locals = &local{name, args[i], in.locals}
		}
	}
	return in.eval(l.body)
}

// eval evaluates an expression.
func (s *scope) eval(n node) (any, error) {
	if err := s.d.spend(1); err != nil {
		return nil, err
	}
	if s.depth++; s.depth > maxNesting*4 {
		return nil, errors.New("the evaluation is nested too deeply")
	}
	defer func() { s.depth-- }()
	switch n := n.(type) {
	case literal:
		return n.value, nil
	case access:
		return s.access(n)
	case call:
		return s.call(n)
	}
	return nil, errors.New("the expression is malformed")
}

func (s *scope) access(n access) (any, error) {
	base, err := s.eval(n.base)
	if err != nil {
		if isRuntime(err) && s.partial != nil {
			_, _ = s.eval(n.index) // for what it refers to
		}
		return nil, err
	}
	index, err := s.eval(n.index)
	if err != nil {
		return nil, err
	}
	if base == nil && n.safe {
		return nil, nil
	}
	return pick(base, index, n.safe)
}

// pick is base[index]. safe makes null of what is not there.
func pick(base, index any, safe bool) (any, error) {
	switch b := base.(type) {
	case map[string]any:
		name, ok := index.(string)
		if !ok {
			return nil, fmt.Errorf("an object's property is named by a string, not by a value of type '%s'", kindOf(index))
		}
		v, ok := lookup(b, name)
		if !ok && !safe {
			return nil, fmt.Errorf("the property '%s' does not exist; available are '%s'", clip(name), clip(strings.Join(sorted(b), ", ")))
		}
		return v, nil
	case []any:
		i, ok := index.(int64)
		if !ok {
			return nil, fmt.Errorf("an array is indexed by an integer, not by a value of type '%s'", kindOf(index))
		}
		if i < 0 || i >= int64(len(b)) {
			if safe {
				return nil, nil
			}
			return nil, fmt.Errorf("the index %d is outside of the array, which has %d items", i, len(b))
		}
		return b[i], nil
	}
	return nil, fmt.Errorf("a value of type '%s' has no properties", kindOf(base))
}

// call evaluates a function. Some do not evaluate all of their arguments;
// the others are in the table of builtins.
func (s *scope) call(n call) (any, error) {
	name := strings.ToLower(n.name)
	if n.namespace != "" && !strings.EqualFold(n.namespace, "sys") {
		return s.callOwn(n)
	}
	switch name {
	case "if":
		return s.choose(n)
	case "and", "or":
		return s.logic(n, name == "or")
	case "coalesce":
		return s.coalesce(n)
	case "lambda":
		return s.lambda(n)
	}
	b, ok := s.d.t.known[name]
	if !ok || b.eval == nil {
		return nil, unknownFunction(n)
	}
	args, err := s.arguments(n)
	if err != nil {
		return nil, err
	}
	for _, a := range args {
		if _, is := a.(*lambda); is && !b.lambdas {
			return nil, fmt.Errorf("the template function '%s' takes no lambda", n.name)
		}
		if b.walks {
			if err := s.d.charge(a); err != nil {
				return nil, err
			}
		}
	}
	v, err := b.eval(s, args)
	if err != nil {
		if isRuntime(err) {
			return nil, err
		}
		if _, placed := errors.AsType[*Error](err); placed || isForeign(err) {
			return nil, err
		}
		return nil, fmt.Errorf("the template function '%s' cannot be evaluated: %w", n.name, err)
	}
	if b.makes {
		err = s.d.charge(v)
	}
	return v, err
}

// arguments evaluates all arguments. In a partial evaluation all are looked
// at, for what they refer to, even when one is not known yet.
func (s *scope) arguments(n call) ([]any, error) {
	args := make([]any, len(n.args))
	var later error
	for i, a := range n.args {
		v, err := s.eval(a)
		if err != nil {
			if isRuntime(err) && s.partial != nil {
				later = err
				continue
			}
			return nil, err
		}
		args[i] = v
	}
	return args, later
}

func (s *scope) choose(n call) (any, error) {
	cond, err := s.eval(n.args[0])
	if err != nil {
		if isRuntime(err) && s.partial != nil {
			_, _ = s.eval(n.args[1])
			_, _ = s.eval(n.args[2])
		}
		return nil, err
	}
	yes, ok := cond.(bool)
	if !ok {
		return nil, fmt.Errorf("the condition of 'if' is of type '%s', but 'bool' is expected", kindOf(cond))
	}
	if yes {
		return s.eval(n.args[1])
	}
	return s.eval(n.args[2])
}

// logic is and, or: the first argument that decides ends it.
func (s *scope) logic(n call, decides bool) (any, error) {
	for _, a := range n.args {
		v, err := s.eval(a)
		if err != nil {
			return nil, err
		}
		b, err := toBool(v)
		if err != nil {
			return nil, fmt.Errorf("the template function '%s' cannot be evaluated: %w", n.name, err)
		}
		if b == decides {
			return decides, nil
		}
	}
	return !decides, nil
}

func (s *scope) coalesce(n call) (any, error) {
	for _, a := range n.args {
		v, err := s.eval(a)
		if err != nil || v != nil {
			return v, err
		}
	}
	return nil, nil
}

func (s *scope) lambda(n call) (any, error) {
	l := &lambda{scope: s, body: n.args[len(n.args)-1]}
	for _, a := range n.args[:len(n.args)-1] {
		lit, _ := a.(literal)
		name, ok := lit.value.(string)
		if !ok || name == "" {
			return nil, errors.New("the parameters of 'lambda' must be names")
		}
		l.names = append(l.names, name)
	}
	return l, nil
}

// callOwn calls a function that the template defines. Its body sees its own
// parameters and nothing else of the template.
func (s *scope) callOwn(n call) (any, error) {
	f := s.d.t.functions[strings.ToLower(n.namespace+"."+n.name)]
	if f == nil {
		return nil, unknownFunction(n)
	}
	args, err := s.arguments(n)
	if err != nil {
		return nil, err
	}
	in := &scope{d: s.d, inBody: true, args: map[string]any{}, depth: s.depth + 1}
	if in.depth > maxNesting {
		return nil, errors.New("the template's functions call one another too deeply")
	}
	for i, p := range f.parameters {
		if want := plainKind(p.kind); want != "" && kindOf(args[i]) != want && args[i] != nil {
			return nil, fmt.Errorf("the argument '%s' of '%s' is of type '%s', but '%s' is expected", clip(p.name), clip(n.namespace+"."+n.name), kindOf(args[i]), want)
		}
		in.args[p.name] = args[i]
	}
	return in.tree(f.value, member(f.path, "value"))
}

// tree evaluates every expression in a value of the template. path is its
// place, for errors.
func (s *scope) tree(v any, path string) (any, error) {
	switch v := v.(type) {
	case string:
		return s.text(v, path)
	case []any:
		out := make([]any, len(v))
		for i, x := range v {
			var err error
			if out[i], err = s.tree(x, element(path, i)); err != nil {
				return nil, err
			}
		}
		return out, nil
	case map[string]any:
		return s.object(v, path)
	}
	return v, nil
}

func (s *scope) text(v, path string) (any, error) {
	if !isExpression(v) {
		if s.escape {
			return v, nil
		}
		return unescape(v), nil
	}
	n := s.d.t.parsed[v]
	if n == nil {
		return nil, errorAt(path, "The expression is not of this template.")
	}
	out, err := s.eval(n)
	switch {
	case err == nil:
	case isRuntime(err) && s.partial != nil:
		s.partial.unknown = true
		return v, nil
	case isRuntime(err) && s.runtime != nil, isForeign(err):
		return nil, err
	default:
		if e, ok := errors.AsType[*Error](err); ok && e.Path != "" {
			return nil, err
		}
		if s.d.hasSecrets() && !isRuntime(err) && s.d.touches(n, s, 0, true) {
			return nil, errorAt(path, "The expression cannot be evaluated. The reason is not shown, since a secure parameter is used in it.")
		}
		if isRuntime(err) {
			return nil, &runtimeError{errorAt(path, "%s", sentence(err)), err}
		}
		return nil, errorAt(path, "%s", sentence(err))
	}
	if err := noLambda(out); err != nil {
		return nil, errorAt(path, "%s", sentence(err))
	}
	if s.d.hasSecrets() && s.d.taints(n, s, 0) {
		s.d.collect(out)
		if err := s.d.checkSecrets(); err != nil {
			return nil, errorAt(path, "%s", sentence(err))
		}
	}
	if s.escape {
		out = escapeAll(out)
	}
	return out, nil
}

// runtimeError is a Later with its place.
type runtimeError struct {
	error // with the place
	cause error
}

func (e *runtimeError) Unwrap() []error { return []error{e.error, e.cause} }

func noLambda(v any) error {
	if _, ok := v.(*lambda); ok {
		return errors.New("a lambda can only be an argument")
	}
	return nil
}

// escapeAll makes a value stand for itself in another template.
func escapeAll(v any) any {
	switch v := v.(type) {
	case string:
		return Escape(v)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = escapeAll(v[i])
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, x := range v {
			out[Escape(k)] = escapeAll(x)
		}
		return out
	}
	return v
}

// object evaluates an object. Names can be expressions; a member copy makes
// members that are arrays.
func (s *scope) object(o map[string]any, path string) (any, error) {
	out := make(map[string]any, len(o))
	for _, k := range sorted(o) {
		at := member(path, k)
		if strings.EqualFold(k, "copy") && isCopyList(o[k]) {
			if err := s.copies(o[k].([]any), out, at); err != nil {
				return nil, err
			}
			continue
		}
		name, err := s.text(k, at)
		if err != nil {
			return nil, err
		}
		key, ok := name.(string)
		if !ok {
			return nil, errorAt(at, "The name of a property is of type '%s', but 'string' is expected.", kindOf(name))
		}
		if _, twice := out[key]; twice {
			return nil, errorAt(at, "Two properties have the same name.")
		}
		if out[key], err = s.tree(o[k], at); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// isCopyList tells a copy loop from a property that happens to be called so.
func isCopyList(v any) bool {
	list, ok := v.([]any)
	for _, x := range list {
		o, isObject := x.(map[string]any)
		if _, has := lookup(o, "input"); !isObject || !has {
			return false
		}
	}
	return ok && len(list) > 0
}

// copies evaluates the copy loops of an object's members into out.
func (s *scope) copies(list []any, out map[string]any, path string) error {
	for i, v := range list {
		at := element(path, i)
		o := v.(map[string]any)
		if err := onlyMembers(o, at, []string{"name", "count", "input", "mode", "batchSize"}); err != nil {
			return err
		}
		name, ok := get(o, "name").(string)
		if !ok || name == "" {
			return errorAt(at, "A copy loop has no 'name'.")
		}
		if _, twice := out[name]; twice {
			return errorAt(at, "Two properties have the same name.")
		}
		items, err := s.repeat(name, o, at)
		if err != nil {
			return err
		}
		out[name] = items
	}
	return nil
}

// repeat evaluates input count times.
func (s *scope) repeat(name string, o map[string]any, path string) ([]any, error) {
	count, err := s.count(get(o, "count"), member(path, "count"))
	if err != nil {
		return nil, err
	}
	items := make([]any, count)
	in := *s
	for i := range items {
		if err := s.d.spend(8); err != nil {
			return nil, errorAt(path, "%s", sentence(err))
		}
		in.loops = append(s.loops[:len(s.loops):len(s.loops)], loop{name, int64(i)})
		if items[i], err = in.tree(get(o, "input"), member(path, "input")); err != nil {
			return nil, err
		}
		if err := s.d.charge(items[i]); err != nil {
			return nil, errorAt(path, "%s", sentence(err))
		}
	}
	return items, nil
}

// count is how often a copy loop passes.
func (s *scope) count(v any, path string) (int, error) {
	v, err := s.tree(v, path)
	if err != nil {
		return 0, err
	}
	n, ok := v.(int64)
	if text, isText := v.(string); isText { // of a template for people, "count": "3"
		n, err = strconv.ParseInt(text, 10, 64)
		ok = err == nil
	}
	switch {
	case !ok:
		return 0, errorAt(path, "The count of a copy loop must be an integer.")
	case n < 0 || n > maxCopies:
		return 0, errorAt(path, "The count of a copy loop must be between 0 and %d, not %d.", maxCopies, n)
	}
	return int(n), nil
}

// spend counts work, so that evaluation ends.
func (d *Deployment) spend(n int) error {
	if d.work.left -= n; d.work.left < 0 {
		return errors.New("the template's expressions build too many or too large values")
	}
	return nil
}

// charge counts a value that an expression has made, or has looked at whole.
func (d *Deployment) charge(v any) error {
	if err := d.spend(1); err != nil {
		return err
	}
	switch v := v.(type) {
	case string:
		return d.spend(len(v) / 16)
	case []any:
		for _, x := range v {
			if err := d.charge(x); err != nil {
				return err
			}
		}
	case map[string]any:
		for k, x := range v {
			if err := d.spend(4 + len(k)/16); err != nil {
				return err
			}
			if err := d.charge(x); err != nil {
				return err
			}
		}
	}
	return nil
}

// parameter returns the value of a parameter, evaluating its default when it
// is first asked for.
func (d *Deployment) parameter(name string) (any, error) {
	key, p, ok := find(d.t.parameters, name)
	if !ok {
		return nil, fmt.Errorf("the template parameter '%s' is not found", clip(name))
	}
	if v, ok := d.values[key]; ok {
		return v, nil
	}
	if !p.hasDefault {
		if get(p.raw, "nullable") == true {
			return nil, nil
		}
		return nil, errorAt(p.path, "The value for the template parameter '%s' is not provided.", clip(key))
	}
	if d.busy["p"+key] {
		return nil, errorAt(p.path, "The parameter '%s' depends on itself.", clip(key))
	}
	d.busy["p"+key] = true
	defer delete(d.busy, "p"+key)
	in := &scope{d: d, defaults: true}
	v, err := in.tree(p.defaultTo, member(p.path, "defaultValue"))
	if err != nil {
		return nil, err
	}
	if err := d.t.checkValue(v, p.raw, p.path, 0); err != nil {
		return nil, err
	}
	if err := d.charge(v); err != nil {
		return nil, err
	}
	d.values[key] = v
	if p.secure() {
		d.collect(v)
	}
	return v, nil
}

// variable returns the value of a variable, evaluating it when it is first
// asked for.
func (d *Deployment) variable(name string) (any, error) {
	if v, ok := d.variables[strings.ToLower(name)]; ok {
		return v, nil
	}
	raw, isCopy, ok := d.t.variableText(name)
	if !ok {
		return nil, fmt.Errorf("the template variable '%s' is not found", clip(name))
	}
	key := strings.ToLower(name)
	if d.busy["v"+key] {
		return nil, errorAt("variables."+clip(name), "The variable '%s' depends on itself.", clip(name))
	}
	d.busy["v"+key] = true
	defer delete(d.busy, "v"+key)
	in := &scope{d: d}
	var v any
	var err error
	if isCopy {
		v, err = in.repeat(name, raw.(map[string]any), "variables.copy")
	} else {
		v, err = in.tree(raw, "variables."+clip(name))
	}
	if err != nil {
		return nil, err
	}
	if err := d.charge(v); err != nil {
		return nil, err
	}
	d.variables[key] = v
	return v, nil
}

// variableText finds a variable as it is written: by its name, or among the
// copy loops of the section.
func (t *Template) variableText(name string) (raw any, isCopy, ok bool) {
	list, _ := get(t.variables, "copy").([]any)
	if isCopyList(get(t.variables, "copy")) {
		for _, v := range list {
			if n, _ := get(v.(map[string]any), "name").(string); strings.EqualFold(n, name) {
				return v, true, true
			}
		}
		if strings.EqualFold(name, "copy") {
			return nil, false, false
		}
	}
	raw, ok = lookup(t.variables, name)
	return raw, false, ok
}

// find looks a name up without case. Names differ in more than case.
func find[T any](m map[string]T, name string) (key string, v T, ok bool) {
	if v, ok := m[name]; ok {
		return name, v, true
	}
	for k, v := range m {
		if strings.EqualFold(k, name) {
			return k, v, true
		}
	}
	return "", v, false
}

// withoutMembers is an object without some members, whose names have no case.
func withoutMembers(o map[string]any, names ...string) map[string]any {
	out := maps.Clone(o)
	for k := range o {
		for _, n := range names {
			if strings.EqualFold(k, n) {
				delete(out, k)
			}
		}
	}
	return out
}
