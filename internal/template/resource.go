package template

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Resource is one resource of a deployment: an item of a copy loop counts.
type Resource struct {
	ID         string // full id, in the scope of the deployment or that which the resource names
	Type       string
	Name       string
	APIVersion string
	Path       string // in the template
	Existing   bool   // only read
	Skipped    bool   // its condition is false

	d       *declaration
	symbol  string // in symbolic templates: its own name, with the index of a copy
	loops   []loop
	after   []*Resource // those that must come before it
	visited uint8
}

// Deployment tells whether the resource is a nested deployment.
func (r *Resource) Deployment() bool { return isDeployment(r.d.raw) }

// Resources are the resources in an order in which each comes after those
// that it depends on.
func (d *Deployment) Resources() []*Resource { return d.resources }

// DependsOn are the resources that must come before r.
func (r *Resource) DependsOn() []*Resource { return r.after }

// expand finds the resources, what depends on what, and the order.
func (d *Deployment) expand() error {
	for _, decl := range d.t.resources {
		if err := d.declare(decl); err != nil {
			return err
		}
	}
	if err := d.unique(); err != nil {
		return err
	}
	d.indexNames()
	for _, r := range d.resources {
		if err := d.link(r); err != nil {
			return err
		}
	}
	var ordered []*Resource
	for _, r := range d.resources {
		if err := visit(r, &ordered, 0); err != nil {
			return err
		}
	}
	d.resources = ordered
	return nil
}

// declare makes the resources of one declaration: one, or as many as its copy
// loop says.
func (d *Deployment) declare(decl *declaration) error {
	c, has := lookup(decl.raw, "copy")
	if !has {
		return d.instance(decl, nil, nil)
	}
	path := member(decl.path, "copy")
	o, ok := c.(map[string]any)
	if !ok {
		return errorAt(path, "'copy' must be an object.")
	}
	if err := onlyMembers(o, path, []string{"name", "count", "mode", "batchSize"}); err != nil {
		return err
	}
	name, ok := get(o, "name").(string)
	if !ok || name == "" {
		return errorAt(path, "A copy loop has no 'name'.")
	}
	count, err := (&scope{d: d}).count(get(o, "count"), member(path, "count"))
	if err != nil {
		return err
	}
	batch, err := batchSize(o, path)
	if err != nil {
		return err
	}
	var made []*Resource
	for i := range count {
		if err := d.instance(decl, []loop{{name, int64(i)}}, &made); err != nil {
			return err
		}
		if batch > 0 && i >= batch { // a batch begins when the one before is done
			made[i].after = slices.Clone(made[(i/batch-1)*batch : i/batch*batch])
		}
	}
	return nil
}

// batchSize is how many items of a copy loop come at a time; 0 for all.
func batchSize(o map[string]any, path string) (int, error) {
	n, has := lookup(o, "batchSize")
	mode, _ := get(o, "mode").(string)
	switch {
	case strings.EqualFold(mode, "serial"):
		size, ok := n.(int64)
		if has && (!ok || size < 1 || size > maxCopies) {
			return 0, errorAt(path, "The 'batchSize' must be between 1 and %d.", maxCopies)
		}
		return max(int(size), 1), nil
	case mode == "" || strings.EqualFold(mode, "parallel"):
		return 0, nil
	}
	return 0, errorAt(path, "The 'mode' of a copy loop must be 'serial' or 'parallel'.")
}

// instance makes one resource.
func (d *Deployment) instance(decl *declaration, loops []loop, made *[]*Resource) error {
	r := &Resource{Path: decl.path, Existing: decl.existing, d: decl, symbol: decl.symbol, loops: loops}
	if len(loops) > 0 {
		r.symbol = fmt.Sprintf("%s[%d]", decl.symbol, loops[0].index)
	}
	s := &scope{d: d, loops: loops}
	if cond, has := lookup(decl.raw, "condition"); has {
		yes, err := s.condition(cond, member(decl.path, "condition"))
		if err != nil {
			return err
		}
		r.Skipped = !yes
	}
	if up := d.parentOf(decl); up != nil && up.Skipped {
		r.Skipped = true
	}
	// What a resource that is not deployed would be called may be unknowable.
	if err := d.identify(r, s); err != nil && !r.Skipped {
		return err
	}
	if len(d.resources) >= MaxResources {
		return errorAt(decl.path, "A deployment can have at most %d resources.", MaxResources)
	}
	d.resources = append(d.resources, r)
	if made != nil {
		*made = append(*made, r)
	}
	return nil
}

func (d *Deployment) parentOf(decl *declaration) *Resource {
	if decl.parent == nil {
		return nil
	}
	i := slices.IndexFunc(d.resources, func(r *Resource) bool { return r.d == decl.parent })
	if i < 0 {
		return nil
	}
	return d.resources[i]
}

// identify evaluates what names a resource.
func (d *Deployment) identify(r *Resource, s *scope) error {
	raw, path := r.d.raw, r.d.path
	for _, part := range []struct {
		name string
		into *string
	}{{"type", &r.Type}, {"apiVersion", &r.APIVersion}, {"name", &r.Name}} {
		v, err := s.tree(get(raw, part.name), member(path, part.name))
		if err != nil {
			return err
		}
		text, ok := v.(string)
		if !ok || text == "" {
			return errorAt(member(path, part.name), "The '%s' of a resource must be a string.", part.name)
		}
		if err := d.mayName(s, get(raw, part.name), member(path, part.name)); err != nil {
			return err
		}
		*part.into = text
	}
	base, err := d.base(r, s)
	if err != nil {
		return err
	}
	if up := d.parentOf(r.d); up != nil {
		if !strings.HasPrefix(strings.ToLower(r.Type), strings.ToLower(up.Type)+"/") {
			if strings.Contains(r.Type, ".") && strings.Contains(r.Type, "/") {
				// Of another provider: it extends the resource around it.
				r.after = append(r.after, up)
				r.ID, err = resourceID(up.ID, r.Type, strings.Split(r.Name, "/"))
				return placed(err, path)
			}
			r.Type = up.Type + "/" + r.Type
		}
		if !strings.HasPrefix(strings.ToLower(r.Name), strings.ToLower(up.Name)+"/") {
			r.Name = up.Name + "/" + r.Name
		}
		r.after = append(r.after, up)
	}
	r.ID, err = resourceID(base, r.Type, strings.Split(r.Name, "/"))
	return placed(err, path)
}

// mayName refuses to call a resource by what is secret: names are in every
// log and answer.
func (d *Deployment) mayName(s *scope, raw any, path string) error {
	if d.hasSecrets() && d.taintsDeep(raw, s, 0) {
		return errorAt(path, "What names a resource cannot be made from a secure parameter.")
	}
	return nil
}

func placed(err error, path string) error {
	if err == nil {
		return nil
	}
	return errorAt(path, "%s", sentence(err))
}

// base is the scope that a resource lies in.
func (d *Deployment) base(r *Resource, s *scope) (string, error) {
	raw, path := r.d.raw, r.d.path
	texts := map[string]string{}
	for _, name := range []string{"scope", "subscriptionId", "resourceGroup"} {
		v, has := lookup(raw, name)
		if !has {
			continue
		}
		v, err := s.tree(v, member(path, name))
		if err != nil {
			return "", err
		}
		text, ok := v.(string)
		if !ok || text == "" {
			return "", errorAt(member(path, name), "The '%s' of a resource must be a string.", name)
		}
		if err := d.mayName(s, get(raw, name), member(path, name)); err != nil {
			return "", err
		}
		texts[name] = text
	}
	own := d.scopeID()
	sub, group := texts["subscriptionId"], texts["resourceGroup"]
	switch scope := texts["scope"]; {
	case (sub != "" || group != "") && !r.Existing && !r.Deployment():
		return "", errorAt(path, "Only nested deployments can have 'subscriptionId' or 'resourceGroup'.")
	case scope == "" && sub == "" && group == "":
		return own, nil
	case scope == "":
		if strings.ContainsAny(sub+group, "/?#%") {
			return "", errorAt(path, "The 'subscriptionId' or 'resourceGroup' is malformed.")
		}
		if sub == "" {
			sub = d.env.SubscriptionID
		}
		if group == "" {
			return "/subscriptions/" + sub, nil
		}
		return "/subscriptions/" + sub + "/resourceGroups/" + group, nil
	case scope == "/":
		return "", nil
	case strings.HasPrefix(scope, "/"):
		return normalID(strings.TrimSuffix(scope, "/")), nil
	case strings.HasPrefix(scope, "Microsoft.Management/"):
		return "/providers/" + scope, nil
	default: // relative to the deployment: Microsoft.KeyVault/vaults/v
		return own + "/providers/" + scope, nil
	}
}

// scopeID is the scope that the deployment's resources lie in.
func (d *Deployment) scopeID() string {
	s := "/subscriptions/" + d.env.SubscriptionID
	if d.env.Group != "" {
		s += "/resourceGroups/" + d.env.Group
	}
	return s
}

// resourceID builds the id of a resource from its type and the names of all
// its levels.
func resourceID(base, kind string, names []string) (string, error) {
	parts := strings.Split(kind, "/")
	if len(parts) < 2 || slices.Contains(parts, "") {
		return "", fmt.Errorf("the resource type '%s' is malformed", clip(kind))
	}
	types := parts[1:]
	if len(types) != len(names) || slices.Contains(names, "") {
		return "", fmt.Errorf("the resource type '%s' has %d levels, but the name has %d", clip(kind), len(types), len(names))
	}
	base = strings.TrimSuffix(base, "/")
	if strings.EqualFold(kind, "Microsoft.Resources/resourceGroups") {
		return base + "/resourceGroups/" + names[0], nil
	}
	if strings.EqualFold(kind, "Microsoft.Resources/subscriptions") {
		return "/subscriptions/" + names[0], nil
	}
	id := base + "/providers/" + parts[0]
	for i, t := range types {
		id += "/" + t + "/" + names[i]
	}
	return id, nil
}

// normalID writes the id of a resource group as the id that it has.
func normalID(id string) string {
	const long = "/providers/microsoft.resources/resourcegroups/"
	if i := strings.Index(strings.ToLower(id), long); i >= 0 {
		return id[:i] + "/resourceGroups/" + id[i+len(long):]
	}
	return id
}

// unique refuses two resources with one id.
func (d *Deployment) unique() error {
	seen := map[string]bool{}
	for _, r := range d.resources {
		key := strings.ToLower(r.ID)
		if r.Existing || r.Skipped {
			continue
		}
		if seen[key] {
			return errorAt(r.Path, "The resource '%s' of type '%s' is defined multiple times in the template.", clip(r.Name), clip(r.Type))
		}
		seen[key] = true
	}
	return nil
}

// link finds out what a resource depends on: what it says, and what its
// expressions read.
func (d *Deployment) link(r *Resource) error {
	path := member(r.d.path, "dependsOn")
	list, err := array(r.d.raw, r.d.path, "dependsOn")
	if err != nil {
		return err
	}
	if r.Skipped {
		return nil
	}
	for i, v := range list {
		v, err := (&scope{d: d, loops: r.loops}).tree(v, element(path, i))
		if err != nil {
			return err
		}
		name, ok := v.(string)
		if !ok {
			return errorAt(element(path, i), "A dependency must be a string.")
		}
		if err := d.spend(len(name)/16 + 1); err != nil {
			return errorAt(path, "%s", sentence(err))
		}
		found := d.named(name)
		if len(found) == 0 {
			err = d.spend(len(d.t.resources)) // to be looked through
		}
		if err != nil {
			return errorAt(path, "%s", sentence(err))
		}
		if len(found) == 0 && !d.emptyLoop(name) {
			return errorAt(element(path, i), "The resource '%s' is not defined in the template.", clip(name))
		}
		r.after = append(r.after, found...)
	}
	if r.Existing {
		return nil
	}
	defer func() { r.after = once(r.after) }()
	_, _, err = d.body(r, nil, &partial{refs: func(read *Resource) {
		if read != r {
			r.after = append(r.after, read)
		}
	}})
	return err
}

// once leaves out what is in a list already.
func once(list []*Resource) []*Resource {
	seen := make(map[*Resource]bool, len(list))
	return slices.DeleteFunc(list, func(r *Resource) bool {
		again := seen[r]
		seen[r] = true
		return again
	})
}

// names is an index of the resources by all that dependsOn and reference may
// call them, in the order in which a name is looked up: a name of its own, an
// id, a copy loop, type and name, or the name alone.
type names [6]map[string][]*Resource

// indexNames builds the index, once every resource has its names.
func (d *Deployment) indexNames() {
	var n names
	for i := range n {
		n[i] = map[string][]*Resource{}
	}
	add := func(i int, name string, r *Resource) {
		name = strings.ToLower(name)
		if list := n[i][name]; len(list) == 0 || list[len(list)-1] != r {
			n[i][name] = append(list, r)
		}
	}
	for _, r := range d.resources {
		if d.t.symbolic {
			add(0, r.symbol, r)
			add(1, r.d.symbol, r)
		}
		add(2, r.ID, r)
		if len(r.loops) > 0 {
			add(3, r.loops[0].name, r)
		}
		for rest := r.ID; ; {
			_, after, ok := strings.Cut(rest, "/providers/")
			if !ok {
				break
			}
			add(4, after, r)
			rest = after
		}
		add(4, r.Type+"/"+r.Name, r)
		add(5, r.Name, r)
	}
	d.names = n
}

// named finds the resources that a name in dependsOn or reference means.
func (d *Deployment) named(name string) []*Resource {
	key := strings.ToLower(strings.TrimSuffix(normalID(name), "/"))
	for _, index := range d.names {
		if found := index[key]; len(found) > 0 && key != "" {
			return found
		}
	}
	return nil
}

// emptyLoop tells whether a name is that of a copy loop which made nothing.
func (d *Deployment) emptyLoop(name string) bool {
	return slices.ContainsFunc(d.t.resources, func(decl *declaration) bool {
		o, _ := get(decl.raw, "copy").(map[string]any)
		n, _ := get(o, "name").(string)
		return o != nil && (strings.EqualFold(n, name) || decl.symbol != "" && strings.EqualFold(decl.symbol, name))
	})
}

const (
	unvisited uint8 = iota
	visiting
	visited
)

// visit puts a resource behind those that it depends on.
func visit(r *Resource, ordered *[]*Resource, depth int) error {
	switch r.visited {
	case visited:
		return nil
	case visiting:
		return errorAt(r.Path, "Circular dependency detected on resource '%s'.", clip(r.ID))
	}
	r.visited = visiting
	for _, before := range r.after {
		if err := visit(before, ordered, depth+1); err != nil {
			return err
		}
	}
	r.visited = visited
	*ordered = append(*ordered, r)
	return nil
}

// languageMembers are the members of a resource that are the language's, not
// the resource's.
var languageMembers = []string{
	"type", "apiVersion", "name", "condition", "copy", "dependsOn", "comments", "scope", "existing", "resources", "metadata",
	"subscriptionId", "resourceGroup",
}

// Body is the body of the request that deploys a resource.
func (d *Deployment) Body(r *Resource, rt Runtime) (map[string]any, error) {
	body, _, err := d.body(r, rt, nil)
	return body, outward(err)
}

// Preview is the body as far as it is known before the deployment runs.
// Expressions that need it are left as they are written, and then known is
// false.
func (d *Deployment) Preview(r *Resource) (body map[string]any, known bool, err error) {
	body, known, err = d.body(r, nil, &partial{})
	return body, known, outward(err)
}

func (d *Deployment) body(r *Resource, rt Runtime, p *partial) (map[string]any, bool, error) {
	s := &scope{d: d, loops: r.loops, runtime: rt, partial: p}
	raw := withoutMembers(r.d.raw, languageMembers...)
	var nested any
	if r.Deployment() {
		props, _ := get(raw, "properties").(map[string]any)
		var err error
		if nested, err = s.nested(props, r.d.path); err != nil {
			return nil, false, err
		}
		raw = withoutMembers(raw, "properties")
		raw["properties"] = withoutMembers(props, "template", "expressionEvaluationOptions")
	}
	v, err := s.tree(raw, r.d.path)
	if err != nil {
		return nil, false, err
	}
	body := v.(map[string]any)
	if nested != nil {
		props, ok := body["properties"].(map[string]any)
		if !ok {
			return nil, false, errorAt(r.d.path, "'properties' must be an object.")
		}
		props["template"] = nested
	}
	if err := d.charge(body); err != nil {
		return nil, false, errorAt(r.d.path, "%s", sentence(err))
	}
	return body, p == nil || !p.unknown, nil
}

// nested is the template of a nested deployment. If its expressions mean what
// they mean here, they are evaluated here, and the results stand for
// themselves in it.
func (s *scope) nested(props map[string]any, path string) (any, error) {
	t, ok := get(props, "template").(map[string]any)
	if !ok {
		return nil, errorAt(path, "A nested deployment has no 'template'.")
	}
	path = member(path, "properties")
	inner, err := hasInnerScope(props, path)
	if err != nil || inner {
		return t, err
	}
	if given, _ := get(props, "parameters").(map[string]any); len(given) > 0 {
		return nil, errorAt(path, "A nested template with the expression evaluation scope 'outer' cannot have parameters of its own.")
	}
	out := withoutMembers(t, "resources", "outputs", "parameters", "variables")
	in := *s
	in.escape = true
	for _, name := range []string{"resources", "outputs"} {
		v, has := lookup(t, name)
		if !has {
			continue
		}
		if out[name], err = in.tree(v, member(member(path, "template"), name)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// refer finds what reference() or resourceInfo() names.
func (s *scope) refer(name string) (*Resource, error) {
	found := s.d.named(name)
	switch {
	case len(found) == 0:
		return nil, fmt.Errorf("the resource '%s' is not defined in the template", clip(name))
	case len(found) > 1:
		return nil, fmt.Errorf("the resource '%s' is not one but %d of the template's resources", clip(name), len(found))
	}
	return found[0], nil
}

// read serves reference().
func (s *scope) read(args []any) (any, error) {
	name, ok := args[0].(string)
	if !ok || name == "" {
		return nil, errors.New("the first argument must be a resource's name or id")
	}
	var version string
	full := false
	for _, a := range args[1:] {
		text, ok := a.(string)
		switch {
		case !ok:
			return nil, errors.New("the arguments must be strings")
		case strings.EqualFold(text, "Full"):
			full = true
		case strings.EqualFold(text, "Properties"):
		default:
			version = text
		}
	}
	ref := Reference{ID: normalID(name), APIVersion: version}
	r, err := s.refer(name)
	switch {
	case err == nil:
		ref.ID = r.ID
		if ref.APIVersion == "" {
			ref.APIVersion = r.APIVersion
		}
		if s.partial != nil && s.partial.refs != nil {
			s.partial.refs(r)
		}
	case !strings.HasPrefix(name, "/"):
		return nil, err
	case version == "":
		return nil, fmt.Errorf("the resource '%s' is not defined in the template: give its api-version as the second argument", clip(name))
	}
	return s.readAt(ref, full)
}

func (s *scope) readAt(ref Reference, full bool) (any, error) {
	if s.runtime == nil {
		return nil, &Later{"reference"}
	}
	v, err := s.runtime.Read(ref)
	if err != nil {
		return nil, &foreign{err}
	}
	if full {
		return v, nil
	}
	props, ok := lookup(v, "properties")
	if !ok || props == nil {
		return map[string]any{}, nil
	}
	return props, nil
}

// readAll serves references(), which reads every item of a copy loop.
func (s *scope) readAll(args []any) (any, error) {
	name, _ := args[0].(string)
	full := len(args) > 1 && args[len(args)-1] == "Full"
	out := []any{}
	for _, r := range s.d.resources {
		if !s.d.t.symbolic || len(r.loops) == 0 || !strings.EqualFold(r.d.symbol, name) || r.Skipped {
			continue
		}
		if s.partial != nil && s.partial.refs != nil {
			s.partial.refs(r)
		}
		if s.runtime == nil {
			continue
		}
		v, err := s.readAt(Reference{ID: r.ID, APIVersion: r.APIVersion}, full)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	if s.runtime == nil {
		return nil, &Later{"references"}
	}
	return out, nil
}
