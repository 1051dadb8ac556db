package admission

import (
	"context"
	"slices"
	"strconv"
	"strings"
)

// Rules decide on pods by one configuration. They may be used concurrently.
type Rules struct {
	config    Config
	variables names      // all that may be set or looked at
	known     []knownKey // annotations that are read
}

// names is a set of names. Most that are asked for are not in it.
type names struct {
	all     map[string]bool
	lengths uint64 // a bit for each length that occurs
}

func (n *names) add(name string) {
	if n.all == nil {
		n.all = map[string]bool{}
	}
	n.all[name] = true
	n.lengths |= 1 << min(len(name), 63)
}

func (n *names) has(name []byte) bool {
	return n.lengths>>min(len(name), 63)&1 == 1 && n.all[string(name)]
}

// New checks the configuration.
func New(c Config) (*Rules, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	r := &Rules{config: c.withDefaults()}
	for _, name := range []string{
		clientName, tenantName, fileName, authorityName,
		endpointProxyName, endpointSNIName, endpointFileName, endpointDataName,
		identityEndpointName, identityHeader.name, podName, podNamespaceName, nodeName,
	} {
		r.variables.add(name)
	}
	for _, v := range trustVariables {
		r.variables.add(v.name)
	}
	for _, v := range c.Extra {
		r.variables.add(v.Name)
	}
	r.known = knownKeys(r.config.CustomEndpoint)
	return r, nil
}

// Mutate answers a review of the creation of a pod. Every pod that is sent gets
// an identity: the API server sends those with the label. Anything but the
// creation of a pod, and the mirror of a static pod, which may have no token,
// is let through as it is.
//
// The answer is written over into, which may be nil: answers of hundreds of
// kilobytes for each large pod are most of what there is to allocate. Nothing of
// review is kept.
func (r *Rules) Mutate(ctx context.Context, review []byte, lookup Lookup, into []byte) Response {
	q, err := r.decodeReview(review, false, into)
	if err != nil {
		return q.deny(&denial{BadReview, err.Error()})
	}
	if q.operation != "CREATE" && q.operation != "" || q.subResource != "" {
		return q.allow(Skipped)
	}
	if d := q.checkPod(); d != nil {
		return q.deny(d)
	}
	if _, ok := q.object.annotations.get(mirrorAnnotation); ok {
		return q.allow(SkippedMirror)
	}
	sa, d := account(ctx, lookup, q.namespace, q.object.serviceAccount)
	if d != nil {
		return q.deny(d)
	}
	patched, d := r.patch(&q.object.pod, &sa, q.beginPatch())
	if d != nil {
		return q.deny(d)
	}
	var out Response
	if patched == nil {
		out = q.allow(Unchanged)
	} else {
		out = q.mutate(patched)
	}
	out.NoClientID = sa.Annotations[clientIDAnnotation] == ""
	return out
}

// plan is everything that one pod gets.
type plan struct {
	rules *Rules
	pod   *pod
	proxy proxy
	trust bool

	skip      map[string]bool // containers that are not touched
	audience  string          // of the token
	variables []variable      // of every container
	users     []variable      // of the user's besides
	server    []variable      // of the proxy besides
	mounts    []wantedMount
	holders   map[held]bool // user's volumes and where in them tokens are, see holdsToken

	patch  patch
	lacked []*variable // reused
	values []*element  // reused
}

// wantedMount is one that every container gets.
type wantedMount struct {
	element
	volume, path string
	token        string // where in the volume the token is; empty if it holds none
	what         string // for messages
}

func (m *wantedMount) spec() mountSpec {
	return mountSpec{Name: m.volume, MountPath: m.path, ReadOnly: true}
}

// patch is what a pod of that service account lacks, in base64 behind what b
// holds. It is nil if there is nothing.
func (r *Rules) patch(p *pod, sa *ServiceAccount, b []byte) ([]byte, *denial) {
	x := plan{rules: r, pod: p, trust: r.config.Trust != nil && !p.windows, audience: r.config.Audience, patch: newPatch(b)}
	if len(p.initContainers.items)+len(p.containers.items) > maxContainers {
		return nil, &denial{TooLarge, "the pod has more than " + strconv.Itoa(maxContainers) + " containers: no more can get an identity"}
	}
	var d *denial
	if x.proxy, d = r.wantedProxy(p); d != nil {
		return nil, d
	}
	seconds, d := expiration(p.annotations, sa)
	if d != nil {
		return nil, d
	}
	x.skip = skipped(p)

	layout := r.config.Profile.layout(p)
	x.variables = []variable{
		{name: clientName, value: sa.Annotations[clientIDAnnotation]},
		{name: tenantName, value: sa.tenant(r.config.TenantID)},
		{name: fileName, value: layout.file},
		{name: authorityName, value: r.config.AuthorityHost},
	}
	var more map[string]any
	if e := r.config.CustomEndpoint; e.chosen(p.annotations) {
		x.audience, more = e.Audience, e.source()
		x.variables = append(x.variables, e.variables(layout.places[0].path)...)
	}
	for _, v := range r.config.Extra {
		x.variables = append(x.variables, variable{name: v.Name, value: v.Value, authority: true})
	}
	for _, at := range layout.places {
		x.mounts = append(x.mounts, wantedMount{volume: layout.volume, path: at.path, token: at.token, what: "the token"})
	}
	volumes := [][]byte{encode(layout.projected(x.audience, seconds, more))}
	names := []string{layout.volume}
	if x.trust {
		x.variables = append(x.variables, trustVariables...)
		x.mounts = append(x.mounts, wantedMount{volume: trustName, path: trustPath, what: "what is to be trusted"})
		volumes, names = append(volumes, encode(trustVolume)), append(names, trustName)
	}

	x.users, x.server = x.proxy.variables(), x.proxy.own()
	for _, vars := range [][]variable{x.variables, x.users, x.server} {
		for i := range vars {
			vars[i].text = vars[i].json()
		}
	}
	for i := range x.mounts {
		x.mounts[i].text = encode(x.mounts[i].spec())
	}

	// Changes of the user's containers first, by the indices that they have
	// before ours are put among them.
	if d := x.containers("/spec/initContainers", p.initContainers.items, true); d != nil {
		return nil, d
	}
	if d := x.containers("/spec/containers", p.containers.items, false); d != nil {
		return nil, d
	}
	x.inject()
	x.volumes(names, volumes)
	return x.patch.bytes(), nil
}

// The variables of every container. Each name that is set must be known to
// [New].
const (
	clientName    = "AZURE_CLIENT_ID"
	tenantName    = "AZURE_TENANT_ID"
	fileName      = "AZURE_FEDERATED_TOKEN_FILE"
	authorityName = "AZURE_AUTHORITY_HOST"
)

// The API server asks before it looks at a pod itself, so a pod can be anything.
// Beyond these bounds it is refused. No real one comes near: the API server
// keeps objects of up to 1.5 MiB, and takes answers of up to 3 MiB more or less.
const (
	maxContainers = 1000
	maxPatch      = 4 << 20 // in base64

	// maxGuess is how much room is made at most on the evidence of the first
	// container alone.
	maxGuess = 256 << 10
)

// role is what a container is to us.
type role int

const (
	users      role = iota // the user's: gets token and trust
	server                 // the proxy: gets them too, whatever is to be skipped
	helper                 // needs neither: what sets up the redirection, what writes the trust files
	passedOver             // named in the annotation skip-containers
)

// skipped are the names of the containers that a pod's author wants left alone.
func skipped(p *pod) map[string]bool {
	v, ok := p.annotations.get(skipAnnotation)
	if !ok {
		return nil
	}
	out := map[string]bool{}
	for name := range strings.SplitSeq(v, ";") {
		out[strings.TrimSpace(name)] = true
	}
	return out
}

// role depends on names alone, so that a container of ours is treated in a
// second pass as it was when it was injected.
func (x *plan) role(name string, initial bool) role {
	switch {
	case x.proxy.on && name == proxyName:
		return server
	case x.proxy.on && !x.proxy.appService && initial && name == proxyInitName,
		x.trust && initial && name == trustName:
		return helper
	case x.skip[name]:
		return passedOver
	}
	return users
}

// missing are the variables that a container is to have and does not. They are
// good until the next call.
func (x *plan) missing(c *container, as role) []*variable {
	out := x.lacked[:0]
	add := func(vars []variable) {
		for i := range vars {
			v := &vars[i]
			if v.value == "" && v.field == "" {
				continue
			}
			if _, ok := c.variable(v.name); ok {
				continue
			}
			if v.unless != "" {
				if _, ok := c.variable(v.unless); ok {
					continue
				}
			}
			if v.authority {
				if a, ok := c.variable(authorityName); ok && (!a.literal || a.value != unexpanded(x.rules.config.AuthorityHost)) {
					continue
				}
			}
			out = append(out, v)
		}
	}
	add(x.variables)
	if as == server {
		add(x.server)
	} else {
		add(x.users)
	}
	x.lacked = out
	return out
}

// injectedSize is about what our containers and volumes take in base64.
const injectedSize = 8 << 10

// containers adds to each of the pod's containers.
func (x *plan) containers(at string, all []container, initial bool) *denial {
	before := len(x.patch.b)
	for i := range all {
		c := &all[i]
		as := x.role(c.name, initial)
		if as == helper || as == passedOver {
			continue
		}
		x.values = x.values[:0]
		for _, v := range x.missing(c, as) {
			x.values = append(x.values, &v.element)
		}
		x.patch.addElements(x.values, c.env.present, at, i, "/env")

		x.values = x.values[:0]
		for j := range x.mounts {
			m := &x.mounts[j]
			has, ok := c.mounted(m.path)
			if !ok {
				x.values = append(x.values, &m.element)
				continue
			}
			switch {
			case has.volume == m.volume:
				if !has.readOnly || has.sub || has.path != m.path {
					x.patch.replace(m.text, at, i, "/volumeMounts/"+strconv.Itoa(has.index))
				}
			case !has.sub && x.holdsToken(has.volume, m.token):
				// The same by another name.
			default:
				return &denial{BadMount, "container " + strconv.Quote(clip(c.name)) + " mounts volume " + strconv.Quote(clip(has.volume)) +
					" at " + m.path + ", where " + m.what + " belongs: mount it elsewhere, or name the container in the annotation " + skipAnnotation}
			}
		}
		x.patch.addElements(x.values, c.mounts.present, at, i, "/volumeMounts")
		if i == 0 {
			// The others lack about as much. The rest is for what is injected.
			x.patch.b = slices.Grow(x.patch.b, min(len(all)*(len(x.patch.b)-before), maxGuess)+injectedSize)
		} else if mean, rest := (len(x.patch.b)-before)/i, len(all)-1-i; cap(x.patch.b)-len(x.patch.b) < min(2, rest)*mean {
			// Up to twice as much: append would add a quarter, and copy it
			// all four times.
			x.patch.b = slices.Grow(x.patch.b, min(rest*mean, len(x.patch.b))+injectedSize)
		}
		if len(x.patch.b) > maxPatch {
			return &denial{TooLarge, "what its containers lack comes to more than " + strconv.Itoa(maxPatch>>20) +
				" MiB: name those that need no identity in the annotation " + skipAnnotation}
		}
	}
	return nil
}

// inject puts our containers among the pod's: first what the others need.
func (x *plan) inject() {
	r, native, sizes := x.rules, x.rules.config.NativeSidecars, x.pod.sizes()
	var first []*containerSpec
	if x.trust {
		first = append(first, r.trustContainer(sizes))
	}
	redirect := x.proxy.on && !x.proxy.appService
	if x.proxy.on && native {
		first = append(first, r.proxyContainer(x.proxy, sizes))
		if redirect {
			// Before the user's, so that they find the redirection too.
			first = append(first, r.proxyInitContainer(x.proxy, sizes))
		}
	}
	x.insert("/spec/initContainers", x.pod.initContainers, first)
	if x.proxy.on && !native {
		if redirect && !x.pod.has(proxyInitName) {
			// Last: until the proxy runs there is nothing to redirect to.
			present := x.pod.initContainers.present || x.trust && !x.pod.has(trustName)
			x.patch.appendAll([][]byte{encode(r.proxyInitContainer(x.proxy, sizes))}, present, "/spec/initContainers", -1, "")
		}
		x.insert("/spec/containers", x.pod.containers, []*containerSpec{r.proxyContainer(x.proxy, sizes)})
	}
}

// insert puts containers to the front in their order, each behind its
// predecessor, also where that one is there already.
func (x *plan) insert(at string, have list[container], first []*containerSpec) {
	next, inserted := 0, 0
	var values [][]byte
	for _, c := range first {
		if k := slices.IndexFunc(have.items, func(h container) bool { return h.name == c.Name }); k >= 0 {
			next = max(next, k+1+inserted)
			continue
		}
		if x.pod.has(c.Name) {
			continue
		}
		if as := x.role(c.Name, true); as != helper {
			for _, v := range x.missing(&container{}, as) {
				c.Env = append(c.Env, v.spec())
			}
			for i := range x.mounts {
				c.VolumeMounts = append(c.VolumeMounts, x.mounts[i].spec())
			}
		}
		if have.present {
			x.patch.add(encode(c), at, next, "")
		} else {
			values = append(values, encode(c))
		}
		next++
		inserted++
	}
	x.patch.appendAll(values, false, at, -1, "")
}

// volumes adds ours, and puts right those that are there already.
func (x *plan) volumes(names []string, values [][]byte) {
	have := x.pod.volumes
	var add [][]byte
	for i, name := range names {
		k := slices.IndexFunc(have.items, func(v volume) bool { return v.name == name })
		switch {
		case k < 0:
			add = append(add, values[i])
		case !sameVolume(have.items[k].text, values[i]):
			x.patch.replace(values[i], "/spec/volumes", k, "")
		}
	}
	x.patch.appendAll(add, have.present, "/spec/volumes", -1, "")
}
