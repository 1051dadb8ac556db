package aks

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/podkey/podkey/internal/install/installtest"
	"github.com/podkey/podkey/internal/store"
)

const (
	webhookPath    = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/podkey-webhook"
	deploymentPath = "/apis/apps/v1/namespaces/podkey-system/deployments/podkey-webhook"
)

// start runs the work in clusters until the test ends, or stop is called.
func (r *rig) start() (stop func()) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.t.Context()))
	done := make(chan error, 1)
	go func() { done <- r.c.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Error(err)
		}
	})
	r.t.Cleanup(stop)
	return stop
}

// reachable registers the cluster "shop", as the operator, with a kubeconfig
// for an API server.
func (r *rig) reachable(kubeconfig string) {
	r.t.Helper()
	b := registering(issuerURL, r.jwks("one"))
	props(b)["podkey"].(map[string]any)["kubeconfig"] = kubeconfig
	r.must(201, "operator", "PUT", clusterPath("shop"), b)
}

// wish is `az aks update --enable-workload-identity`, or --disable.
func (r *rig) wish(enabled bool) answer {
	r.t.Helper()
	return r.asAzDoes("contributor", func(c map[string]any) {
		props(c)["oidcIssuerProfile"] = map[string]any{"enabled": true}
		props(c)["securityProfile"] = map[string]any{"workloadIdentity": map[string]any{"enabled": enabled}}
	})
}

// poll follows an answer to its end, as az does: the address of the header
// until its status is a terminal one, and then the resource.
func (r *rig) poll(a answer) (status, resource answer) {
	r.t.Helper()
	where, ok := strings.CutPrefix(a.Header().Get("Azure-AsyncOperation"), "https://management.podkey.test")
	if a.Code != 200 || !ok || a.Header().Get("Retry-After") != "1" || a.at("properties.provisioningState") != "Updating" {
		r.t.Fatalf("no operation: %d %v %s", a.Code, a.Header(), a.Body)
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
	defer cancel()
	again := time.NewTicker(2 * time.Millisecond)
	defer again.Stop()
	for {
		status = r.must(200, "reader", "GET", where, nil)
		switch status.at("status") {
		case "Succeeded", "Failed", "Canceled":
			return status, r.must(200, "reader", "GET", clusterPath("shop"), nil)
		}
		if status.Header().Get("Retry-After") != "1" {
			r.t.Fatal("no Retry-After while it goes on: az would wait half a minute")
		}
		select {
		case <-ctx.Done():
			r.t.Fatalf("it does not end: %s", status.Body)
		case <-again.C:
		}
	}
}

func (r *rig) succeeds(a answer) answer {
	r.t.Helper()
	status, resource := r.poll(a)
	if status.at("status") != "Succeeded" || resource.at("properties.provisioningState") != "Succeeded" || status.at("endTime") == nil {
		r.t.Fatalf("%s %s", status.Body, resource.Body)
	}
	return resource
}

func (r *rig) fails(a answer, code, says string) {
	r.t.Helper()
	status, resource := r.poll(a)
	message, _ := status.at("error.message").(string)
	if status.at("status") != "Failed" || status.at("error.code") != code || !strings.Contains(message, says) {
		r.t.Errorf("want %s that says %q: %s", code, says, status.Body)
	}
	if resource.at("properties.provisioningState") != "Failed" || resource.at("properties.podkey.error.code") != code {
		r.t.Errorf("the cluster does not say so: %s", resource.Body)
	}
}

func toInstall(a answer) string {
	b, _ := json.Marshal(a.at("properties.podkey.toInstall"))
	return string(b)
}

func TestUpdateSwitchesTheWebhookOnAndOff(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	k := installtest.New(t)
	r.reachable(k.Kubeconfig("", ""))
	r.start()
	if len(k.Paths()) > 0 {
		t.Fatal("something was installed before anybody asked for it")
	}
	a := r.succeeds(r.wish(true))
	if k.Get(webhookPath) == nil || toInstall(a) != "[]" || a.at("properties.securityProfile.workloadIdentity.enabled") != true {
		t.Errorf("there is %v: %s", k.Paths(), a.Body)
	}
	if d, _ := json.Marshal(k.Get(deploymentPath)); !strings.Contains(string(d), homeTenant) || !strings.Contains(string(d), "--authority-host=https://login.podkey.test/") {
		t.Errorf("not for this tenant and authority: %s", d)
	}
	// What is so already starts nothing: az sends it with every other change.
	calls := len(k.Calls())
	a = r.asAzDoes("contributor", func(c map[string]any) {
		c["tags"] = map[string]any{"a": "b"}
		props(c)["provisioningState"] = "Updating" // as it was read a moment ago
	})
	if a.Code != 200 || a.Header().Get("Azure-AsyncOperation") != "" || a.at("properties.provisioningState") != "Succeeded" || len(k.Calls()) != calls {
		t.Errorf("%d %v %s", a.Code, a.Header(), a.Body)
	}
	for _, enabled := range []bool{false, true, false} {
		r.succeeds(r.wish(enabled))
		if (k.Get(webhookPath) != nil) != enabled {
			t.Errorf("enabled %t: there is %v", enabled, k.Paths())
		}
	}
	if left := k.Paths(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	// A new kubeconfig: what is wished is brought there, too.
	r.succeeds(r.wish(true))
	other := installtest.New(t)
	b := registering(issuerURL, r.jwks("one"))
	props(b)["podkey"].(map[string]any)["kubeconfig"] = other.Kubeconfig("", "")
	r.succeeds(r.must(200, "operator", "PUT", clusterPath("shop"), b))
	if other.Get(webhookPath) == nil {
		t.Error("nothing was brought to the other API server")
	}
	if strings.Contains(r.log.String(), installtest.Token) {
		t.Error("the token is in a log")
	}
}

// TestAWishWaitsForAKubeconfig: it is recorded without one, and done when
// there is one.
func TestAWishWaitsForAKubeconfig(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	k := installtest.New(t)
	r.start()
	b := registering(issuerURL, r.jwks("one"))
	p := props(b)["podkey"].(map[string]any)
	delete(p, "kubeconfig")
	r.must(201, "operator", "PUT", clusterPath("shop"), b)
	if a := r.wish(true); a.Code != 200 || a.at("properties.provisioningState") != "Succeeded" || toInstall(a) != `["workload-identity-webhook"]` {
		t.Fatalf("%d %s", a.Code, a.Body)
	}
	p["kubeconfig"] = k.Kubeconfig("", "")
	if a := r.succeeds(r.must(200, "operator", "PUT", clusterPath("shop"), b)); toInstall(a) != "[]" || k.Get(webhookPath) == nil {
		t.Errorf("%s", a.Body)
	}
}

func TestWhyItFailedIsSaid(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	k := installtest.New(t)
	k.Sick, k.SickMessage = "ImagePullBackOff", `Back-off pulling image "localhost/podkey:dev"`
	r.reachable(k.Kubeconfig("", ""))
	r.start()
	r.fails(r.wish(true), codeNotReady, `Deployment podkey-system/podkey-webhook: does not start: container webhook: ImagePullBackOff: Back-off pulling image "localhost/podkey:dev"`)
	a := r.must(200, "reader", "GET", clusterPath("shop"), nil)
	if toInstall(a) != `["workload-identity-webhook"]` || a.at("properties.securityProfile.workloadIdentity.enabled") != true {
		t.Errorf("%s", a.Body)
	}
	// Sending it again tries again.
	k.Heal()
	a = r.succeeds(r.wish(true))
	if toInstall(a) != "[]" || a.at("properties.podkey.error") != nil {
		t.Errorf("%s", a.Body)
	}
	// What is not allowed, when it is to be removed.
	k2 := installtest.New(t)
	k2.Before = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet {
			installtest.Refuse(w, 403, "Forbidden", "mutatingwebhookconfigurations is forbidden")
			return true
		}
		return false
	}
	b := registering(issuerURL, r.jwks("one"))
	props(b)["podkey"].(map[string]any)["kubeconfig"] = k2.Kubeconfig("", "")
	props(b)["securityProfile"] = map[string]any{"workloadIdentity": map[string]any{"enabled": false}}
	r.fails(r.must(200, "operator", "PUT", clusterPath("shop"), b), codeDenied, "is forbidden")
}

// blocked is an API server that holds one request until it is let go. held
// says that it came.
func blocked(t *testing.T) (k *installtest.Cluster, held <-chan struct{}, letGo func()) {
	k = installtest.New(t)
	came, gate := make(chan struct{}), make(chan struct{})
	var once sync.Once
	k.Before = func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != deploymentPath || r.Method != http.MethodPatch {
			return false
		}
		once.Do(func() { close(came) })
		select {
		case <-gate:
			return false
		case <-r.Context().Done():
			return true
		}
	}
	letGo = sync.OnceFunc(func() { close(gate) })
	t.Cleanup(letGo)
	return k, came, letGo
}

func TestWhileItIsUnderWay(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	k, held, letGo := blocked(t)
	r.reachable(k.Kubeconfig("", ""))
	r.start()
	a := r.wish(true)
	<-held
	// No second work on the same cluster, and no other wish.
	if b := r.wish(false); b.Code != 409 || b.code() != "OperationNotAllowed" {
		t.Errorf("%d %s", b.Code, b.Body)
	}
	if b := r.wish(true); b.Code != 409 {
		t.Errorf("%d %s", b.Code, b.Body)
	}
	r.c.runs.kick()
	// What has nothing to do with it goes on, new keys above all.
	r.must(200, "contributor", "PATCH", clusterPath("shop"), `{"tags":{"c":"d"}}`)
	r.must(200, "owner", "POST", clusterPath("shop")+"/pushKeys", map[string]any{"jwks": r.jwks("one", "two")})
	r.must(200, "contributor", "POST", clusterPath("shop")+"/listClusterUserCredential", nil)
	// Who may not read the cluster may not read its operation.
	op := strings.TrimPrefix(a.Header().Get("Azure-AsyncOperation"), "https://management.podkey.test")
	r.must(403, "nobody", "GET", op, nil)
	r.must(401, "stranger", "GET", op, nil)
	r.must(404, "reader", "GET", clusterPath("shop")+"/operationStatuses/none", nil)
	r.must(404, "reader", "GET", clusterPath("none")+"/operationStatuses/none", nil)
	letGo()
	b := r.succeeds(a)
	if b.at("tags.c") != "d" || !strings.Contains(b.Body.String(), `"two"`) {
		t.Errorf("the end of the work overwrote what was done meanwhile: %s", b.Body)
	}
	if n := strings.Count(strings.Join(k.Calls(), "\n"), "PATCH "+deploymentPath); n != 1 {
		t.Errorf("installed %d times", n)
	}
}

// idle waits until no work is under way.
func (r *rig) idle() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	defer cancel()
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for {
		r.c.runs.mu.Lock()
		n := len(r.c.runs.byID)
		r.c.runs.mu.Unlock()
		if n == 0 {
			return
		}
		select {
		case <-ctx.Done():
			r.t.Fatal("the work goes on")
		case <-again.C:
		}
	}
}

// TestUnregisteringStopsTheWork: the work ends, and leaves no record behind.
func TestUnregisteringStopsTheWork(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	k, held, _ := blocked(t)
	r.reachable(k.Kubeconfig("", ""))
	stop := r.start()
	r.wish(true)
	<-held
	r.must(204, "contributor", "DELETE", clusterPath("shop"), nil)
	r.idle()
	stop()
	if d := r.dump(); d != "" || k.Get(deploymentPath) != nil {
		t.Errorf("left: %s %v", d, k.Paths())
	}
}

// TestAStoppedServerDoesItAtTheNextStart: the wish outlives the process.
func TestAStoppedServerDoesItAtTheNextStart(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	k, held, letGo := blocked(t)
	r.reachable(k.Kubeconfig("", ""))
	stop := r.start()
	a := r.wish(true)
	<-held
	stop()
	if d := r.dump(); !strings.Contains(d, `"state":"Updating"`) || strings.Contains(d, `"runner"`) {
		t.Fatalf("the wish was not left for others: %s", d)
	}
	letGo()
	r.start()
	r.succeeds(a)
}

// died makes the record look as a process leaves it that is killed half-way,
// its lease over at a time.
func (r *rig) died(until time.Time) {
	r.t.Helper()
	err := r.s.Update(r.t.Context(), func(tx *store.Tx) error {
		key := clusterKey(homeSub, "rg", "shop")
		a, _, err := r.c.clusters.Get(tx, key)
		if err != nil {
			return err
		}
		a.Operation.Runner, a.Operation.Lease = "another process", until
		return r.c.clusters.Put(tx, key, a)
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

func TestAKilledServersWorkIsDoneAgain(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		alone bool
		lease time.Duration
		again bool
	}{
		"the only server, at once":          {true, time.Minute, true},
		"another one that lives":            {false, time.Minute, false},
		"another one whose lease is over":   {false, -time.Second, true},
		"another one whose lease just ends": {false, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			k := installtest.New(t)
			r.c.o.Alone = c.alone
			r.reachable(k.Kubeconfig("", ""))
			a := r.wish(true)
			r.died(r.now.Add(c.lease))
			if c.again {
				r.start()
				r.succeeds(a)
				return
			}
			var work sync.WaitGroup
			if err := r.c.claim(t.Context(), &work); err != nil {
				t.Fatal(err)
			}
			work.Wait()
			if len(k.Calls()) > 0 {
				t.Errorf("two servers work on one cluster: %v", k.Calls())
			}
		})
	}
}

// TestWhoLostTheWorkWritesNothing: a server that was thought dead does not
// overwrite what the next one did.
func TestWhoLostTheWorkWritesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	k, held, letGo := blocked(t)
	r.c.o.Alone = false
	r.reachable(k.Kubeconfig("", ""))
	stop := r.start()
	r.wish(true)
	<-held
	r.died(r.now.Add(time.Hour))
	before := r.dump()
	letGo()
	r.idle()
	stop()
	if r.dump() != before {
		t.Errorf("it wrote: %s", r.dump())
	}
}

// TestWhoFoundNoRoomGetsItLater: more clusters of one tenant than it has
// places.
func TestWhoFoundNoRoomGetsItLater(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	k := installtest.New(t)
	const n = maxTenantRuns + 2
	for i := range n {
		b := fetching("https://c" + strconv.Itoa(i) + ".example/")
		props(b)["podkey"].(map[string]any)["kubeconfig"] = k.Kubeconfig("", "")
		props(b)["securityProfile"] = map[string]any{"workloadIdentity": map[string]any{"enabled": true}}
		r.must(201, "operator", "PUT", clusterPath("c"+strconv.Itoa(i)), b)
	}
	r.start()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second) // sooner than the next look around
	defer cancel()
	again := time.NewTicker(2 * time.Millisecond)
	defer again.Stop()
	for i := range n {
		for r.must(200, "reader", "GET", clusterPath("c"+strconv.Itoa(i)), nil).at("properties.provisioningState") != "Succeeded" {
			select {
			case <-ctx.Done():
				t.Fatalf("cluster %d waits for ever", i)
			case <-again.C:
			}
		}
	}
}

// TestOneTenantDoesNotHoldUpOthers: places are limited for each.
func TestOneTenantDoesNotHoldUpOthers(t *testing.T) {
	t.Parallel()
	r := runs{byID: map[string]*runInfo{}, wake: make(chan struct{}, 1)}
	var got []int
	for tenant := range 6 {
		n := 0
		for i := range 6 {
			if r.take("c"+strconv.Itoa(tenant)+"-"+strconv.Itoa(i), strconv.Itoa(tenant), func() {}) {
				n++
			}
		}
		got = append(got, n)
	}
	if !slices.Equal(got, []int{4, 4, 4, 4, 0, 0}) {
		t.Errorf("places: %v", got)
	}
	if r.take("c0-0", "0", func() {}) {
		t.Error("two for one cluster")
	}
	r.release("c0-0")
	if !r.take("c0-5", "0", func() {}) {
		t.Error("a place that became free is not given on")
	}
}
