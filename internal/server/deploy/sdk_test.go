package deploy

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	azarm "github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armresources"
)

// token is a credential that never asks anybody.
type token string

func (t token) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: string(t), ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// wire carries requests to the edge.
type wire struct{ r *rig }

func (w wire) Do(req *http.Request) (*http.Response, error) {
	rec := httptest.NewRecorder()
	if req.Body == nil {
		req.Body = http.NoBody
	}
	w.r.edge.ServeHTTP(rec, req)
	resp := rec.Result()
	resp.Request = req
	return resp, nil
}

func (r *rig) sdk() *azarm.ClientOptions {
	return &azarm.ClientOptions{ClientOptions: policy.ClientOptions{
		Transport: wire{r}, Retry: policy.RetryOptions{MaxRetries: -1},
		Cloud: cloud.Configuration{
			ActiveDirectoryAuthorityHost: "https://login.podkey.test",
			Services:                     map[cloud.ServiceName]cloud.ServiceConfiguration{cloud.ResourceManager: {Endpoint: "https://management.podkey.test", Audience: "https://management.podkey.test"}},
		},
	}}
}

// TestSDK drives everything with Azure's own client.
func TestSDK(t *testing.T) {
	t.Parallel()
	r, ctx := newRig(t), t.Context()
	c, err := armresources.NewDeploymentsClient(sub, token("owner"), r.sdk())
	if err != nil {
		t.Fatal(err)
	}
	request := func(template string, parameters map[string]any) armresources.Deployment {
		var tpl any
		if err := json.Unmarshal([]byte(template), &tpl); err != nil {
			t.Fatal(err)
		}
		values := map[string]any{}
		for k, v := range parameters {
			values[k] = map[string]any{"value": v}
		}
		return armresources.Deployment{Properties: &armresources.DeploymentProperties{
			Mode: to.Ptr(armresources.DeploymentModeIncremental), Template: tpl, Parameters: values,
		}}
	}
	one := simple(`"parameters": {"name": {"type": "string"}}, "resources": [{"type": "Microsoft.ManagedIdentity/userAssignedIdentities", "apiVersion": "2023-01-31", "name": "[parameters('name')]", "location": "westeurope"}],
		"outputs": {"id": {"type": "string", "value": "[resourceId('Microsoft.ManagedIdentity/userAssignedIdentities', parameters('name'))]"}}`)
	if ok, err := c.CheckExistence(ctx, "rg", "d", nil); err != nil || ok.Success {
		t.Errorf("exists before it is made: %v %v", ok, err)
	}
	vp, err := c.BeginValidate(ctx, "rg", "d", request(one, map[string]any{"name": "one"}), nil)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := vp.PollUntilDone(ctx, nil); err != nil || v.Error != nil || *v.Properties.ProvisioningState != armresources.ProvisioningStateSucceeded {
		t.Errorf("%+v %v", v, err)
	}
	wp, err := c.BeginWhatIf(ctx, "rg", "d", armresources.DeploymentWhatIf{Properties: &armresources.DeploymentWhatIfProperties{
		Mode: to.Ptr(armresources.DeploymentModeIncremental), Template: request(one, nil).Properties.Template, Parameters: map[string]any{"name": map[string]any{"value": "one"}},
		WhatIfSettings: &armresources.DeploymentWhatIfSettings{ResultFormat: to.Ptr(armresources.WhatIfResultFormatFullResourcePayloads)},
	}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if w, err := wp.PollUntilDone(ctx, nil); err != nil || len(w.Properties.Changes) != 1 || *w.Properties.Changes[0].ChangeType != armresources.ChangeTypeCreate {
		t.Errorf("%+v %v", w, err)
	}
	p, err := c.BeginCreateOrUpdate(ctx, "rg", "d", request(one, map[string]any{"name": "one"}), nil)
	if err != nil {
		t.Fatal(err)
	}
	d, err := p.PollUntilDone(ctx, nil)
	if err != nil || *d.Properties.ProvisioningState != armresources.ProvisioningStateSucceeded || len(d.Properties.OutputResources) != 1 {
		t.Errorf("%+v %v", d, err)
	}
	if got, err := c.Get(ctx, "rg", "d", nil); err != nil || *got.ID != *d.ID || got.Properties.Outputs == nil {
		t.Errorf("%+v %v", got, err)
	}
	// A deployment that fails is an error of the poller, with the reason.
	p, err = c.BeginCreateOrUpdate(ctx, "rg", "bad", request(one, map[string]any{"name": "no name"}), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.PollUntilDone(ctx, nil)
	if re := (*azcore.ResponseError)(nil); !errors.As(err, &re) || re.ErrorCode != "DeploymentFailed" {
		t.Errorf("%v", err)
	}
	ops, err := armresources.NewDeploymentOperationsClient(sub, token("owner"), r.sdk())
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for pager := ops.NewListPager("rg", "bad", nil); pager.More(); {
		page, err := pager.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, op := range page.Value {
			n++
			if *op.Properties.ProvisioningState != "Failed" || op.Properties.StatusMessage.Error == nil || *op.Properties.StatusMessage.Error.Code != "InvalidResourceName" {
				t.Errorf("%+v", op.Properties)
			}
		}
	}
	names := ""
	for pager := c.NewListByResourceGroupPager("rg", &armresources.DeploymentsClientListByResourceGroupOptions{Top: to.Ptr[int32](1)}); pager.More(); {
		page, err := pager.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range page.Value {
			names += *d.Name + " "
		}
	}
	if n != 1 || names != "bad d " {
		t.Errorf("%d operations; deployments %s", n, names)
	}
	if e, err := c.ExportTemplate(ctx, "rg", "d", nil); err != nil || e.Template == nil {
		t.Errorf("%v", err)
	}
	dp, err := c.BeginDelete(ctx, "rg", "d", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dp.PollUntilDone(ctx, nil); err != nil {
		t.Error(err)
	}
	// At the subscription.
	s := request(`{"$schema": "https://schema.management.azure.com/schemas/2018-05-01/subscriptionDeploymentTemplate.json#", "contentVersion": "1.0.0.0", "resources": []}`, nil)
	s.Location = to.Ptr("westeurope")
	sp, err := c.BeginCreateOrUpdateAtSubscriptionScope(ctx, "s", s, nil)
	if err != nil {
		t.Fatal(err)
	}
	if d, err := sp.PollUntilDone(ctx, nil); err != nil || *d.Location != "westeurope" {
		t.Errorf("%+v %v", d, err)
	}
}
