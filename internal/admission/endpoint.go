package admission

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/podkey/podkey/internal/pki"
)

// CustomEndpoint is a token endpoint inside the cluster (on AKS: identity
// bindings), for pods with the annotation azure.workload.identity/use-SUFFIX.
// At most one of the three ways to name its certificate authority may be set.
// The zero value means that there is none.
type CustomEndpoint struct {
	Suffix   string // of the annotation, such as identity-binding
	Audience string // of the tokens, other than the default one

	TokenProxy string // AZURE_KUBERNETES_TOKEN_PROXY, an https URL
	SNIName    string // AZURE_KUBERNETES_SNI_NAME

	CAData          string // AZURE_KUBERNETES_CA_DATA: PEM
	CAConfigMap     string // AZURE_KUBERNETES_CA_CONFIGMAP_NAME: key ca.crt, in the pod's namespace
	CASigner        string // AZURE_KUBERNETES_CA_CTB_SIGNER_NAME: ClusterTrustBundles of this signer
	CALabelSelector string // AZURE_KUBERNETES_CA_CTB_LABEL_SELECTOR: JSON
}

// The variables that the SDKs read.
const (
	endpointProxyName = "AZURE_KUBERNETES_TOKEN_PROXY"
	endpointSNIName   = "AZURE_KUBERNETES_SNI_NAME"
	endpointFileName  = "AZURE_KUBERNETES_CA_FILE"
	endpointDataName  = "AZURE_KUBERNETES_CA_DATA"
)

// caPath is the certificate's place in the token's volume.
const caPath = "ca-cert/ca.crt"

var qualifiedPart = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$`)

// problems are all that is wrong, in the words that operators know from
// upstream where it has words.
func (e *CustomEndpoint) problems(audience string) []error {
	const (
		suffixFlag   = "--custom-token-endpoint-annotation-suffix"
		audienceFlag = "--custom-token-endpoint-audience"
	)
	var problems []error
	bad := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	switch {
	case e.Suffix == "" && e.Audience == "":
		bad("a custom token endpoint has no effect without %s and %s", suffixFlag, audienceFlag)
	case e.Suffix == "":
		bad("%s cannot be empty when %s is set", suffixFlag, audienceFlag)
	case e.Audience == "":
		bad("%s cannot be empty when %s is set", audienceFlag, suffixFlag)
	}
	if e.Audience != "" && (strings.EqualFold(e.Audience, DefaultAudience) || strings.EqualFold(e.Audience, audience)) {
		bad("%s must not be the default audience %s", audienceFlag, clip(e.Audience))
	}
	if name := "use-" + e.Suffix; e.Suffix != "" && (len(name) > 63 || !qualifiedPart.MatchString(name)) {
		bad("%s%s is not a valid annotation name: change %s", prefix, clip(name), suffixFlag)
	}
	if e.TokenProxy == "" {
		// The SDKs refuse the other variables without this one.
		bad("AZURE_KUBERNETES_TOKEN_PROXY cannot be empty when a custom token endpoint is set")
	} else if err := httpsURL(e.TokenProxy); err != nil {
		bad("AZURE_KUBERNETES_TOKEN_PROXY %q: %w", clip(e.TokenProxy), err)
	}
	ways := 0
	for _, s := range []string{e.CAData, e.CAConfigMap, e.CASigner} {
		if s != "" {
			ways++
		}
	}
	if ways > 1 {
		bad("only one of AZURE_KUBERNETES_CA_DATA, AZURE_KUBERNETES_CA_CONFIGMAP_NAME or AZURE_KUBERNETES_CA_CTB_SIGNER_NAME can be set")
	}
	if e.CAData != "" {
		if _, err := pki.ParseTrusted([]byte(e.CAData)); err != nil {
			bad("AZURE_KUBERNETES_CA_DATA: %w", err)
		}
	}
	if e.CAConfigMap != "" && (len(e.CAConfigMap) > 253 || !qualifiedPart.MatchString(e.CAConfigMap)) {
		bad("AZURE_KUBERNETES_CA_CONFIGMAP_NAME %q is not the name of a ConfigMap", clip(e.CAConfigMap))
	}
	if e.CALabelSelector != "" {
		if e.CASigner == "" {
			bad("AZURE_KUBERNETES_CA_CTB_SIGNER_NAME needs to be set when AZURE_KUBERNETES_CA_CTB_LABEL_SELECTOR is set")
		}
		if _, err := parseSelector(e.CALabelSelector); err != nil {
			bad("AZURE_KUBERNETES_CA_CTB_LABEL_SELECTOR: %w", err)
		}
	}
	return problems
}

// labelSelector is Kubernetes's, in the order that it writes the fields.
type labelSelector struct {
	MatchLabels      map[string]string `json:"matchLabels,omitempty"`
	MatchExpressions []struct {
		Key      string   `json:"key"`
		Operator string   `json:"operator"`
		Values   []string `json:"values,omitempty"`
	} `json:"matchExpressions,omitempty"`
}

func parseSelector(s string) (*labelSelector, error) {
	d := json.NewDecoder(bytes.NewReader([]byte(s)))
	d.DisallowUnknownFields()
	var out *labelSelector
	if err := d.Decode(&out); err != nil {
		return nil, fmt.Errorf("not a label selector: %w", err)
	}
	if out == nil || d.More() {
		return nil, errors.New("not a label selector: one JSON object is needed")
	}
	for _, x := range out.MatchExpressions {
		switch x.Operator {
		case "In", "NotIn", "Exists", "DoesNotExist":
		default:
			return nil, fmt.Errorf("not a label selector: operator %q is none of In, NotIn, Exists and DoesNotExist", clip(x.Operator))
		}
	}
	return out, nil
}

// chosen reports whether a pod asked for the endpoint.
func (e *CustomEndpoint) chosen(annotations pairs) bool {
	if e == nil {
		return false
	}
	v, _ := annotations.get(prefix + "use-" + e.Suffix)
	return strings.EqualFold(v, "true")
}

// variables are what the SDKs read, given where the volume is mounted.
func (e *CustomEndpoint) variables(mountPath string) []variable {
	vars := []variable{
		{name: endpointProxyName, value: e.TokenProxy},
		{name: endpointSNIName, value: e.SNIName},
	}
	// Both at once would be refused by the SDKs, also if one is the
	// container's own.
	if e.CAConfigMap != "" || e.CASigner != "" {
		vars = append(vars, variable{name: endpointFileName, value: mountPath + "/" + caPath, unless: endpointDataName})
	}
	return append(vars, variable{name: endpointDataName, value: e.CAData, unless: endpointFileName})
}

// source is the part of the projected volume that holds the certificate, nil
// if it is not in a volume.
func (e *CustomEndpoint) source() map[string]any {
	optional := false
	switch {
	case e.CAConfigMap != "":
		return map[string]any{"configMap": map[string]any{
			"name": e.CAConfigMap, "items": []any{map[string]any{"key": "ca.crt", "path": caPath}}, "optional": optional,
		}}
	case e.CASigner != "":
		bundle := map[string]any{"signerName": e.CASigner, "path": caPath, "optional": optional}
		if e.CALabelSelector != "" {
			// Valid: the configuration was.
			s, _ := parseSelector(e.CALabelSelector)
			bundle["labelSelector"] = s
		}
		return map[string]any{"clusterTrustBundle": bundle}
	}
	return nil
}
