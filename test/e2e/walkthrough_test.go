//go:build e2e

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestWalkthroughRBAC is the walkthrough of a user-assigned identity that
// reads one secret by a role: own namespace, the environment as it lists it,
// the vault from a template, a sample that logs the secret again and again.
func TestWalkthroughRBAC(t *testing.T) {
	t.Parallel()
	ns := w.namespace(t, "wlipoc")
	issuer := w.must(t, `
		export RESOURCE_GROUP=shop CLUSTER_NAME=shop-cluster
		az aks get-credentials --resource-group "${RESOURCE_GROUP}" --name "${CLUSTER_NAME}" --overwrite-existing
		flock $UPDATES az aks update --resource-group "${RESOURCE_GROUP}" --name "${CLUSTER_NAME}" --enable-oidc-issuer --enable-workload-identity -o none
		az aks show --name "${CLUSTER_NAME}" --resource-group "${RESOURCE_GROUP}" --query "oidcIssuerProfile.issuerUrl" --output tsv`)
	if !strings.HasSuffix(strings.TrimSpace(issuer), "/") {
		t.Errorf("the issuer %q has lost its closing slash", issuer)
	}
	out := w.must(t, `
		export RESOURCE_GROUP=shop CLUSTER_NAME=shop-cluster UAMI_NAME=UAMI_WL_IDENTITY
		az identity create --resource-group $RESOURCE_GROUP --name $UAMI_NAME -o none
		export USER_ASSIGNED_CLIENT_ID="$(az identity show --resource-group "${RESOURCE_GROUP}" --name "${UAMI_NAME}" --query 'clientId' --output tsv)"
		export SERVICE_ACCOUNT_NAMESPACE=wlipoc SERVICE_ACCOUNT_NAME=workload-identity-sa
		cat <<EOF | kubectl apply -f -
apiVersion: v1
kind: ServiceAccount
metadata:
  annotations:
    azure.workload.identity/client-id: "${USER_ASSIGNED_CLIENT_ID}"
  name: "${SERVICE_ACCOUNT_NAME}"
  namespace: "${SERVICE_ACCOUNT_NAMESPACE}"
EOF
		export AKS_OIDC_ISSUER="$(az aks show --name "${CLUSTER_NAME}" --resource-group "${RESOURCE_GROUP}" --query "oidcIssuerProfile.issuerUrl" --output tsv)"
		az identity federated-credential create --name wlipoc --identity-name "${UAMI_NAME}" --resource-group "${RESOURCE_GROUP}" \
			--issuer "${AKS_OIDC_ISSUER}" --subject system:serviceaccount:"${SERVICE_ACCOUNT_NAMESPACE}":"${SERVICE_ACCOUNT_NAME}" \
			--audience api://AzureADTokenExchange -o none
		cat <<EOF | kubectl apply -f -
apiVersion: v1
kind: Pod
metadata:
  name: wlipoc-pod
  namespace: wlipoc
  labels:
    azure.workload.identity/use: "true"
spec:
  serviceAccountName: workload-identity-sa
  containers:
  - name: alpine-container
    image: `+busyboxRef+`
    command: ["/bin/sh", "-c", "--"]
    args: ["while true; do sleep 30; done;"]
EOF
		kubectl wait --for=condition=Ready pod/wlipoc-pod -n wlipoc --timeout=60s >/dev/null
		echo "client ${USER_ASSIGNED_CLIENT_ID}"
		kubectl exec wlipoc-pod -n wlipoc -- sh -c 'env | grep -i Azure'`)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	clientID := ""
	var env []string
	for _, l := range lines {
		if id, ok := strings.CutPrefix(l, "client "); ok {
			clientID = id
		} else if strings.Contains(l, "=") {
			env = append(env, l)
		}
	}
	slices.Sort(env)
	want := []string{
		"AZURE_AUTHORITY_HOST=https://login.microsoftonline.com/",
		"AZURE_CLIENT_ID=" + clientID,
		"AZURE_FEDERATED_TOKEN_FILE=/var/run/secrets/azure/tokens/azure-identity-token",
		"AZURE_TENANT_ID=" + w.server.Operator.TenantID,
	}
	if !slices.Equal(env, want) {
		t.Errorf("environment of the pod:\n%s\nwant:\n%s", strings.Join(env, "\n"), strings.Join(want, "\n"))
	}
	w.must(t, `
		export RESOURCE_GROUP=shop UAMI_NAME=UAMI_WL_IDENTITY KEYVAULT_NAME=wliakvpoc SERVICE_ACCOUNT_NAMESPACE=wlipoc SERVICE_ACCOUNT_NAME=workload-identity-sa
		az deployment group create -g "${RESOURCE_GROUP}" --template-file `+testdata(t, "akv.json")+` --parameters vaultName="${KEYVAULT_NAME}" secretValue=hellowwss -o none
		export IDENTITY_PRINCIPAL_ID=$(az identity show --name "${UAMI_NAME}" --resource-group "${RESOURCE_GROUP}" --query principalId --output tsv)
		export KEYVAULT_RESOURCE_ID=$(az keyvault show --resource-group "${RESOURCE_GROUP}" --name "${KEYVAULT_NAME}" --query id --output tsv)
		az role assignment create --assignee-object-id "${IDENTITY_PRINCIPAL_ID}" --role "Key Vault Secrets User" --scope "${KEYVAULT_RESOURCE_ID}" --assignee-principal-type ServicePrincipal -o none
		export KEYVAULT_URL="$(az keyvault show --resource-group ${RESOURCE_GROUP} --name ${KEYVAULT_NAME} --query properties.vaultUri --output tsv)"
		export KEYVAULT_SECRET_NAME=my-secret
		cat <<EOF | kubectl apply -f -
apiVersion: v1
kind: Pod
metadata:
  name: sample-workload-identity-key-vault
  namespace: ${SERVICE_ACCOUNT_NAMESPACE}
  labels:
    azure.workload.identity/use: "true"
spec:
  serviceAccountName: ${SERVICE_ACCOUNT_NAME}
  containers:
  - image: `+loggerRef+`
    name: oidc
    env:
    - name: KEYVAULT_URL
      value: ${KEYVAULT_URL}
    - name: SECRET_NAME
      value: ${KEYVAULT_SECRET_NAME}
  nodeSelector:
    kubernetes.io/os: linux
EOF`)
	w.logged(t, ns, "sample-workload-identity-key-vault", `successfully got secret "hellowwss"`)
	w.shows(t, `kubectl describe pod sample-workload-identity-key-vault -n wlipoc | grep "SECRET_NAME:"`, "my-secret")
}

// TestWalkthroughAccessPolicy is the walkthrough of an application behind a
// Service that writes a secret and reads it back, by an access policy that
// allows get and set.
func TestWalkthroughAccessPolicy(t *testing.T) {
	t.Parallel()
	w.namespace(t, "demoapp")
	w.must(t, `
		az aks get-credentials --resource-group shop --name shop-cluster --overwrite-existing
		flock $UPDATES az aks update --resource-group shop --name shop-cluster --enable-oidc-issuer --enable-workload-identity -o none
		az identity create --name demoapp-identity --resource-group shop -o none
		az keyvault create --name demoappkv -g shop -l westeurope --enable-rbac-authorization false -o none
		OID=$(az identity show -g shop -n demoapp-identity --query principalId -o tsv)
		CID=$(az identity show -g shop -n demoapp-identity --query clientId -o tsv)
		az keyvault set-policy --name demoappkv --object-id $OID --secret-permissions get set -o none
		ISSUER=$(az aks show --resource-group shop --name shop-cluster --query "oidcIssuerProfile.issuerUrl" -o tsv)
		az identity federated-credential create --name demoapp --identity-name demoapp-identity -g shop --issuer $ISSUER \
			--subject system:serviceaccount:demoapp:podserviceaccount -o none
		cat >serviceaccount.yaml <<EOF
apiVersion: v1
kind: ServiceAccount
metadata:
  name: podserviceaccount
  namespace: demoapp
  annotations:
    azure.workload.identity/client-id: $CID
  labels:
    azure.workload.identity/use: "true"
EOF
		cat >deployment.yaml <<EOF
apiVersion: apps/v1
kind: Deployment
metadata:
  name: demoappdeployment
  namespace: demoapp
spec:
  replicas: 1
  selector:
    matchLabels:
      app: demoapp
  template:
    metadata:
      labels:
        app: demoapp
        azure.workload.identity/use: "true"
    spec:
      serviceAccountName: podserviceaccount
      containers:
      - name: demoapp
        image: `+webRef+`
        env: [{name: KEYVAULT_URL, value: "https://demoappkv.vault.azure.net/"}]
        ports:
        - containerPort: 8080
---
apiVersion: v1
kind: Service
metadata:
  name: demoservice
  namespace: demoapp
spec:
  selector:
    app: demoapp
  ports:
  - {protocol: TCP, port: 80, targetPort: 8080}
  type: LoadBalancer
EOF
		kubectl apply -f serviceaccount.yaml
		kubectl apply -f deployment.yaml
		kubectl -n demoapp rollout status deployment/demoappdeployment --timeout=60s`)
	// A visitor: another pod, by the Service's name.
	w.apply(t, `
apiVersion: v1
kind: Pod
metadata: {name: visitor, namespace: demoapp}
spec:
  restartPolicy: Never
  containers: [{name: visitor, image: `+busyboxRef+`, imagePullPolicy: Never, command: [wget, -q, -O, "-", "http://demoservice/"]}]`)
	w.logged(t, "demoapp", "visitor", "Discovered The weights of a state of the art AI model as of")
	w.shows(t, `az keyvault secret show --vault-name demoappkv -n AGISecret --query value -o tsv`, "The weights of a state of the art AI model as of")
}

// TestWalkthroughPolicies is the walkthrough that gives an identity get on
// keys, secrets and certificates, by its client id.
func TestWalkthroughPolicies(t *testing.T) {
	t.Parallel()
	ns := w.namespace(t, "spring-petclinic")
	w.must(t, `
		export RESOURCE_GROUP=shop AKSCLUSTER=shop-cluster LOCATION=westeurope USER_ASSIGNED_IDENTITY_NAME=uid-petclinic KEYVAULT_NAME=kv-petclinic
		export SERVICE_ACCOUNT_NAME=workload-identity-sa NAMESPACE=spring-petclinic FEDERATED_IDENTITY_CREDENTIAL_NAME=fedid-petclinic
		az aks get-credentials -g $RESOURCE_GROUP -n $AKSCLUSTER --overwrite-existing
		az keyvault create -g $RESOURCE_GROUP -n $KEYVAULT_NAME -l $LOCATION --enable-rbac-authorization false -o none
		az keyvault set-policy -g $RESOURCE_GROUP -n $KEYVAULT_NAME --secret-permissions get set list --spn `+w.server.Operator.ClientID+` -o none
		az keyvault secret set --vault-name $KEYVAULT_NAME --name GIT-PAT --value pat-of-the-walkthrough -o none
		flock $UPDATES az aks update --enable-oidc-issuer --enable-workload-identity --name $AKSCLUSTER --resource-group $RESOURCE_GROUP -o none
		export AKS_OIDC_ISSUER="$(az aks show -n $AKSCLUSTER -g $RESOURCE_GROUP --query "oidcIssuerProfile.issuerUrl" -otsv)"
		az identity create --name "${USER_ASSIGNED_IDENTITY_NAME}" --resource-group "${RESOURCE_GROUP}" --location "${LOCATION}" -o none
		az identity show --resource-group "${RESOURCE_GROUP}" --name "${USER_ASSIGNED_IDENTITY_NAME}" -o none
		USER_ASSIGNED_CLIENT_ID="$(az identity show --resource-group "${RESOURCE_GROUP}" --name "${USER_ASSIGNED_IDENTITY_NAME}" --query 'clientId' -otsv)"
		az keyvault set-policy -g $RESOURCE_GROUP -n $KEYVAULT_NAME --key-permissions get --spn $USER_ASSIGNED_CLIENT_ID -o none
		az keyvault set-policy -g $RESOURCE_GROUP -n $KEYVAULT_NAME --secret-permissions get --spn $USER_ASSIGNED_CLIENT_ID -o none
		az keyvault set-policy -g $RESOURCE_GROUP -n $KEYVAULT_NAME --certificate-permissions get --spn $USER_ASSIGNED_CLIENT_ID -o none
		cat <<EOF | kubectl apply -f -
apiVersion: v1
kind: ServiceAccount
metadata:
  annotations:
    azure.workload.identity/client-id: "${USER_ASSIGNED_CLIENT_ID}"
  name: "${SERVICE_ACCOUNT_NAME}"
  namespace: "${NAMESPACE}"
EOF
		az identity federated-credential create --name ${FEDERATED_IDENTITY_CREDENTIAL_NAME} --identity-name "${USER_ASSIGNED_IDENTITY_NAME}" --resource-group "${RESOURCE_GROUP}" \
			--issuer "${AKS_OIDC_ISSUER}" --subject system:serviceaccount:"${NAMESPACE}":"${SERVICE_ACCOUNT_NAME}" --audience api://AzureADTokenExchange -o none`)
	w.shows(t, `az keyvault show -n kv-petclinic --query "properties.accessPolicies[?permissions.keys[0]=='get'].[permissions.keys[0],permissions.secrets[0],permissions.certificates[0]]" -o tsv`, "get\tget\tget")
	w.apply(t, reader(ns, "config-server", "workload-identity-sa", "https://kv-petclinic.vault.azure.net/", "GIT-PAT"))
	w.logged(t, ns, "config-server", "pat-of-the-walkthrough")
}

// reader is a pod that asks for an identity and prints a secret.
func reader(ns, name, account, vault, secret string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: %s, labels: {azure.workload.identity/use: "true"}}
spec:
  serviceAccountName: %s
  restartPolicy: Never
  containers:
  - {name: app, image: %s, imagePullPolicy: Never, env: [{name: KEYVAULT_URL, value: "%s"}, {name: SECRET_NAME, value: "%s"}]}
`, name, ns, account, sampleRef, vault, secret)
}
