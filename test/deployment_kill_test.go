package test

import (
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/podkey/podkey/internal/client"
)

// killTemplate makes an identity with its credential, a vault, a role
// assignment and many secrets: a deployment that takes long enough to be
// killed in the midst of.
const killTemplate = `{
  "$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#",
  "contentVersion": "1.0.0.0",
  "parameters": {"round": {"type": "int"}, "value": {"type": "secureString"}},
  "variables": {"vault": "[format('killed-{0}', parameters('round'))]", "count": 60},
  "resources": [
    {
      "type": "Microsoft.ManagedIdentity/userAssignedIdentities", "apiVersion": "2023-01-31",
      "name": "[variables('vault')]", "location": "[resourceGroup().location]"
    },
    {
      "type": "Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials", "apiVersion": "2023-01-31",
      "name": "[format('{0}/web', variables('vault'))]",
      "properties": {"issuer": "https://issuer.example/", "subject": "system:serviceaccount:shop:web", "audiences": ["api://AzureADTokenExchange"]},
      "dependsOn": ["[resourceId('Microsoft.ManagedIdentity/userAssignedIdentities', variables('vault'))]"]
    },
    {
      "type": "Microsoft.KeyVault/vaults", "apiVersion": "2023-07-01",
      "name": "[variables('vault')]", "location": "[resourceGroup().location]",
      "properties": {"tenantId": "[subscription().tenantId]", "sku": {"family": "A", "name": "standard"}, "enableRbacAuthorization": true}
    },
    {
      "type": "Microsoft.Authorization/roleAssignments", "apiVersion": "2022-04-01",
      "scope": "[format('Microsoft.KeyVault/vaults/{0}', variables('vault'))]",
      "name": "[guid(resourceId('Microsoft.KeyVault/vaults', variables('vault')), variables('vault'), 'reader')]",
      "properties": {
        "roleDefinitionId": "[subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '4633458b-17de-408a-b874-0445c86b69e6')]",
        "principalId": "[reference(resourceId('Microsoft.ManagedIdentity/userAssignedIdentities', variables('vault')), '2023-01-31').principalId]",
        "principalType": "ServicePrincipal"
      },
      "dependsOn": [
        "[resourceId('Microsoft.KeyVault/vaults', variables('vault'))]",
        "[resourceId('Microsoft.ManagedIdentity/userAssignedIdentities', variables('vault'))]"
      ]
    },
    {
      "copy": {"name": "secrets", "count": "[variables('count')]"},
      "type": "Microsoft.KeyVault/vaults/secrets", "apiVersion": "2023-07-01",
      "name": "[format('{0}/s{1}', variables('vault'), copyIndex())]",
      "properties": {"value": "[format('{0}-{1}', parameters('value'), copyIndex())]"},
      "dependsOn": ["[resourceId('Microsoft.KeyVault/vaults', variables('vault'))]"]
    }
  ],
  "outputs": {"vault": {"type": "string", "value": "[variables('vault')]"}}
}`

// TestKillDuringDeployment kills the server in the midst of deployments. Each
// can be run again, and then everything is there, once and with its value;
// what the killed run left says so and holds no secure parameter.
func TestKillDuringDeployment(t *testing.T) {
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	dir := t.TempDir()
	p := startProcess(t, dir, "127.0.0.1:0")
	group := "/subscriptions/" + p.Operator.SubscriptionID + "/resourceGroups/killed"
	if err := open(t, dir).Manage(t.Context(), http.MethodPut, group+"?api-version=2021-04-01", map[string]string{"location": "westeurope"}, nil); err != nil {
		t.Fatal(err)
	}
	const secretsUser = "/providers/Microsoft.Authorization/roleDefinitions/4633458b-17de-408a-b874-0445c86b69e6"
	if err := open(t, dir).AssignRole(t.Context(), group, secretsUser, p.Operator.ObjectID, "ServicePrincipal"); err != nil {
		t.Fatal(err)
	}
	cut := 0
	for round := range rounds {
		path := fmt.Sprintf("%s/providers/Microsoft.Resources/deployments/d%d?api-version=2021-04-01", group, round)
		const secure = "canary-secure-parameter"
		body := map[string]any{"properties": map[string]any{
			"mode": "Incremental", "template": json.RawMessage(killTemplate),
			"parameters": map[string]any{"round": map[string]any{"value": round}, "value": map[string]any{"value": secure}},
		}}
		var wg sync.WaitGroup
		c := open(t, dir)
		wg.Go(func() {
			// Whether there is an answer depends on the moment of the kill.
			_ = c.Manage(t.Context(), http.MethodPut, path, body, nil)
		})
		// The moment of the kill is the point of the test; nothing waits on it.
		<-time.After(time.Duration(mathrand.IntN(250)) * time.Millisecond)
		p.Stop(syscall.SIGKILL)
		wg.Wait()
		p = startProcess(t, dir, p.Operator.Listen)

		c = open(t, dir)
		if state, text := deploymentState(t, c, path); state != "" {
			if strings.Contains(text, secure) {
				t.Errorf("round %d: the record of the killed run holds a secure parameter", round)
			}
			if state == "Running" || state == "Accepted" {
				t.Errorf("round %d: a deployment that nobody runs is %s", round, state)
			}
			if state != "Succeeded" {
				cut++
			}
		}
		if err := c.Manage(t.Context(), http.MethodPut, path, body, nil); err != nil {
			t.Fatalf("round %d: run again: %v", round, err)
		}
		if state, _ := deploymentState(t, c, path); state != "Succeeded" {
			t.Fatalf("round %d: run again: %s", round, state)
		}
		vault := fmt.Sprintf("killed-%d", round)
		for i := range 60 {
			name := fmt.Sprintf("/secrets/s%d", i)
			var got struct{ Value string }
			if err := c.Vault(t.Context(), vault, http.MethodGet, name+"?api-version=7.5", nil, &got); err != nil || got.Value != fmt.Sprintf("%s-%d", secure, i) {
				t.Errorf("round %d: %s is %q, %v", round, name, got.Value, err)
			}
		}
		var assignments struct{ Value []struct{ ID string } }
		if err := c.Manage(t.Context(), http.MethodGet, group+"/providers/Microsoft.KeyVault/vaults/"+vault+"/providers/Microsoft.Authorization/roleAssignments?api-version=2022-04-01", nil, &assignments); err != nil {
			t.Fatal(err)
		}
		here := 0
		for _, a := range assignments.Value {
			if strings.Contains(strings.ToLower(a.ID), "/vaults/"+vault+"/") {
				here++
			}
		}
		if here != 1 {
			t.Errorf("round %d: %d role assignments on the vault, want 1", round, here)
		}
	}
	t.Logf("%d deployments, %d of them cut off", rounds, cut)
	p.Stop(syscall.SIGTERM)
}

func deploymentState(t *testing.T, c *client.Client, path string) (state, text string) {
	t.Helper()
	var d json.RawMessage
	err := c.Manage(t.Context(), http.MethodGet, path, nil, &d)
	if e, ok := errors.AsType[*client.APIError](err); ok && e.Status == http.StatusNotFound {
		return "", ""
	}
	if err != nil {
		t.Fatal(err)
	}
	var out struct {
		Properties struct{ ProvisioningState string }
	}
	if err := json.Unmarshal(d, &out); err != nil {
		t.Fatal(err)
	}
	return out.Properties.ProvisioningState, string(d)
}
