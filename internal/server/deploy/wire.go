package deploy

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/podkey/podkey/internal/server/arm"
	"github.com/podkey/podkey/internal/template"
)

type wireDeployment struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Type       string            `json:"type"`
	Location   string            `json:"location,omitempty"`
	Tags       map[string]string `json:"tags,omitempty"`
	Properties wireProperties    `json:"properties"`
}

type wireProperties struct {
	TemplateHash       string                    `json:"templateHash"`
	Parameters         map[string]template.Shown `json:"parameters"`
	Mode               string                    `json:"mode"`
	ProvisioningState  string                    `json:"provisioningState"`
	Timestamp          time.Time                 `json:"timestamp"`
	Duration           string                    `json:"duration"`
	CorrelationID      string                    `json:"correlationId"`
	Providers          []wireProvider            `json:"providers"`
	Dependencies       []wireDependency          `json:"dependencies"`
	Outputs            map[string]template.Shown `json:"outputs,omitempty"`
	OutputResources    []wireID                  `json:"outputResources,omitempty"`
	ValidatedResources []wireID                  `json:"validatedResources,omitempty"`
	Error              *arm.ErrorDetail          `json:"error,omitempty"`
}

type wireID struct {
	ID string `json:"id"`
}

type wireProvider struct {
	Namespace     string             `json:"namespace"`
	ResourceTypes []wireProviderType `json:"resourceTypes"`
}

type wireProviderType struct {
	ResourceType string   `json:"resourceType"`
	Locations    []string `json:"locations"`
}

type wireDependency struct {
	DependsOn []wireTarget `json:"dependsOn"`
	wireTarget
}

type wireTarget struct {
	ID           string `json:"id"`
	ResourceType string `json:"resourceType"`
	ResourceName string `json:"resourceName"`
}

func (r *record) wire() wireDeployment {
	out := wireDeployment{ID: r.ID, Name: r.Name, Type: typeDeployment, Location: r.Location, Tags: r.Tags}
	p := &out.Properties
	p.TemplateHash, p.Parameters, p.Mode, p.ProvisioningState = r.TemplateHash, r.Parameters, r.Mode, r.State
	p.Timestamp, p.Duration, p.CorrelationID = r.Ended, duration(r.Ended.Sub(r.Started)), r.CorrelationID
	p.Outputs, p.Error = r.Outputs, r.Error
	if p.Parameters == nil {
		p.Parameters = map[string]template.Shown{}
	}
	p.Providers, p.Dependencies = providers(r.Resources), dependencies(r.Resources)
	for _, res := range r.Resources {
		if res.Deployed {
			p.OutputResources = append(p.OutputResources, wireID{res.ID})
		}
	}
	return out
}

// providers are the types of the resources by their namespaces.
func providers(resources []planned) []wireProvider {
	out, at := []wireProvider{}, map[string]int{}
	seen := map[string]bool{}
	for _, res := range resources {
		ns, kind, _ := strings.Cut(res.Type, "/")
		if seen[strings.ToLower(res.Type)] {
			continue
		}
		seen[strings.ToLower(res.Type)] = true
		i, ok := at[strings.ToLower(ns)]
		if !ok {
			i = len(out)
			at[strings.ToLower(ns)] = i
			out = append(out, wireProvider{Namespace: ns})
		}
		out[i].ResourceTypes = append(out[i].ResourceTypes, wireProviderType{ResourceType: kind, Locations: []string{}})
	}
	return out
}

func dependencies(resources []planned) []wireDependency {
	out, byID := []wireDependency{}, map[string]wireTarget{}
	for _, res := range resources {
		byID[res.ID] = wireTarget{res.ID, res.Type, res.Name}
	}
	for _, res := range resources {
		if len(res.DependsOn) == 0 {
			continue
		}
		d := wireDependency{wireTarget: byID[res.ID]}
		for _, id := range res.DependsOn {
			d.DependsOn = append(d.DependsOn, byID[id])
		}
		out = append(out, d)
	}
	return out
}

// duration is in ISO 8601.
func duration(d time.Duration) string {
	return "PT" + strconv.FormatFloat(max(d, 0).Seconds(), 'f', -1, 64) + "S"
}

type wireOperation struct {
	ID          string `json:"id"`
	OperationID string `json:"operationId"`
	Properties  struct {
		ProvisioningOperation string      `json:"provisioningOperation"`
		ProvisioningState     string      `json:"provisioningState"`
		Timestamp             time.Time   `json:"timestamp"`
		Duration              string      `json:"duration"`
		TrackingID            string      `json:"trackingId"`
		StatusCode            string      `json:"statusCode"`
		StatusMessage         any         `json:"statusMessage,omitempty"`
		TargetResource        *wireTarget `json:"targetResource,omitempty"`
	} `json:"properties"`
}

func (o *operation) wire(r *record) wireOperation {
	out := wireOperation{ID: r.ID + "/operations/" + o.ID, OperationID: o.ID}
	p := &out.Properties
	p.ProvisioningOperation, p.ProvisioningState = o.Kind, o.State
	p.Timestamp, p.Duration, p.TrackingID = o.Started.Add(o.Took), duration(o.Took), r.CorrelationID
	p.StatusCode = strings.ReplaceAll(http.StatusText(o.Status), " ", "")
	if o.Error != nil {
		p.StatusMessage = map[string]any{"status": failed, "error": o.Error}
	}
	if o.Resource != "" {
		p.TargetResource = &wireTarget{o.Resource, o.Type, o.Name}
	}
	return out
}
