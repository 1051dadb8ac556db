package cli

import (
	"errors"
	"fmt"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/podkey/podkey/internal/connect"
)

// kubeConfig finds out how to reach a Kubernetes cluster, by kubectl's rules:
// the file that is named, else $KUBECONFIG, else the user's file, else the pod
// that we are in; of a file the context that is named, else its current one.
// Nothing is asked yet.
func kubeConfig(file, context string) (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = file
	rules.WarnIfAllMissing = false
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: context}).ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		err = errors.New("there is no kubeconfig, and this is no pod")
	}
	if err != nil {
		return nil, &hinted{fmt.Errorf("find the cluster: %w", err), "give --kubeconfig FILE"}
	}
	return config, nil
}

// open opens the cluster that is chosen, for connecting its service accounts.
func (f *kubeFlags) open() (*connect.Cluster, error) {
	config, err := kubeConfig(f.file, f.context)
	if err != nil {
		return nil, err
	}
	var args []string
	if f.file != "" {
		args = append(args, "--kubeconfig", f.file)
	}
	if f.context != "" {
		args = append(args, "--context", f.context)
	}
	return connect.OpenCluster(config, args...)
}
