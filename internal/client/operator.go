package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Operator is the file operator.json, which a server writes into its data
// directory with mode 0600: who the operator is and where the server answers.
// Other programs rely on its members.
type Operator struct {
	TenantID       string    `json:"tenantId"`
	SubscriptionID string    `json:"subscriptionId"`
	ClientID       string    `json:"clientId"`
	ClientSecret   string    `json:"clientSecret"`
	ObjectID       string    `json:"objectId"` // of the operator's service principal, to assign roles to
	UserName       string    `json:"userName"`
	UserPassword   string    `json:"userPassword"`
	Listen         string    `json:"listen"`      // address to dial, host:port
	CAFile         string    `json:"caFile"`      // PEM of the CA of Podkey's own names
	AzureCAFile    string    `json:"azureCaFile"` // PEM of the CA of Azure's names, which nothing else should trust
	Endpoints      Endpoints `json:"endpoints"`
}

// Endpoints are the origins of the planes under Podkey's own names.
type Endpoints struct {
	Login       string `json:"login"`
	Management  string `json:"management"`
	Graph       string `json:"graph"`
	VaultSuffix string `json:"vaultSuffix"` // host suffix with a leading dot, such as .vault.podkey.localhost:8443
	Issuer      string `json:"issuer"`      // issuer URL of the built-in cluster, with its closing slash
}

// OperatorFile is the name of the operator's file in a data directory.
const OperatorFile = "operator.json"

// ReadOperator reads the operator's file of a data directory.
func ReadOperator(dir string) (*Operator, error) {
	path := filepath.Join(dir, OperatorFile)
	fi, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &NoServerError{Dir: dir}
	}
	if err == nil && fi.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("read operator credentials: others may read %s (mode %04o): chmod 600 it, and rotate the secret if anybody did", path, fi.Mode().Perm())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read operator credentials: %w", err)
	}
	var op Operator
	if err := json.Unmarshal(b, &op); err != nil {
		return nil, fmt.Errorf("read operator credentials: %s is damaged: %w", path, err)
	}
	return &op, nil
}

// NoServerError says that no server has ever used a data directory.
type NoServerError struct{ Dir string }

func (e *NoServerError) Error() string {
	return fmt.Sprintf("no podkey server has used the data directory %s", e.Dir)
}

// Hint says what to type next.
func (e *NoServerError) Hint() string {
	return fmt.Sprintf("start one with: podkey server --data %s", e.Dir)
}
