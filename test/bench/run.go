package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/podkey/podkey/internal/bootstrap"
	"github.com/podkey/podkey/internal/client"
)

const declaration = `
identities:
  - name: bench
    resourceGroup: bench
    federatedCredentials:
      - {name: bench, namespace: bench, serviceAccount: bench}
vaults:
  - name: bench
    resourceGroup: bench
    access: [{identity: bench, role: Key Vault Secrets Officer}]
    secrets: [{name: warm, value: first}]
`

// bench is a run in progress.
type bench struct {
	o        options
	dir      string
	podkey   string
	server   *exec.Cmd
	api      *client.Client
	roots    *x509.CertPool
	vault    string // origin
	token    string // for the vault, of the identity
	form     string // body of a token exchange
	clientID string // of the identity
	login    string // token endpoint
}

func run(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "podkey-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{o: o, dir: filepath.Join(dir, "data"), podkey: filepath.Join(dir, "podkey")}
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/podkey/podkey").Output()
	if err != nil {
		return fmt.Errorf("find the source of podkey: %w", err)
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", b.podkey, "./cmd/podkey")
	build.Dir = strings.TrimSpace(string(root))
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build podkey: %w\n%s", err, out)
	}
	if _, err := b.start(ctx); err != nil {
		return err
	}
	defer func() { b.stop() }()
	if err := b.open(ctx); err != nil {
		return err
	}
	for _, part := range []struct {
		name string
		fn   func(context.Context) error
	}{
		{"rest", b.atRest}, {"throughput", b.throughput}, {"cold", b.coldPods}, {"sizes", b.growth},
	} {
		if o.wants(part.name) {
			if err := part.fn(ctx); err != nil {
				return fmt.Errorf("%s: %w", part.name, err)
			}
		}
	}
	return nil
}

// start starts the server and returns how long it took to be ready.
func (b *bench) start(ctx context.Context) (time.Duration, error) {
	begin := time.Now()
	b.server = exec.CommandContext(ctx, b.podkey, "server", "--data", b.dir, "--listen", "127.0.0.1:0", "--log-level", "warn")
	errs, err := b.server.StderrPipe()
	if err != nil {
		return 0, err
	}
	if err := b.server.Start(); err != nil {
		return 0, err
	}
	s := bufio.NewScanner(errs)
	var said []string
	for s.Scan() {
		said = append(said, s.Text())
		if strings.HasPrefix(s.Text(), "podkey: ready") {
			took := time.Since(begin)
			go io.Copy(os.Stderr, errs)
			return took, nil
		}
	}
	return 0, fmt.Errorf("the server did not start: %s", strings.Join(said, "\n"))
}

func (b *bench) stop() {
	b.server.Process.Signal(syscall.SIGTERM)
	b.server.Wait()
}

// open declares what the measurements need and gets a workload's token.
func (b *bench) open(ctx context.Context) (err error) {
	if b.api, err = client.Open(b.dir); err != nil {
		return err
	}
	b.roots = x509.NewCertPool()
	for _, f := range []string{b.api.Operator.CAFile, b.api.Operator.AzureCAFile} {
		pem, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		b.roots.AppendCertsFromPEM(pem)
	}
	f, err := bootstrap.Parse([]byte(declaration))
	if err != nil {
		return err
	}
	if err := bootstrap.Apply(ctx, b.api, f, func(bootstrap.Step) {}); err != nil {
		return err
	}
	if err := b.api.Vault(ctx, "bench", "PUT", "/secrets/warm?api-version=7.5", map[string]string{"value": strings.Repeat("v", 1024)}, nil); err != nil {
		return err
	}
	ids, err := b.api.Identities(ctx)
	if err != nil {
		return err
	}
	assertion, _, err := b.api.ServiceAccountToken(ctx, "local", "bench", "bench", "api://AzureADTokenExchange", time.Hour)
	if err != nil {
		return err
	}
	b.vault = "https://bench" + b.api.Operator.Endpoints.VaultSuffix
	b.login = b.api.Operator.Endpoints.Login + "/" + b.api.Operator.TenantID + "/oauth2/v2.0/token"
	b.clientID = ids[0].Properties.ClientID
	b.form = b.exchangeForm(assertion)
	a, err := b.exchange(newClient(b.api.Operator.Listen, b.roots))
	if err != nil {
		return err
	}
	var out struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(a.Body, &out); err != nil || out.AccessToken == "" {
		return fmt.Errorf("no access token: %s", a.Body)
	}
	b.token = out.AccessToken
	return nil
}

func (b *bench) exchangeForm(assertion string) string {
	return url.Values{
		"grant_type": {"client_credentials"}, "client_id": {b.clientID}, "scope": {"https://vault.azure.net/.default"},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "client_assertion": {assertion},
	}.Encode()
}

// assertions is a supply of service-account tokens that are used once each.
type assertions struct {
	b     *bench
	ctx   context.Context
	forms []string
	used  atomic.Int64
}

// refill makes a new supply; to sign them is not what is measured.
func (a *assertions) refill() error {
	a.forms = make([]string, 5000)
	a.used.Store(0)
	g, ctx := errgroup.WithContext(a.ctx)
	g.SetLimit(8)
	for i := range a.forms {
		g.Go(func() error {
			assertion, _, err := a.b.api.ServiceAccountToken(ctx, "local", "bench", "bench", "api://AzureADTokenExchange", time.Hour)
			a.forms[i] = a.b.exchangeForm(assertion)
			return err
		})
	}
	return g.Wait()
}

func (a *assertions) next(int) (*http.Request, error) {
	i := a.used.Add(1) - 1
	if i >= int64(len(a.forms)) {
		return nil, errExhausted
	}
	return a.b.tokenRequest(a.b.login, a.forms[i])
}

func (b *bench) getRequest(base, name string) (*http.Request, error) {
	req, err := http.NewRequest("GET", base+"/secrets/"+name+"/?api-version=7.5", nil)
	if err == nil {
		req.Header.Set("Authorization", "Bearer "+b.token)
	}
	return req, err
}

func (b *bench) setRequest(base, name string) (*http.Request, error) {
	req, err := http.NewRequest("PUT", base+"/secrets/"+name+"?api-version=7.5", strings.NewReader(setBody))
	if err == nil {
		req.Header.Set("Authorization", "Bearer "+b.token)
		req.Header.Set("Content-Type", "application/json")
	}
	return req, err
}

var setBody = `{"value":"` + strings.Repeat("v", 1024) + `"}`

func (b *bench) tokenRequest(endpoint, form string) (*http.Request, error) {
	req, err := http.NewRequest("POST", endpoint, strings.NewReader(form))
	if err == nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return req, err
}

func (b *bench) exchange(c *http.Client) (answer, error) {
	req, err := b.tokenRequest(b.login, b.form)
	if err != nil {
		return answer{}, err
	}
	return capture(c, req)
}

// capture performs a request and keeps the whole answer.
func capture(c *http.Client, req *http.Request) (answer, error) {
	resp, err := c.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: HTTP %d: %s", req.Method, req.URL, resp.StatusCode, body)
	}
	return answer{Path: req.URL.Path, Status: resp.StatusCode, Header: resp.Header, Body: body}, err
}

// throughput compares GET, SET and token exchange with the bare handler.
func (b *bench) throughput(ctx context.Context) error {
	c := newClient(b.api.Operator.Listen, b.roots)
	getWarm, err := b.getRequest(b.vault, "warm")
	if err != nil {
		return err
	}
	gotGet, err := capture(c, getWarm)
	if err != nil {
		return err
	}
	setScratch, err := b.setRequest(b.vault, "scratch")
	if err != nil {
		return err
	}
	gotSet, err := capture(c, setScratch)
	if err != nil {
		return err
	}
	gotToken, err := b.exchange(c)
	if err != nil {
		return err
	}
	gotSet.Path, gotToken.Path = "/set", "/token"
	floor := gotToken
	floor.Path, floor.Signatures = "/signatures", true
	bh, err := startBare(ctx, []answer{gotGet, gotSet, gotToken, floor})
	if err != nil {
		return err
	}
	defer bh.stop()

	ours := func(int) *http.Client { return newClient(b.api.Operator.Listen, b.roots) }
	bare := func(int) *http.Client { return newClient(bh.addr, bh.roots) }
	base := "https://" + bareHost
	var seq atomic.Int64
	fresh := &assertions{b: b, ctx: ctx}
	fmt.Printf("%-16s %8s │ %9s %9s %9s │ %9s %9s %9s │ %6s  %s\n", "", "clients", "req/s", "p50", "p99", "bare r/s", "p50", "p99", "ratio", "budget")
	get := func(base string) call { return func(int) (*http.Request, error) { return b.getRequest(base, "warm") } }
	set := func(int) (*http.Request, error) { return b.setRequest(b.vault, fmt.Sprintf("set-%d", seq.Add(1))) }
	bareSet := func(int) (*http.Request, error) { return b.bareSet(base) }
	exchange := func(endpoint string) call {
		return func(int) (*http.Request, error) { return b.tokenRequest(endpoint, b.form) }
	}
	type row struct {
		name           string
		clients        int
		budget         float64 // least ratio; zero for none
		before         func() error
		server         func(int) *http.Client // what is measured; ours if nil
		next, nextBare call
	}
	for _, m := range []row{
		{name: "secret GET", clients: 1, next: get(b.vault), nextBare: get(base)},
		{name: "secret GET", clients: 16, budget: 0.7, next: get(b.vault), nextBare: get(base)},
		{name: "secret GET", clients: 64, next: get(b.vault), nextBare: get(base)},
		{name: "secret SET", clients: 1, next: set, nextBare: bareSet},
		{name: "secret SET", clients: 16, next: set, nextBare: bareSet},
		{name: "secret SET", clients: 64, next: set, nextBare: bareSet},
		// Each assertion is used once: none is remembered from before.
		{name: "token exchange", clients: 1, before: fresh.refill, next: fresh.next, nextBare: exchange(base + "/token")},
		{name: "token exchange", clients: 16, budget: 0.4, before: fresh.refill, next: fresh.next, nextBare: exchange(base + "/token")},
		{name: "token exchange", clients: 64, before: fresh.refill, next: fresh.next, nextBare: exchange(base + "/token")},
		{name: "same assertion", clients: 16, next: exchange(b.login), nextBare: exchange(base + "/token")},
		// What the standard library allows: the bare handler with an exchange's two signatures beside itself without.
		{name: "signatures only", clients: 16, server: bare, next: exchange(base + "/signatures"), nextBare: exchange(base + "/token")},
	} {
		if m.server == nil {
			m.server = ours
		}
		if !b.o.rows.MatchString(fmt.Sprintf("%s %d", m.name, m.clients)) {
			continue
		}
		a, z, err := pair(ctx, b.o, m.clients, 200, m.server, bare, m.before, m.next, m.nextBare)
		if err != nil {
			return err
		}
		budget := ""
		if m.budget > 0 {
			budget = fmt.Sprintf("%.1f %s", m.budget, verdict(a.rps/z.rps >= m.budget))
		}
		fmt.Printf("%-16s %8d │ %9.0f %9s %9s │ %9.0f %9s %9s │ %6.2f  %s\n", m.name, m.clients,
			a.rps, short(a.p50), short(a.p99), z.rps, short(z.p50), short(z.p99), a.rps/z.rps, budget)
	}
	return nil
}

func (b *bench) bareSet(base string) (*http.Request, error) {
	req, err := b.setRequest(base, "x")
	if err == nil {
		req.URL.Path = "/set"
	}
	return req, err
}

func verdict(ok bool) string {
	if ok {
		return "met"
	}
	return "MISSED"
}

func short(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%dµs", d.Microseconds())
	default:
		return fmt.Sprintf("%.2fms", float64(d.Microseconds())/1000)
	}
}

// coldPods measures what a pod does first, on new connections: the
// unauthenticated request that is challenged, the exchange, the read.
func (b *bench) coldPods(ctx context.Context) error {
	var all []time.Duration
	start := time.Now()
	for range b.o.cold {
		begin := time.Now()
		c := newClient(b.api.Operator.Listen, b.roots)
		req, err := http.NewRequestWithContext(ctx, "GET", b.vault+"/secrets/warm/?api-version=7.5", nil)
		if err != nil {
			return err
		}
		resp, err := c.Do(req)
		if err != nil {
			return err
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 401 || resp.Header.Get("WWW-Authenticate") == "" {
			return fmt.Errorf("no challenge: HTTP %d", resp.StatusCode)
		}
		a, err := b.exchange(c)
		if err != nil {
			return err
		}
		var out struct {
			AccessToken string `json:"access_token"`
		}
		if err := json.Unmarshal(a.Body, &out); err != nil {
			return err
		}
		get, err := b.getRequest(b.vault, "warm")
		if err != nil {
			return err
		}
		get.Header.Set("Authorization", "Bearer "+out.AccessToken)
		if _, err := capture(c, get); err != nil {
			return err
		}
		all = append(all, time.Since(begin))
		c.CloseIdleConnections()
	}
	r := summarize(all, time.Since(start))
	fmt.Printf("\ncold pod: connect, challenge, exchange, read: p50 %s, p99 %s; budget 25 ms %s\n", short(r.p50), short(r.p99), verdict(r.p99 < 25*time.Millisecond))
	return nil
}

// atRest restarts the server and looks at it while nobody calls, before and
// after it has served.
func (b *bench) atRest(ctx context.Context) error {
	b.stop()
	took, err := b.start(ctx)
	if err != nil {
		return err
	}
	fresh, err := b.resident(ctx)
	if err != nil {
		return err
	}
	if err := b.open(ctx); err != nil {
		return err
	}
	used, err := b.resident(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("server at rest: %d MiB resident, %d MiB after it has served; budget 80 MiB %s\n", fresh, used, verdict(max(fresh, used) < 80))
	fmt.Printf("ready with an existing store after %s; budget 1 s %s\n", short(took), verdict(took < time.Second))
	return nil
}

// resident waits a while and returns the server's resident memory in MiB.
func (b *bench) resident(ctx context.Context) (int, error) {
	select {
	case <-time.After(5 * time.Second):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.server.Process.Pid))
	if err != nil {
		return 0, err
	}
	var kib int
	for line := range bytes.Lines(status) {
		fmt.Sscanf(string(line), "VmRSS: %d kB", &kib)
	}
	return kib >> 10, nil
}

// growth fills the vault step by step and measures GET of random secrets,
// each time beside the bare handler: a machine that was slower at one step than
// at another must not look like a vault that is.
func (b *bench) growth(ctx context.Context) error {
	warm, err := b.getRequest(b.vault, "warm")
	if err != nil {
		return err
	}
	got, err := capture(newClient(b.api.Operator.Listen, b.roots), warm)
	if err != nil {
		return err
	}
	bh, err := startBare(ctx, []answer{got})
	if err != nil {
		return err
	}
	defer bh.stop()
	ours := func(int) *http.Client { return newClient(b.api.Operator.Listen, b.roots) }
	bare := func(int) *http.Client { return newClient(bh.addr, bh.roots) }
	nextBare := func(int) (*http.Request, error) { return b.getRequest("https://"+bareHost, "warm") }

	fmt.Printf("\nsecret GET of random names; ×bare is the p50 as a multiple of the bare handler's; budget: with one client, within 20 %% of the smallest vault's\n")
	fmt.Printf("%10s %8s │ %9s %9s %9s │ %9s │ %6s  %s\n", "secrets", "clients", "req/s", "p50", "p99", "bare p50", "×bare", "growth")
	have := 0
	first := map[int]float64{}
	for _, n := range b.o.sizes {
		begin := time.Now()
		if err := b.fill(ctx, have, n); err != nil {
			return err
		}
		filled := time.Since(begin)
		have = n
		var seq atomic.Uint64
		next := func(int) (*http.Request, error) {
			k := (seq.Add(1) * 0x9e3779b97f4a7c15) >> 11 % uint64(n)
			return b.getRequest(b.vault, fmt.Sprintf("n-%d", k))
		}
		memory, err := b.resident(ctx)
		if err != nil {
			return err
		}
		for _, clients := range []int{1, 16} {
			r, z, err := pair(ctx, b.o, clients, 200, ours, bare, nil, next, nextBare)
			if err != nil {
				return err
			}
			multiple := float64(r.p50) / float64(z.p50)
			if first[clients] == 0 {
				first[clients] = multiple
			}
			growth := fmt.Sprintf("%.2f", multiple/first[clients])
			if clients == 1 {
				growth += " " + verdict(multiple/first[clients] <= 1.2)
			}
			fmt.Printf("%10d %8d │ %9.0f %9s %9s │ %9s │ %6.2f  %s\n", n, clients, r.rps, short(r.p50), short(r.p99), short(z.p50), multiple, growth)
		}
		fmt.Printf("%10s filled in %s, %d MiB resident\n", "", filled.Round(time.Second), memory)
	}
	b.stop()
	took, err := b.start(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("ready again with all of them after %s\n", took.Round(time.Millisecond))
	return nil
}

// fill sets the secrets n-from to n-(to-1) through the API.
func (b *bench) fill(ctx context.Context, from, to int) error {
	var next atomic.Int64
	next.Store(int64(from))
	var wg sync.WaitGroup
	var failed atomic.Pointer[error]
	for range 128 {
		wg.Go(func() {
			c := newClient(b.api.Operator.Listen, b.roots)
			defer c.CloseIdleConnections()
			for {
				i := next.Add(1) - 1
				if i >= int64(to) || ctx.Err() != nil || failed.Load() != nil {
					return
				}
				err := once(c, 200, 0, func(int) (*http.Request, error) { return b.setRequest(b.vault, fmt.Sprintf("n-%d", i)) })
				if err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return ctx.Err()
}
