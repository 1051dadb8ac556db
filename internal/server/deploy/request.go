package deploy

import (
	"encoding/json"
	"mime"
	"net/http"
	"strings"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/server/arm"
	"github.com/podkey/podkey/internal/template"
	"github.com/podkey/podkey/internal/web"
)

const codeContent = "InvalidRequestContent"

type handle = func(w http.ResponseWriter, r *http.Request, q *arm.Request) error

// request is what a client asks to be deployed.
type request struct {
	location   string
	tags       map[string]string
	parameters map[string]any
	template   map[string]any
}

// readRequest reads a body, which is not quite JSON, see [template.Decode].
func readRequest(r *http.Request) (*request, error) {
	if ct := r.Header.Get("Content-Type"); ct != "" {
		mt, params, err := mime.ParseMediaType(ct)
		if err != nil || mt != "application/json" && mt != "text/json" {
			return nil, fault.New(fault.BadMediaType, codeContent, "The content type must be application/json.")
		}
		if cs := params["charset"]; cs != "" && !strings.EqualFold(cs, "utf-8") {
			return nil, fault.New(fault.BadMediaType, codeContent, "The charset must be utf-8.")
		}
	}
	text, err := web.ReadBody(r, template.MaxSize, "RequestContentTooLarge")
	if err != nil {
		return nil, err
	}
	body, err := template.DecodeObject(text)
	if err != nil {
		return nil, fault.BadRequest(codeContent, "The request content was invalid and could not be deserialized: '%s'.", err.Error())
	}
	return requestOf(body)
}

// members that the body and its properties may have; those that are nil are
// refused when they ask for anything.
var (
	bodyMembers     = []string{"id", "name", "type", "location", "tags", "properties", "scope"}
	propertyMembers = []string{
		"template", "parameters", "mode", "debugSetting", "expressionEvaluationOptions", "validationLevel", "whatIfSettings",
		// of answers, which clients may send back
		"provisioningState", "correlationId", "timestamp", "duration", "templateHash", "outputs", "providers", "dependencies",
		"outputResources", "validatedResources", "error",
	}
	refusedMembers = map[string]string{
		"templatelink": "a template must be in the request, not behind a link", "parameterslink": "parameters must be in the request, not behind a link",
		"onerrordeployment": "deploy the earlier template again instead", "extensionconfigs": "extensions are not supported",
		"externalinputs": "external inputs are not supported", "externalinputdefinitions": "external inputs are not supported",
		"diagnostics": "diagnostics are not supported",
	}
)

// requestOf understands a body.
func requestOf(body map[string]any) (*request, error) {
	q := &request{}
	for k, v := range body {
		var err error
		switch strings.ToLower(k) {
		case "location":
			q.location, err = textOf(k, v)
		case "tags":
			q.tags, err = tagsOf(v)
		case "properties":
			props, ok := v.(map[string]any)
			if !ok {
				return nil, fault.BadRequest(codeContent, "The 'properties' must be an object.")
			}
			err = q.properties(props)
		default:
			err = known(bodyMembers, k, v)
		}
		if err != nil {
			return nil, err
		}
	}
	if q.template == nil {
		return nil, fault.BadRequest(codeContent, "The request has no 'properties.template'.")
	}
	return q, nil
}

func (q *request) properties(props map[string]any) error {
	for k, v := range props {
		low := strings.ToLower(k)
		if why := refusedMembers[low]; why != "" && v != nil && !empty(v) {
			return fault.BadRequest(codeContent, "The property '%s' is not supported: %s.", k, why)
		} else if why != "" {
			continue
		}
		var ok bool
		switch low {
		case "template":
			if q.template, ok = v.(map[string]any); !ok {
				return fault.BadRequest(codeContent, "The template must be an object.")
			}
		case "parameters":
			if q.parameters, ok = v.(map[string]any); !ok && v != nil {
				return fault.BadRequest(codeContent, "The parameters must be an object.")
			}
		case "mode":
			mode, err := textOf(k, v)
			switch {
			case err != nil:
				return err
			case strings.EqualFold(mode, "Complete"):
				return fault.BadRequest("DeploymentModeNotSupported", "The deployment mode 'Complete' is not supported: it deletes what the template does not name. Use 'Incremental', and delete resources by name.")
			case mode != "" && !strings.EqualFold(mode, "Incremental"):
				return fault.BadRequest(codeContent, "The deployment mode must be 'Incremental'.")
			}
		case "debugsetting":
			if level := member(v, "detailLevel"); level != nil && level != "" && level != "none" {
				return fault.BadRequest(codeContent, "The property 'debugSetting' is not supported: bodies of requests and answers are not kept, since they may hold secrets.")
			}
		default:
			if err := known(propertyMembers, k, v); err != nil {
				return err
			}
		}
	}
	return nil
}

func empty(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		return len(v) == 0
	case []any:
		return len(v) == 0
	}
	return v == ""
}

func known(names []string, k string, v any) error {
	for _, n := range names {
		if strings.EqualFold(n, k) || v == nil {
			return nil
		}
	}
	return fault.BadRequest(codeContent, "The member '%.60s' of the request is not known.", k)
}

func textOf(name string, v any) (string, error) {
	s, ok := v.(string)
	if !ok && v != nil {
		return "", fault.BadRequest(codeContent, "The member '%s' must be a string.", name)
	}
	return s, nil
}

func tagsOf(v any) (map[string]string, error) {
	o, ok := v.(map[string]any)
	if !ok && v != nil {
		return nil, fault.BadRequest(codeContent, "The tags must be an object.")
	}
	tags := make(map[string]string, len(o))
	for k, v := range o {
		s, ok := v.(string)
		if !ok {
			return nil, fault.BadRequest(codeContent, "The value of a tag must be a string.")
		}
		tags[k] = s
	}
	return tags, arm.CheckTags(tags)
}

// member returns a member of an object, in any case; nil if there is none.
func member(v any, name string) any {
	o, _ := v.(map[string]any)
	if x, ok := o[name]; ok {
		return x
	}
	for k, x := range o {
		if strings.EqualFold(k, name) {
			return x
		}
	}
	return nil
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("deploy: " + err.Error()) // values of package template always have JSON
	}
	return b
}
