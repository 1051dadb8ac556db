package template

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Template is a template that was understood: every section is known, every
// expression parses and calls functions that exist.
type Template struct {
	symbolic    bool // resources have names of their own (languageVersion 2.0)
	parameters  map[string]*parameter
	variables   map[string]any
	definitions map[string]any
	functions   map[string]*function // by namespace.name, lower case
	resources   []*declaration
	outputs     map[string]*output
	parsed      map[string]node // expressions by their text
	known       map[string]builtin
}

// declaration is a resource as the template writes it.
type declaration struct {
	path     string
	symbol   string // name of its own, in symbolic templates
	raw      map[string]any
	parent   *declaration // of one that is written inside another
	existing bool
}

type function struct {
	parameters []functionParameter
	path       string
	value      any
}

type functionParameter struct{ name, kind string }

type output struct {
	path, kind string
	raw        map[string]any
}

// The members that each part of a template may have, without case.
var (
	rootMembers     = []string{"$schema", "contentVersion", "languageVersion", "apiProfile", "metadata", "definitions", "parameters", "variables", "functions", "resources", "outputs"}
	functionMembers = []string{"parameters", "output", "metadata"}
	outputMembers   = []string{"type", "value", "copy", "condition", "metadata", "nullable", "items", "properties", "additionalProperties", "prefixItems", "minLength", "maxLength", "minValue", "maxValue", "allowedValues", "$ref", "sealed", "discriminator"}
	refusedSections = map[string]string{"imports": "extensions", "extensions": "extensions", "extensionconfigs": "extensions", "asserts": "assertions", "rules": "user interface definitions"}
)

// Load understands a template. Templates that it nests and that have a scope
// of their own are understood too, so that a mistake in one is found before
// anything is deployed.
func Load(root map[string]any) (*Template, error) { return load(root, "", 0) }

func load(root map[string]any, path string, depth int) (*Template, error) {
	if depth > 5 {
		return nil, errorAt(path, "Templates are nested more than 5 deep.")
	}
	t := &Template{parsed: map[string]node{}, known: builtins()}
	for name := range root {
		if what := refusedSections[strings.ToLower(name)]; what != "" {
			return nil, errorAt(member(path, name), "The template uses %s, which are not supported.", what)
		}
	}
	if err := onlyMembers(root, path, rootMembers); err != nil {
		return nil, err
	}
	if err := t.header(root, path); err != nil {
		return nil, err
	}
	for _, section := range []func(map[string]any, string) error{t.loadDefinitions, t.loadFunctions, t.loadParameters, t.loadVariables, t.loadOutputs} {
		if err := section(root, path); err != nil {
			return nil, err
		}
	}
	return t, t.loadResources(root, path, depth)
}

// header checks schema and versions.
func (t *Template) header(root map[string]any, path string) error {
	schema, _ := get(root, "$schema").(string)
	switch name := strings.ToLower(strings.TrimSuffix(schema[strings.LastIndexByte(schema, '/')+1:], "#")); name {
	case "deploymenttemplate.json", "subscriptiondeploymenttemplate.json":
	case "":
		return errorAt(member(path, "$schema"), "The template has no '$schema'.")
	default:
		return errorAt(member(path, "$schema"), "The schema '%s' is not supported: supported are 'deploymentTemplate.json' and 'subscriptionDeploymentTemplate.json'.", clip(schema))
	}
	if v, ok := get(root, "contentVersion").(string); !ok || v == "" {
		return errorAt(member(path, "contentVersion"), "The template has no 'contentVersion'.")
	}
	switch v := get(root, "languageVersion"); v {
	case nil, "1.0", "1.9-experimental":
	case "2.0", "2.1-experimental", "2.2-experimental":
		t.symbolic = true
	default:
		return errorAt(member(path, "languageVersion"), "The language version is not supported: supported are '1.0' and '2.0'.")
	}
	if v := get(root, "apiProfile"); v != nil && v != "" {
		return errorAt(member(path, "apiProfile"), "API profiles are not supported: give every resource an 'apiVersion'.")
	}
	return nil
}

func (t *Template) loadDefinitions(root map[string]any, path string) (err error) {
	t.definitions, err = section(root, path, "definitions", maxNamed)
	if err != nil {
		return err
	}
	path = member(path, "definitions")
	for _, name := range sorted(t.definitions) {
		if err := t.checkType(t.definitions[name], member(path, name), 0); err != nil {
			return err
		}
	}
	return nil
}

func (t *Template) loadVariables(root map[string]any, path string) (err error) {
	if t.variables, err = section(root, path, "variables", maxVariables); err != nil {
		return err
	}
	return t.parseAll(t.variables, member(path, "variables"))
}

func (t *Template) loadFunctions(root map[string]any, path string) error {
	t.functions = map[string]*function{}
	list, err := array(root, path, "functions")
	if err != nil {
		return err
	}
	path = member(path, "functions")
	for i, v := range list {
		at := element(path, i)
		ns, ok := v.(map[string]any)
		if !ok {
			return errorAt(at, "A namespace of functions must be an object.")
		}
		if err := onlyMembers(ns, at, []string{"namespace", "members"}); err != nil {
			return err
		}
		name, ok := get(ns, "namespace").(string)
		if !ok || name == "" {
			return errorAt(at, "A namespace of functions has no 'namespace'.")
		}
		members, err := section(ns, at, "members", maxNamed)
		if err != nil {
			return err
		}
		for _, f := range sorted(members) {
			key := strings.ToLower(name + "." + f)
			if t.functions[key] != nil {
				return errorAt(at, "The function '%s' is defined twice.", clip(name+"."+f))
			}
			if t.functions[key], err = t.loadFunction(members[f], member(member(at, "members"), f)); err != nil {
				return err
			}
		}
	}
	for _, f := range t.functions { // now that each is known: they may call one another
		if err := t.parseAll(f.value, member(f.path, "value")); err != nil {
			return err
		}
	}
	return nil
}

func (t *Template) loadFunction(v any, path string) (*function, error) {
	raw, ok := v.(map[string]any)
	if !ok {
		return nil, errorAt(path, "A function must be an object.")
	}
	if err := onlyMembers(raw, path, functionMembers); err != nil {
		return nil, err
	}
	f := &function{path: member(path, "output")}
	list, err := array(raw, path, "parameters")
	if err != nil {
		return nil, err
	}
	for i, v := range list {
		at := element(member(path, "parameters"), i)
		p, ok := v.(map[string]any)
		if !ok {
			return nil, errorAt(at, "A parameter must be an object.")
		}
		name, _ := get(p, "name").(string)
		if name == "" {
			return nil, errorAt(at, "A parameter of a function has no 'name'.")
		}
		kind, _ := get(p, "type").(string)
		f.parameters = append(f.parameters, functionParameter{name, strings.ToLower(kind)})
	}
	out, ok := get(raw, "output").(map[string]any)
	if !ok {
		return nil, errorAt(path, "A function has no 'output'.")
	}
	f.value = get(out, "value")
	return f, nil
}

func (t *Template) loadOutputs(root map[string]any, path string) error {
	t.outputs = map[string]*output{}
	all, err := section(root, path, "outputs", maxOutputs)
	if err != nil {
		return err
	}
	path = member(path, "outputs")
	for name, v := range all {
		at := member(path, name)
		raw, ok := v.(map[string]any)
		if !ok {
			return errorAt(at, "An output must be an object.")
		}
		if err := onlyMembers(raw, at, outputMembers); err != nil {
			return err
		}
		o := &output{path: at, raw: raw}
		if o.kind, err = t.typeName(raw, at); err != nil {
			return err
		}
		if _, has := lookup(raw, "value"); has == (get(raw, "copy") != nil) {
			return errorAt(at, "An output must have either 'value' or 'copy'.")
		}
		for _, part := range []string{"value", "copy", "condition"} {
			if err := t.parseAll(get(raw, part), member(at, part)); err != nil {
				return err
			}
		}
		t.outputs[name] = o
	}
	return nil
}

// loadResources reads the resources: a list, or in symbolic templates an
// object whose members are the resources' own names.
func (t *Template) loadResources(root map[string]any, path string, depth int) error {
	path = member(path, "resources")
	switch list := get(root, "resources").(type) {
	case nil:
		return errorAt(path, "The template has no 'resources'.")
	case []any:
		if t.symbolic {
			return errorAt(path, "With language version 2.0, 'resources' must be an object.")
		}
		for i, v := range list {
			if err := t.loadResource(v, element(path, i), "", nil, depth); err != nil {
				return err
			}
		}
	case map[string]any:
		if !t.symbolic {
			return errorAt(path, "'resources' must be a list, unless the language version is 2.0.")
		}
		if err := noTwins(list, path); err != nil {
			return err
		}
		for _, name := range sorted(list) {
			if err := t.loadResource(list[name], member(path, name), name, nil, depth); err != nil {
				return err
			}
		}
	default:
		return errorAt(path, "'resources' must be a list.")
	}
	return nil
}

func (t *Template) loadResource(v any, path, symbol string, parent *declaration, depth int) error {
	raw, ok := v.(map[string]any)
	if !ok {
		return errorAt(path, "A resource must be an object.")
	}
	if len(t.resources) >= MaxResources {
		return errorAt(path, "A template can have at most %d resources.", MaxResources)
	}
	if err := noTwins(raw, path); err != nil {
		return err
	}
	d := &declaration{path: path, symbol: symbol, raw: raw, parent: parent}
	d.existing, _ = get(raw, "existing").(bool)
	for _, name := range []string{"import", "extension", "asserts", "$options", "zonesOptions"} {
		if _, has := lookup(raw, name); has && name != "$options" {
			return errorAt(member(path, name), "The member '%s' of a resource is not supported.", name)
		}
	}
	if _, ok := get(raw, "type").(string); !ok {
		return errorAt(path, "A resource has no 'type'.")
	}
	if _, ok := get(raw, "apiVersion").(string); !ok {
		return errorAt(path, "A resource has no 'apiVersion'.")
	}
	if _, ok := get(raw, "name").(string); !ok {
		return errorAt(path, "A resource has no 'name'.")
	}
	if _, has := lookup(raw, "existing"); has && (!t.symbolic || get(raw, "existing") != d.existing) {
		return errorAt(member(path, "existing"), "'existing' must be true or false, in a template of language version 2.0.")
	}
	t.resources = append(t.resources, d)
	for _, name := range sorted(raw) {
		at := member(path, name)
		switch strings.ToLower(name) {
		case "metadata", "comments", "resources":
		case "properties":
			if err := t.loadProperties(d, at, depth); err != nil {
				return err
			}
		default:
			if err := t.parseAll(map[string]any{name: raw[name]}, path); err != nil {
				return err
			}
		}
	}
	return t.loadChildren(d, depth)
}

func (t *Template) loadChildren(d *declaration, depth int) error {
	children, err := array(d.raw, d.path, "resources")
	if err != nil {
		return err
	}
	if len(children) > 0 && get(d.raw, "copy") != nil {
		return errorAt(member(d.path, "resources"), "A resource with 'copy' cannot have resources inside: write them beside it.")
	}
	if len(children) > 0 && strings.Count(d.path, ".resources[") > 4 {
		return errorAt(member(d.path, "resources"), "Resources are nested too deeply.")
	}
	for i, v := range children {
		if err := t.loadResource(v, element(member(d.path, "resources"), i), "", d, depth); err != nil {
			return err
		}
	}
	return nil
}

// loadProperties parses the expressions in a resource's properties. Those of
// a nested template with a scope of its own are not this template's.
func (t *Template) loadProperties(d *declaration, path string, depth int) error {
	p := get(d.raw, "properties")
	props, ok := p.(map[string]any)
	if !ok || !isDeployment(d.raw) {
		return t.parseAll(p, path)
	}
	for _, link := range []string{"templateLink", "parametersLink", "onErrorDeployment", "contentLink"} {
		if _, has := lookup(props, link); has {
			return errorAt(member(path, link), "'%s' is not supported: only templates that are written in place are.", link)
		}
	}
	inner, err := hasInnerScope(props, path)
	if err != nil {
		return err
	}
	nested, ok := get(props, "template").(map[string]any)
	if !ok {
		return errorAt(path, "A nested deployment has no 'template'.")
	}
	own := maps.Clone(props)
	maps.DeleteFunc(own, func(k string, _ any) bool { return strings.EqualFold(k, "template") })
	if err := t.parseAll(own, path); err != nil {
		return err
	}
	path = member(path, "template")
	if inner {
		_, err := load(nested, path, depth+1)
		return err
	}
	for _, name := range []string{"resources", "outputs"} {
		if hasCopy(get(nested, name)) {
			return errorAt(member(path, name), "'copy' in a nested template is supported only with the expression evaluation scope 'inner'.")
		}
		if err := t.parseAll(get(nested, name), member(path, name)); err != nil {
			return err
		}
	}
	return nil
}

func isDeployment(raw map[string]any) bool {
	kind, _ := get(raw, "type").(string)
	return strings.EqualFold(kind, "Microsoft.Resources/deployments")
}

// hasInnerScope tells whether the expressions of a nested template mean what
// they mean in itself, not in the template around it.
func hasInnerScope(props map[string]any, path string) (bool, error) {
	options := get(props, "expressionEvaluationOptions")
	o, _ := options.(map[string]any)
	scope := get(o, "scope")
	s, _ := scope.(string)
	switch strings.ToLower(s) {
	case "inner":
		return true, nil
	case "outer", "notspecified":
		return false, nil
	}
	if options == nil || o != nil && scope == nil {
		return false, nil
	}
	return false, errorAt(member(path, "expressionEvaluationOptions"), "The expression evaluation scope must be 'inner' or 'outer'.")
}

func hasCopy(v any) bool {
	switch v := v.(type) {
	case []any:
		return slices.ContainsFunc(v, hasCopy)
	case map[string]any:
		for k, x := range v {
			if strings.EqualFold(k, "copy") || hasCopy(x) {
				return true
			}
		}
	}
	return false
}

// parseAll parses every expression in a value, names of members included,
// and looks up what they call.
func (t *Template) parseAll(v any, path string) error {
	switch v := v.(type) {
	case string:
		return t.parseOne(v, path)
	case []any:
		for i, x := range v {
			if err := t.parseAll(x, element(path, i)); err != nil {
				return err
			}
		}
	case map[string]any:
		for _, k := range sorted(v) {
			at := member(path, k)
			if err := t.parseOne(k, at); err != nil {
				return err
			}
			if err := t.parseAll(v[k], at); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *Template) parseOne(s, path string) error {
	if !isExpression(s) || t.parsed[s] != nil {
		return nil
	}
	n, err := parseExpression(s)
	if err == nil {
		err = t.checkCalls(n)
	}
	if err != nil {
		return errorAt(path, "%s", sentence(err))
	}
	t.parsed[s] = n
	return nil
}

// checkCalls makes sure that every function exists and takes that many
// arguments.
func (t *Template) checkCalls(n node) error {
	switch n := n.(type) {
	case access:
		if err := t.checkCalls(n.base); err != nil {
			return err
		}
		return t.checkCalls(n.index)
	case call:
		for _, a := range n.args {
			if err := t.checkCalls(a); err != nil {
				return err
			}
		}
		if n.namespace != "" {
			f := t.functions[strings.ToLower(n.namespace+"."+n.name)]
			switch {
			case f != nil && len(n.args) != len(f.parameters):
				return fmt.Errorf("the function '%s' takes %d arguments", clip(n.namespace+"."+n.name), len(f.parameters))
			case f != nil:
				return nil
			}
		}
		b, ok := t.known[strings.ToLower(n.name)]
		switch {
		case n.namespace != "" && !strings.EqualFold(n.namespace, "sys"), !ok:
			return unknownFunction(n)
		case b.refused != "":
			return fmt.Errorf("the template function '%s' is not supported: %s", clip(n.name), b.refused)
		case len(n.args) < b.least || b.most >= 0 && len(n.args) > b.most:
			return fmt.Errorf("the template function '%s' cannot take %d arguments", clip(n.name), len(n.args))
		}
	}
	return nil
}

func unknownFunction(n call) error {
	name := n.name
	if n.namespace != "" {
		name = n.namespace + "." + name
	}
	if strings.HasPrefix(strings.ToLower(n.name), "list") {
		return fmt.Errorf("the template function '%s' is not supported: secrets and keys of resources cannot be read by templates", clip(name))
	}
	return fmt.Errorf("the template function '%s' is not valid or not supported", clip(name))
}

// sentence makes an error's text one: it is part of an answer.
func sentence(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Message
	}
	s := err.Error()
	if s == "" {
		return s
	}
	s = strings.ToUpper(s[:1]) + s[1:]
	if !strings.HasSuffix(s, ".") {
		s += "."
	}
	return s
}

// get returns a member of an object, whose name is in any case; nil if there
// is none.
func get(o map[string]any, name string) any {
	v, _ := lookup(o, name)
	return v
}

// lookup finds a member as it is written or, failing that, without case. Of
// several that differ in case the first in order is meant.
func lookup(o map[string]any, name string) (any, bool) {
	if v, ok := o[name]; ok {
		return v, true
	}
	best, found := "", false
	for k := range o {
		if len(k) == len(name) && strings.EqualFold(k, name) && (!found || k < best) {
			best, found = k, true
		}
	}
	return o[best], found
}

func sorted(o map[string]any) []string {
	return slices.SortedFunc(maps.Keys(o), func(a, b string) int { return cmp.Compare(a, b) })
}

// section returns a member that must be an object, empty if there is none.
func section(o map[string]any, path, name string, most int) (map[string]any, error) {
	path = member(path, name)
	v := get(o, name)
	if v == nil {
		return map[string]any{}, nil
	}
	s, ok := v.(map[string]any)
	switch {
	case !ok:
		return nil, errorAt(path, "'%s' must be an object.", name)
	case len(s) > most:
		return nil, errorAt(path, "'%s' can have at most %d members.", name, most)
	}
	return s, noTwins(s, path)
}

func array(o map[string]any, path, name string) ([]any, error) {
	v := get(o, name)
	if v == nil {
		return nil, nil
	}
	list, ok := v.([]any)
	if !ok {
		return nil, errorAt(member(path, name), "'%s' must be a list.", name)
	}
	return list, nil
}

// noTwins refuses members whose names differ in case alone: they are the
// same name to the language.
func noTwins(o map[string]any, path string) error {
	seen := make(map[string]bool, len(o))
	for _, k := range sorted(o) {
		low := strings.ToLower(k)
		if seen[low] {
			return errorAt(path, "The name '%s' is given twice: names have no case.", clip(k))
		}
		seen[low] = true
	}
	return nil
}

func onlyMembers(o map[string]any, path string, known []string) error {
	for _, k := range sorted(o) {
		if !slices.ContainsFunc(known, func(n string) bool { return strings.EqualFold(n, k) }) {
			return errorAt(member(path, k), "The member '%s' is not known here.", clip(k))
		}
	}
	return noTwins(o, path)
}
