package admission

import (
	"encoding/json"
	"strconv"

	"github.com/podkey/podkey/internal/text"
)

// patch is a JSON Patch (RFC 6902) in the making: the operations, each with a
// comma behind it. Its paths consist of names that this package knows and of
// indices, so nothing in them needs escaping; what a pod's author chose occurs
// in values only.
type patch struct{ b []byte }

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
	if p.b == nil {
		p.b = append(make([]byte, 0, 2048), '[')
	}
	p.b = append(append(p.b, `{"op":"`...), op...)
	p.b = append(append(p.b, `","path":"`...), at...)
	if index >= 0 {
		p.b = strconv.AppendInt(append(p.b, '/'), int64(index), 10)
	}
	p.b = append(append(p.b, rest...), `","value":`...)
	p.b = append(append(p.b, value...), "},"...)
}

// bytes is the whole, nil if there is nothing to do.
func (p *patch) bytes() []byte {
	if p.b == nil {
		return nil
	}
	p.b[len(p.b)-1] = ']'
	return p.b
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
	name, value string
	field       string // instead of the value: the field of the pod that has it

	unless    string // not for containers with a variable of this name
	authority bool   // not for containers with another authority
}

func (v *variable) spec() envSpec {
	if v.field == "" {
		return envSpec{Name: v.name, Value: v.value}
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
	b = text.AppendJSON(append(b, `,"value":`...), v.value)
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

// smallResources are the same for limits and requests, so that a pod of class
// Guaranteed stays one, and present, for namespaces with a quota.
var smallResources = func() resourcesSpec {
	r := map[string]string{"cpu": "100m", "memory": "64Mi"}
	return resourcesSpec{Limits: r, Requests: r}
}()

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
