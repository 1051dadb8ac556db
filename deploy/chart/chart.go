// Package chart is Podkey's Helm chart, and the rendering of it for those who
// have no Helm: `podkey install`, and the server when it is told to prepare a
// registered cluster. Both give what `helm template` gives; the end-to-end
// suite compares them.
//
// Helm's own library is not linked: it brings the whole of Kubernetes' API
// types, 20 MB of program and as much memory in every process of Podkey's, for
// the dozen functions that these templates use.
package chart

import (
	"bytes"
	"cmp"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

//go:embed all:podkey
var files embed.FS

// Release says what to render.
type Release struct {
	Name      string         // default podkey
	Namespace string         // default podkey-system
	Values    map[string]any // as in a values file, over those of the chart
}

// Object is one Kubernetes object, in the form of its JSON.
type Object = map[string]any

// Render renders the chart. The namespace comes first, then the objects in
// the order in which they depend on one another; webhook configurations come
// last, when what they call is there. A value that the chart does not know, or
// of the wrong kind, is an error.
func Render(r Release) ([]Object, error) {
	r.Name, r.Namespace = cmp.Or(r.Name, "podkey"), cmp.Or(r.Namespace, "podkey-system")
	var meta struct{ Name, Version, AppVersion string }
	var values map[string]any
	var schema schema
	for name, to := range map[string]any{"Chart.yaml": &meta, "values.yaml": &values, "values.schema.json": &schema} {
		if err := unmarshalFile(name, to); err != nil {
			return nil, err
		}
	}
	given, err := normalize(r.Values)
	if err != nil {
		return nil, err
	}
	values = prune(Overlay(values, given))
	if problems := schema.check("", values); problems != nil {
		return nil, fmt.Errorf("values: %w", errors.Join(problems...))
	}
	t, err := parse()
	if err != nil {
		return nil, err
	}
	objects := []Object{{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": r.Namespace}}}
	names, err := fs.Glob(files, "podkey/templates/*.yaml")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		var buf bytes.Buffer
		err := t.ExecuteTemplate(&buf, name, map[string]any{
			"Values":  values,
			"Chart":   map[string]any{"Name": meta.Name, "Version": meta.Version, "AppVersion": meta.AppVersion},
			"Release": map[string]any{"Name": r.Name, "Namespace": r.Namespace, "Service": "Helm"},
		})
		if err != nil {
			return nil, fmt.Errorf("render the chart: %w", cause(err))
		}
		found, err := split(buf.String())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path.Base(name), err)
		}
		objects = append(objects, found...)
	}
	slices.SortStableFunc(objects, func(a, b Object) int { return cmp.Compare(place(a), place(b)) })
	return objects, nil
}

// split takes a rendered template apart.
func split(text string) (objects []Object, err error) {
	for doc := range strings.SplitSeq(text, "\n---\n") {
		var o Object
		if err := yaml.UnmarshalStrict([]byte(doc), &o); err != nil {
			return nil, err
		}
		if o == nil {
			continue // nothing but comments, or switched off
		}
		if place(o) < 0 {
			return nil, fmt.Errorf("the kind %v has no place in the order of installation", o["kind"])
		}
		objects = append(objects, o)
	}
	return objects, nil
}

// order is the order of installation.
var order = []string{
	"Namespace", "PodDisruptionBudget", "ServiceAccount", "ConfigMap", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding",
	"Service", "DaemonSet", "Deployment", "StatefulSet", "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration",
}

func place(o Object) int {
	kind, _ := o["kind"].(string)
	return slices.Index(order, kind)
}

// YAML writes objects as `kubectl apply -f -` reads them.
func YAML(objects []Object) ([]byte, error) {
	var buf bytes.Buffer
	for i, o := range objects {
		b, err := yaml.Marshal(o)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			buf.WriteString("---\n")
		}
		buf.Write(b)
	}
	return buf.Bytes(), nil
}

// cause is an error of a template without the template's own part of it, if
// it came from a function of ours.
func cause(err error) error {
	if r, ok := errors.AsType[*requiredError](err); ok {
		return r
	}
	return err
}

func unmarshalFile(name string, to any) error {
	b, err := files.ReadFile("podkey/" + name)
	if err != nil {
		return err
	}
	if err := yaml.Unmarshal(b, to); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// normalize gives values the types that a values file has.
func normalize(values map[string]any) (map[string]any, error) {
	b, err := json.Marshal(values)
	if err != nil {
		return nil, fmt.Errorf("values: %w", err)
	}
	out := map[string]any{}
	return out, json.Unmarshal(b, &out)
}

// Overlay lays values over others, as Helm lays values files: maps are merged,
// and null, which is kept, takes the chart's own value away.
func Overlay(base, over map[string]any) map[string]any {
	out := map[string]any{}
	maps.Copy(out, base)
	for k, v := range over {
		under, below := out[k].(map[string]any)
		m, is := v.(map[string]any)
		if below && is {
			out[k] = Overlay(under, m)
		} else {
			out[k] = v
		}
	}
	return out
}

// prune takes the nulls away.
func prune(values map[string]any) map[string]any {
	for k, v := range values {
		if m, is := v.(map[string]any); is {
			prune(m)
		} else if v == nil {
			delete(values, k)
		}
	}
	return values
}

// ParseValues reads a values file. A name that is given twice is an error.
func ParseValues(b []byte) (map[string]any, error) {
	values := map[string]any{}
	if err := yaml.UnmarshalStrict(b, &values); err != nil {
		return nil, err
	}
	return values, nil
}
