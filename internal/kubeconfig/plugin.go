package kubeconfig

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
)

// execCredential is the object that a credential plugin writes.
type execCredential struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Status     struct {
		Token       string `json:"token"`
		Certificate string `json:"clientCertificateData"` // PEM
		Key         string `json:"clientKeyData"`
	} `json:"status"`
}

// execVersions are the versions of the protocol of credential plugins.
var execVersions = []string{"client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"}

// runPlugin runs the credential plugin and returns the access with what it
// gave. The plugin's output is a credential, and in no error.
func (a *Access) runPlugin(ctx context.Context) (*Access, error) {
	if !slices.Contains(execVersions, a.Exec.APIVersion) {
		return nil, errors.New("the exec of the kubeconfig has an apiVersion that is not supported")
	}
	if a.Exec.InteractiveMode == "Always" {
		return nil, errors.New("the exec of the kubeconfig wants a terminal (interactiveMode: Always), which it does not get")
	}
	spec := map[string]any{"interactive": false}
	if a.Exec.ProvideClusterInfo {
		spec["cluster"] = map[string]any{"server": a.Server, "certificate-authority-data": a.CA, "tls-server-name": a.TLSServerName}
	}
	info, err := json.Marshal(map[string]any{"apiVersion": a.Exec.APIVersion, "kind": "ExecCredential", "spec": spec})
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, a.Exec.Command, a.Exec.Args...)
	cmd.Env = append(os.Environ(), "KUBERNETES_EXEC_INFO="+string(info))
	for _, v := range a.Exec.Env {
		cmd.Env = append(cmd.Env, v.Name+"="+v.Value)
	}
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("run the credential plugin of the kubeconfig: %w", err)
	}
	var cred execCredential
	if err := json.Unmarshal(out.Bytes(), &cred); err != nil || cred.Kind != "ExecCredential" || cred.APIVersion != a.Exec.APIVersion {
		return nil, errors.New("the credential plugin of the kubeconfig did not write an ExecCredential")
	}
	got := *a
	got.Exec, got.Token = nil, cred.Status.Token
	got.Certificate, got.Key = []byte(cred.Status.Certificate), []byte(cred.Status.Key)
	return &got, got.check()
}
