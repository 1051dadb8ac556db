package template

import (
	"errors"
	"slices"
	"strings"
	"time"
)

// Env is what the expressions of a deployment can ask of the world around
// it. The functions may answer an error, which then is the evaluation's.
type Env struct {
	SubscriptionID string
	Group          string // name of the resource group; empty at the scope of a subscription
	TenantID       string
	Name           string // of the deployment

	Subscription  func() (map[string]any, error) // subscription()
	ResourceGroup func() (map[string]any, error) // resourceGroup()
	Tenant        func() (map[string]any, error) // tenant()
	Deployment    map[string]any                 // deployment()
	Deployer      map[string]any                 // deployer()
	Environment   map[string]any                 // environment()

	Now     time.Time     // utcNow()
	NewGUID func() string // newGuid()

	Work *Work // that expressions may use; as of [NewWork] if nil
}

// Work is how much the expressions of one or several deployments may still
// do. It is not safe for concurrent use.
type Work struct{ left int }

// NewWork is the work that one request may cause, with all deployments that
// are nested in it.
func NewWork() *Work { return &Work{left: maxWork} }

// Reference is a resource that an expression reads.
type Reference struct {
	ID         string
	APIVersion string
}

// Runtime reads resources while a deployment runs. It answers the whole
// resource, as a GET does.
type Runtime interface {
	Read(Reference) (map[string]any, error)
}

// foreign is an error of Env or Runtime on its way through the evaluation.
type foreign struct{ error }

func (e *foreign) Unwrap() error { return e.error }

func isForeign(err error) bool {
	_, ok := errors.AsType[*foreign](err)
	return ok
}

// outward strips what is for the evaluation alone.
func outward(err error) error {
	if f, ok := errors.AsType[*foreign](err); ok {
		return f.error
	}
	return err
}

// Deployment is a template with its parameters. It is not safe for
// concurrent use.
type Deployment struct {
	t         *Template
	env       Env
	values    map[string]any // of parameters, by their declared names
	variables map[string]any
	busy      map[string]bool
	work      *Work
	resources []*Resource
	names     names
	secrets   map[string]bool
	inherited []string // secure texts of a deployment around
	secure    bool     // a parameter is secure
}

// Bind gives a template its parameters, in the form in which requests have
// them ({"name":{"value":...}}), and finds out which resources it has. Texts
// in secrets count as secure wherever they turn up.
func (t *Template) Bind(parameters map[string]any, env Env, secrets []string) (*Deployment, error) {
	d := &Deployment{
		t: t, env: env, values: map[string]any{}, variables: map[string]any{}, busy: map[string]bool{}, secrets: map[string]bool{},
		inherited: secrets, work: env.Work,
	}
	if d.work == nil {
		d.work = NewWork()
	}
	for _, s := range secrets {
		d.secrets[s] = true
	}
	for _, p := range t.parameters {
		d.secure = d.secure || p.secure()
	}
	if err := noTwins(parameters, "parameters"); err != nil {
		return nil, err
	}
	for _, name := range sorted(parameters) {
		if err := d.give(name, parameters[name]); err != nil {
			return nil, err
		}
	}
	if err := d.checkSecrets(); err != nil {
		return nil, errorAt("parameters", "%s", sentence(err))
	}
	for _, name := range sortedKeys(t.parameters) {
		if _, err := d.parameter(name); err != nil {
			return nil, outward(err)
		}
	}
	for _, name := range sorted(t.variables) {
		// A name can be that of a list of copy loops.
		if strings.EqualFold(name, "copy") && isCopyList(t.variables[name]) {
			for _, v := range t.variables[name].([]any) {
				n, _ := get(v.(map[string]any), "name").(string)
				if _, err := d.variable(n); err != nil {
					return nil, outward(err)
				}
			}
			continue
		}
		if _, err := d.variable(name); err != nil {
			return nil, outward(err)
		}
	}
	if err := d.expand(); err != nil {
		return nil, outward(err)
	}
	return d, nil
}

// give takes one parameter of the request.
func (d *Deployment) give(name string, v any) error {
	key, p, ok := find(d.t.parameters, name)
	if !ok {
		return errorAt("", "The following parameter was supplied, but does not correspond to a parameter defined in the template: '%s'.", clip(name))
	}
	o, ok := v.(map[string]any)
	if _, refers := lookup(o, "reference"); refers {
		return errorAt(p.path, "The parameter '%s' is a reference to a key vault, which is not supported: pass the value.", clip(name))
	}
	value, has := lookup(o, "value")
	if !ok || !has {
		return errorAt(p.path, "The parameter '%s' must be given as an object with the member 'value'.", clip(name))
	}
	if value == nil && p.hasDefault && get(p.raw, "nullable") != true {
		return nil // as Azure: null asks for the default
	}
	if p.secure() {
		d.collect(value)
	}
	if err := d.t.checkValue(value, p.raw, p.path, 0); err != nil {
		return err
	}
	d.values[key] = value
	return nil
}

// Secure tells whether a parameter is declared to be secure.
func (t *Template) Secure(name string) bool {
	_, p, ok := find(t.parameters, name)
	return ok && p.secure()
}

// Shown is a parameter or output as it may be kept and shown. Value is not
// set if it is secure.
type Shown struct {
	Type   string `json:"type"`
	Value  any    `json:"value,omitempty"`
	Hidden bool   `json:"-"`
}

// Parameters are the parameters as they may be kept and shown.
func (d *Deployment) Parameters() map[string]Shown {
	out, secrets := make(map[string]Shown, len(d.values)), d.Secrets()
	for name, v := range d.values {
		out[name] = show(d.t.parameters[name].kind, v, false, secrets)
	}
	return out
}

// show hides what is secure by its type, or by what it holds.
func show(kind string, v any, hide bool, secrets []string) Shown {
	s := Shown{Type: displayType(kind)}
	if hide || isSecure(kind) || holdsSecret(v, secrets) {
		s.Hidden = true
		if !isSecure(kind) && (kind == "string" || kind == "object") {
			s.Type = displayType("secure" + kind)
		}
		return s
	}
	s.Value = v
	return s
}

// displayType spells a type as Azure's answers do.
func displayType(kind string) string {
	for _, s := range []string{"String", "Int", "Bool", "Object", "Array", "SecureString", "SecureObject"} {
		if strings.EqualFold(s, kind) {
			return s
		}
	}
	return kind
}

// Outputs evaluates the outputs. Those that are made from secure parameters
// are hidden, whatever their declared type.
func (d *Deployment) Outputs(r Runtime) (map[string]Shown, error) {
	out, size := map[string]Shown{}, 0
	for _, name := range sortedKeys(d.t.outputs) {
		o := d.t.outputs[name]
		s := &scope{d: d, runtime: r}
		if cond, has := lookup(o.raw, "condition"); has {
			yes, err := s.condition(cond, member(o.path, "condition"))
			if err != nil {
				return nil, outward(err)
			}
			if !yes {
				continue
			}
		}
		v, err := s.output(o)
		if err != nil {
			return nil, outward(err)
		}
		if err := d.t.checkValue(v, o.raw, o.path, 0); err != nil {
			return nil, err
		}
		if err := d.charge(v); err != nil {
			return nil, errorAt(o.path, "%s", sentence(err))
		}
		if size += sizeOf(v); size > maxOutputSize {
			return nil, errorAt(o.path, "The outputs are larger than %d bytes.", maxOutputSize)
		}
		hide := d.hasSecrets() && (d.taintsDeep(get(o.raw, "value"), s, 0) || d.taintsDeep(get(o.raw, "copy"), s, 0))
		out[name] = show(o.kind, v, hide, d.Secrets())
	}
	return out, nil
}

// sizeOf is about how many bytes a value takes.
func sizeOf(v any) int {
	n := 8
	switch v := v.(type) {
	case string:
		n += len(v)
	case []any:
		for _, x := range v {
			n += sizeOf(x)
		}
	case map[string]any:
		for k, x := range v {
			n += len(k) + sizeOf(x)
		}
	}
	return n
}

func (s *scope) output(o *output) (any, error) {
	if c, has := lookup(o.raw, "copy"); has {
		loop, ok := c.(map[string]any)
		if !ok {
			return nil, errorAt(o.path, "'copy' must be an object.")
		}
		return s.repeat("", loop, member(o.path, "copy"))
	}
	return s.tree(get(o.raw, "value"), member(o.path, "value"))
}

func (s *scope) condition(v any, path string) (bool, error) {
	v, err := s.tree(v, path)
	if err != nil {
		return false, err
	}
	yes, err := toBool(v)
	if err != nil {
		return false, errorAt(path, "The condition must be true or false.")
	}
	return yes, nil
}

func sortedKeys[T any](m map[string]T) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
