package admission

import (
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/podkey/podkey/internal/text"
)

// patch is a JSON Patch (RFC 6902) in the making, in base64, which is how an
// answer has it, behind what b holds at the start. Its paths consist of names
// that this package knows and of indices, so nothing in them needs escaping;
// what a pod's author chose occurs in values only.
//
// A pod of many containers gets much the same for each of them. The text is
// therefore made of pieces, and each is filled up with spaces to a multiple of
// three bytes: base64 has no seams there, so that what occurs often is encoded
// once.
type patch struct {
	b     []byte
	start int    // where the patch begins in b
	text  []byte // of one piece, reused
	first []byte // what head returned last
	at    string // and of which element of which array that is
	of    int
}

// newPatch writes behind what b holds.
func newPatch(b []byte) patch { return patch{b: b, start: len(b)} }

// Every operation begins with opening, three bytes. In the first one the
// bracket of the array takes the comma's place.
const (
	opening      = `,{"`
	firstOpening = `[{"`
)

// encoded appends the base64 of a piece, which is filled up.
func encoded(b, piece []byte) []byte {
	for len(piece)%3 != 0 {
		piece = append(piece, ' ')
	}
	return base64.StdEncoding.AppendEncode(b, piece)
}

// add adds at a path, which is given in parts: a name that begins with a slash,
// and then indices and names.
func (p *patch) add(value []byte, at string, index int, rest string) {
	p.operation("add", value, at, index, rest)
}

func (p *patch) replace(value []byte, at string, index int, rest string) {
	p.operation("replace", value, at, index, rest)
}

// operation writes one; a negative index is left out of the path.
func (p *patch) operation(op string, value []byte, at string, index int, rest string) {
	b := append(append(p.text[:0], opening+`op":"`...), op...)
	b = append(append(b, `","path":"`...), at...)
	if index >= 0 {
		b = strconv.AppendInt(append(b, '/'), int64(index), 10)
	}
	b = tail(b, rest, value)
	p.b = encoded(p.b, b)
	p.text = b
}

// tail is the end of an operation, behind the index in its path.
func tail(b []byte, rest string, value []byte) []byte {
	b = append(append(b, rest...), `","value":`...)
	return append(append(b, value...), '}')
}

// head is the beginning of an operation that adds in an element of an array, up
// to the index in its path, encoded: any tail that is encoded may follow it. It
// is good until the next call.
func (p *patch) head(at string, index int) []byte {
	if p.of == index && len(p.first) > 0 && p.at == at {
		return p.first
	}
	p.at, p.of = at, index
	b := append(p.text[:0], opening+`op":"add",`...)
	rest := len(`"path":"`) + len(at) + len(`/`) + decimals(index)
	for (len(b)+rest)%3 != 0 {
		b = append(b, ' ')
	}
	b = append(append(b, `"path":"`...), at...)
	b = strconv.AppendInt(append(b, '/'), int64(index), 10)
	p.text, p.first = b, encoded(p.first[:0], b)
	return p.first
}

// decimals is how many digits a number has that is not negative.
func decimals(n int) int {
	d := 1
	for ; n >= 10; n /= 10 {
		d++
	}
	return d
}

// bytes is the whole, nil if there is nothing to do.
func (p *patch) bytes() []byte {
	if len(p.b) == p.start {
		return nil
	}
	base64.StdEncoding.Encode(p.b[p.start:], []byte(firstOpening))
	return encoded(p.b, []byte("]"))
}

// appendAll adds elements to the end of an array, which is made if it is not
// there. The path is that of add, without what marks the end.
func (p *patch) appendAll(values [][]byte, present bool, at string, index int, rest string) {
	if len(values) == 0 {
		return
	}
	if !present {
		p.add(array(values), at, index, rest)
		return
	}
	for _, v := range values {
		p.add(v, at, index, rest+"/-")
	}
}

// element is one that is added to an array in many containers.
type element struct {
	text []byte
	tail []byte // of the operation that appends it, encoded; made when it is needed
}

// addElements is appendAll for what occurs often.
func (p *patch) addElements(values []*element, present bool, at string, index int, rest string) {
	switch {
	case len(values) == 0:
		return
	case !present:
		all := make([][]byte, len(values))
		for i, v := range values {
			all[i] = v.text
		}
		p.add(array(all), at, index, rest)
		return
	}
	head := p.head(at, index)
	for _, v := range values {
		if v.tail == nil {
			v.tail = encoded(nil, tail(nil, rest+"/-", v.text))
		}
		p.b = append(append(p.b, head...), v.tail...)
	}
}

func array(values [][]byte) []byte {
	b := []byte{'['}
	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, v...)
	}
	return append(b, ']')
}

// variable is one of a container's environment.
type variable struct {
	element
	name, value string
	field       string // instead of the value: the field of the pod that has it

	unless    string // not for containers with a variable of this name
	authority bool   // not for containers with another authority
}

// unexpanded is a text of a variable or argument as it has to be written for the
// node to take it as it is: it would put other variables in place of $(NAME),
// and takes $$ for a dollar sign.
func unexpanded(s string) string { return strings.ReplaceAll(s, "$", "$$") }

func (v *variable) spec() envSpec {
	if v.field == "" {
		return envSpec{Name: v.name, Value: unexpanded(v.value)}
	}
	e := envSpec{Name: v.name, ValueFrom: &fieldSpec{}}
	e.ValueFrom.FieldRef.FieldPath = v.field
	return e
}

func (v *variable) json() []byte {
	if v.field != "" {
		return encode(v.spec())
	}
	b := text.AppendJSON([]byte(`{"name":`), v.name)
	b = text.AppendJSON(append(b, `,"value":`...), unexpanded(v.value))
	return append(b, '}')
}

// encode writes a value of ours, which cannot fail.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// What follows is the part of Kubernetes's types that injected containers
// have.

type containerSpec struct {
	Name            string         `json:"name"`
	Image           string         `json:"image"`
	ImagePullPolicy string         `json:"imagePullPolicy"`
	Args            []string       `json:"args"`
	Ports           []portSpec     `json:"ports,omitempty"`
	Env             []envSpec      `json:"env,omitempty"`
	Resources       resourcesSpec  `json:"resources"`
	RestartPolicy   string         `json:"restartPolicy,omitempty"`
	VolumeMounts    []mountSpec    `json:"volumeMounts,omitempty"`
	Lifecycle       *lifecycleSpec `json:"lifecycle,omitempty"`
	SecurityContext *securitySpec  `json:"securityContext"`
}

type portSpec struct {
	ContainerPort int `json:"containerPort"`
}

type envSpec struct {
	Name      string     `json:"name"`
	Value     string     `json:"value,omitempty"`
	ValueFrom *fieldSpec `json:"valueFrom,omitempty"`
}

type fieldSpec struct {
	FieldRef struct {
		FieldPath string `json:"fieldPath"`
	} `json:"fieldRef"`
}

type mountSpec struct {
	Name      string `json:"name"`
	MountPath string `json:"mountPath"`
	ReadOnly  bool   `json:"readOnly,omitempty"`
}

type lifecycleSpec struct {
	PostStart handlerSpec `json:"postStart"`
}

type handlerSpec struct {
	Exec execSpec `json:"exec"`
}

type execSpec struct {
	Command []string `json:"command"`
}

type resourcesSpec struct {
	Limits   map[string]string `json:"limits"`
	Requests map[string]string `json:"requests"`
}

// sizes are the resources of the injected containers. All have requests and
// limits, for namespaces with a quota.
type sizes struct {
	helper resourcesSpec // of those that end before the pod's own start
	proxy  resourcesSpec // of the one that stays
}

// A start takes 0.02 s of CPU time, of the one that writes the trust files
// 0.06 s, and the pod waits for one after the other: trust, proxy, its probe,
// redirection. With a limit of 100m that takes more than a second of time
// (measured: 0.6 s for trust, 0.2 s for each other), with 500m a quarter. The
// limit costs nobody anything; the request does, for the node keeps it free.
//
// Of memory, each uses 15 MiB at its peak, the proxy with its probe beside it.
// What they map of the program's file comes on top in some statistics, but the
// node shares it, and takes it back before it ends a container.
const (
	cpuAtRest  = "100m"
	cpuAtStart = "500m"
	memory     = "64Mi"
)

func cpu(request, limit string) resourcesSpec {
	return resourcesSpec{
		Requests: map[string]string{"cpu": request, "memory": memory},
		Limits:   map[string]string{"cpu": limit, "memory": memory},
	}
}

// sizes depend on the pod's class of service, which injection must not change.
func (p *pod) sizes() sizes {
	switch {
	case p.hasResources:
		// They bound the sum of the containers' requests and each limit, and
		// may be small.
		small := cpu(cpuAtRest, cpuAtRest)
		return sizes{small, small}
	case !p.burstable:
		// In this class, requests are as high as limits. Those of the helpers
		// count as a maximum beside the pod's own, not in a sum with them.
		return sizes{helper: cpu(cpuAtStart, cpuAtStart), proxy: cpu(cpuAtRest, cpuAtRest)}
	default:
		burst := cpu(cpuAtRest, cpuAtStart)
		return sizes{burst, burst}
	}
}

type securitySpec struct {
	AllowPrivilegeEscalation *bool            `json:"allowPrivilegeEscalation"`
	Capabilities             capabilitiesSpec `json:"capabilities"`
	Privileged               *bool            `json:"privileged"`
	ReadOnlyRootFilesystem   bool             `json:"readOnlyRootFilesystem"`
	RunAsNonRoot             *bool            `json:"runAsNonRoot"`
	RunAsUser                *int             `json:"runAsUser"`
	SeccompProfile           seccompSpec      `json:"seccompProfile"`
}

type capabilitiesSpec struct {
	Add  []string `json:"add,omitempty"`
	Drop []string `json:"drop"`
}

type seccompSpec struct {
	Type string `json:"type"`
}

// restricted is what the restricted Pod Security Standard asks for. The user
// is set here because the pod's own runAsUser would count otherwise.
func restricted(user int) *securitySpec {
	return &securitySpec{
		AllowPrivilegeEscalation: new(bool), Privileged: new(bool),
		Capabilities:           capabilitiesSpec{Drop: []string{"ALL"}},
		ReadOnlyRootFilesystem: true, RunAsNonRoot: new(true), RunAsUser: new(user),
		SeccompProfile: seccompSpec{Type: "RuntimeDefault"},
	}
}
