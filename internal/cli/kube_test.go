package cli

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestKubeConfig(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, []byte(`{"clusters":[{"name":"one","cluster":{"server":"https://one.example"}},{"name":"two","cluster":{"server":"https://two.example"}}],
		"contexts":[{"name":"first","context":{"cluster":"one"}},{"name":"second","context":{"cluster":"two"}}],"current-context":"first"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	none := filepath.Join(t.TempDir(), "none")
	t.Setenv("KUBERNETES_SERVICE_HOST", "") // whatever this runs in
	for name, tt := range map[string]struct{ variable, file, context, want string }{
		"file":            {none, file, "", "https://one.example"},
		"context":         {none, file, "second", "https://two.example"},
		"variable":        {file, "", "", "https://one.example"},
		"nothing":         {none, "", "", "find the cluster: there is no kubeconfig, and this is no pod"},
		"no such file":    {file, none, "", none},
		"no such context": {none, file, "third", "third"},
	} {
		t.Setenv("KUBECONFIG", tt.variable)
		got, err := kubeConfig(tt.file, tt.context)
		if strings.HasPrefix(tt.want, "https:") {
			if err != nil || got.Host != tt.want {
				t.Errorf("%s: %v, %v", name, got, err)
			}
			continue
		}
		if _, ok := errors.AsType[*hinted](err); !ok || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
