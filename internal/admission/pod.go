package admission

import "bytes"

// pair is a label or an annotation.
type pair struct{ key, value string }

// pairs are labels or annotations in the order of the text. Those without our
// prefix have no value.
type pairs []pair

func (p pairs) get(key string) (string, bool) {
	for _, x := range p {
		if x.key == key {
			return x.value, true
		}
	}
	return "", false
}

// meta is what matters of an object's metadata.
type meta struct {
	name, generateName, uid string
	labels, annotations     pairs
	owner                   Owner // the controller; zero if there is none
}

// Owner is the object that controls a pod.
type Owner struct{ APIVersion, Kind, Name, UID string }

// pod is what matters of a pod, or of the template for pods.
type pod struct {
	meta
	serviceAccount string // "default" if the pod names none
	hostNetwork    bool
	windows        bool
	hasResources   bool // of the pod as a whole
	burstable      bool // a container lacks what those of a Guaranteed pod have

	initContainers, containers list[container]
	volumes                    list[volume]
}

// list is an array; it tells one that is absent from one that is empty, because
// an element cannot be appended to the former.
type list[T any] struct {
	present bool
	items   []T
}

// container is what matters of a container: of its variables those that
// [Rules] know, of its mounts those at places that could be ours.
type container struct {
	name   string
	env    list[envVar]
	mounts list[mount]
}

// envVar is a variable; literal if it has a value and not a reference.
type envVar struct {
	name, value string
	literal     bool
}

type mount struct {
	index        int // in the array
	volume, path string
	readOnly     bool
	sub          bool // of a part of the volume only
}

type volume struct{ name, text string }

func (c *container) variable(name string) (envVar, bool) {
	for _, v := range c.env.items {
		if v.name == name {
			return v, true
		}
	}
	return envVar{}, false
}

// object is what is admitted: a pod, something that makes pods, or a service
// account.
type object struct {
	apiVersion, kind string
	hasSpec          bool
	pod
	template *pod   // of something that makes pods
	at       string // the template's place, such as spec.template
}

func (r *reader) object(templates bool) object {
	var o object
	for key := range r.members {
		switch string(key) {
		case "apiVersion":
			o.apiVersion = r.text()
		case "kind":
			o.kind = r.text()
		case "metadata":
			o.meta = r.meta()
		case "spec":
			o.hasSpec = r.peek() == '{'
			r.spec(&o, &o.pod, "spec", templates)
		}
	}
	o.finish()
	if o.template != nil {
		o.template.finish()
	}
	return o
}

func (p *pod) finish() {
	if p.serviceAccount == "" {
		p.serviceAccount = "default"
	}
}

func (r *reader) meta() meta {
	var m meta
	for key := range r.members {
		switch string(key) {
		case "name":
			m.name = r.text()
		case "generateName":
			m.generateName = r.text()
		case "uid":
			m.uid = r.text()
		case "ownerReferences":
			m.owner = r.owner()
		case "labels":
			m.labels = r.pairs()
		case "annotations":
			m.annotations = r.pairs()
		}
	}
	return m
}

func (r *reader) owner() Owner {
	var controller Owner
	for range r.elements {
		var o Owner
		is := false
		for key := range r.members {
			switch string(key) {
			case "apiVersion":
				o.APIVersion = r.text()
			case "kind":
				o.Kind = r.text()
			case "name":
				o.Name = r.text()
			case "uid":
				o.UID = r.text()
			case "controller":
				is = r.boolean()
			}
		}
		if is {
			controller = o
		}
	}
	return controller
}

func (r *reader) pairs() pairs {
	var out pairs
	for key := range r.members {
		// Of others the keys alone are of interest, and values may be large.
		value := r.bytes()
		if !bytes.HasPrefix(key, []byte(prefix)) {
			value = nil
		}
		out = append(out, pair{string(key), string(value)})
	}
	return out
}

// spec reads that of a pod or, if templates are wanted, that of an object which
// makes pods: no field of one means something else in the other.
func (r *reader) spec(o *object, p *pod, at string, templates bool) {
	for key := range r.members {
		switch string(key) {
		case "serviceAccountName":
			if name := r.text(); name != "" {
				p.serviceAccount = name
			}
		case "serviceAccount": // its deprecated name
			if name := r.text(); p.serviceAccount == "" {
				p.serviceAccount = name
			}
		case "hostNetwork":
			p.hostNetwork = r.boolean()
		case "os":
			for key := range r.members {
				if string(key) == "name" && r.text() == "windows" {
					p.windows = true
				}
			}
		case "nodeSelector": // how Windows pods are placed that do not say os
			for key := range r.members {
				if string(key) == "kubernetes.io/os" && r.text() == "windows" {
					p.windows = true
				}
			}
		case "resources":
			p.hasResources = r.raw() != nil
		case "initContainers":
			p.initContainers = r.containers(p)
		case "containers":
			p.containers = r.containers(p)
		case "volumes":
			p.volumes = r.volumes()
		case "template":
			if templates {
				r.template(o, at+".template")
			}
		case "jobTemplate": // of a CronJob
			if !templates {
				continue
			}
			for key := range r.members {
				if string(key) == "spec" {
					r.spec(o, p, at+".jobTemplate.spec", true)
				}
			}
		}
	}
}

func (r *reader) template(o *object, at string) {
	p := &pod{}
	o.template, o.at = p, at
	for key := range r.members {
		switch string(key) {
		case "metadata":
			p.meta = r.meta()
		case "spec":
			r.spec(o, p, at+".spec", false)
		}
	}
}

func (r *reader) containers(p *pod) list[container] {
	l := list[container]{present: r.peek() == '['}
	start := r.i
	for i := range r.elements {
		if i > maxContainers {
			continue // too many, whatever they are
		}
		var c container
		guaranteed := false
		for key := range r.members {
			switch string(key) {
			case "name":
				c.name = r.text()
			case "resources":
				if !p.burstable { // else it is so already
					guaranteed = r.guaranteed()
				}
			case "env":
				c.env = r.env()
			case "volumeMounts":
				c.mounts = r.mounts()
			}
		}
		p.burstable = p.burstable || !guaranteed
		if i == 0 {
			// The others are about as long.
			l.items = make([]container, 0, min((len(r.s)-r.i)/(r.i-start)+1, maxContainers+1))
		}
		l.items = append(l.items, c)
	}
	return l
}

// guaranteed reads a container's resources and reports whether they are those of
// a pod of class Guaranteed: limits of CPU and memory, and requests, if there
// are any, of the same. API servers write equal amounts equally.
func (r *reader) guaranteed() bool {
	var limits, requests amounts
	for key := range r.members {
		switch string(key) {
		case "limits":
			limits = r.amounts()
		case "requests":
			requests = r.amounts()
		}
	}
	same := func(limit, request []byte) bool {
		return limit != nil && (request == nil || bytes.Equal(limit, request))
	}
	return same(limits.cpu, requests.cpu) && same(limits.memory, requests.memory)
}

// amounts are those that decide on a pod's class, as they are written.
type amounts struct{ cpu, memory []byte }

func (r *reader) amounts() amounts {
	var a amounts
	for key := range r.members {
		switch string(key) {
		case "cpu":
			a.cpu = r.raw()
		case "memory":
			a.memory = r.raw()
		}
	}
	return a
}

func (r *reader) env() list[envVar] {
	l := list[envVar]{present: r.peek() == '['}
	for range r.elements {
		if r.passOther() {
			continue
		}
		var name, value []byte
		literal := true
		for key := range r.members {
			switch string(key) {
			case "name":
				name = r.bytes()
			case "value":
				value = r.bytes()
			case "valueFrom":
				literal = r.raw() == nil
			}
		}
		if r.variables.has(name) {
			l.items = append(l.items, envVar{string(name), string(value), literal})
		}
	}
	return l
}

// passOther passes over a variable that is not to be kept, if its name comes
// first and all is written as API servers do. Otherwise it does nothing and
// returns false. It is for speed: much of a large pod is variables.
func (r *reader) passOther() bool {
	const first = `{"name":"`
	s, i := r.s, r.i
	if !begins(s[i:], first) {
		return false
	}
	from := i + len(first)
	if i = plain(s, from); i < 0 || r.variables.has(s[from:i-1]) {
		return false
	}
	for begins(s[i:], `,`) && !begins(s[i:], `,"name"`) {
		if i = plainName(s, i+1); i < 0 {
			return false
		}
		if i = quickly(s, i); i < 0 {
			return false
		}
	}
	if !begins(s[i:], `}`) {
		return false
	}
	r.i = i + 1
	return true
}

func (r *reader) mounts() list[mount] {
	l := list[mount]{present: r.peek() == '['}
	for i := range r.elements {
		if end := quickly(r.s, r.i); end >= 0 && !nearOurs(r.s[r.i:end]) {
			r.i = end
			continue
		}
		var volume, path []byte
		m := mount{index: i}
		for key := range r.members {
			switch string(key) {
			case "name":
				volume = r.bytes()
			case "mountPath":
				path = r.bytes()
			case "readOnly":
				m.readOnly = r.boolean()
			case "subPath", "subPathExpr":
				m.sub = len(r.bytes()) > 0 || m.sub
			}
		}
		if nearOurs(path) {
			m.volume, m.path = string(volume), string(path)
			l.items = append(l.items, m)
		}
	}
	return l
}

// nearOurs reports whether the path of a mount, or a text with it, could be that
// of one of ours.
func nearOurs(s []byte) bool {
	return bytes.Contains(s, []byte("azure")) || bytes.Contains(s, []byte("podkey"))
}

func (r *reader) volumes() list[volume] {
	l := list[volume]{present: r.peek() == '['}
	for range r.elements {
		var v volume
		start := r.i
		for key := range r.members {
			if string(key) == "name" {
				v.name = r.text()
			}
		}
		v.text = string(r.s[start:r.i])
		l.items = append(l.items, v)
	}
	return l
}
