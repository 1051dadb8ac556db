package admission_test

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/podkey/podkey/internal/admission"
)

// many is n containers, each with something more.
func many(n int, more func(i int) string) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"name":"c%d"%s}`, i, more(i))
	}
	return b.String()
}

func nothing(int) string { return "" }

// allocated is how many bytes a call takes, and how often it asks for them. The
// garbage of other goroutines is small beside what these tests are about.
func allocated(f func()) (bytes, times uint64) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc, after.Mallocs - before.Mallocs
}

// The rules are asked before the API server looks whether a pod is one. What a
// review costs is in proportion to it and to its answer, and the answer has a
// bound.
func TestManyContainersCostInProportion(t *testing.T) {
	r := rules(t, admission.Config{NativeSidecars: true, Trust: &admission.Trust{CA: ca}})
	half := many(500, nothing)
	body := review(t, pod(t, nil, `"initContainers":[`+many(500, func(i int) string { return `,"image":"i"` })+`],"containers":[`+half+`]`))
	var res admission.Response
	bytes, _ := allocated(func() { res = r.Mutate(context.Background(), body, known.lookup, nil) })
	if res.Outcome != admission.Mutated {
		t.Fatalf("%s", res.Body[:200])
	}
	if most := uint64(10 * (len(body) + len(res.Body))); bytes > most {
		t.Errorf("a review of %d bytes and its answer of %d took %d bytes", len(body), len(res.Body), bytes)
	}
	for _, spec := range []string{
		`"containers":[` + many(1001, nothing) + `]`,
		`"initContainers":[` + many(501, nothing) + `],"containers":[` + half + `]`,
		`"containers":[` + many(50_000, nothing) + `]`,
	} {
		obj := pod(t, nil, spec)
		refuse(t, r, obj, admission.TooLarge, "more than 1000 containers")
		body := review(t, obj)
		bytes, _ := allocated(func() { r.Mutate(context.Background(), body, known.lookup, nil) })
		if bytes > uint64(20*len(body)) {
			t.Errorf("the refusal of %d bytes took %d", len(body), bytes)
		}
	}
}

// What the operator configured may be long; the answer stays within what an API
// server takes.
func TestAnswersAreBounded(t *testing.T) {
	e := endpoint()
	e.CAConfigMap, e.CASigner, e.CALabelSelector = "", "", ""
	e.CAData = strings.Repeat(ca, 20)
	r := rules(t, admission.Config{CustomEndpoint: e})
	obj := pod(t, map[string]string{keys + "use-" + e.Suffix: "true"}, `"containers":[`+many(1000, nothing)+`]`)
	refuse(t, r, obj, admission.TooLarge, "MiB")
}

// grows fails if an object four times as large takes much more than four times
// as much: buffers that double come to somewhat more, the square is sixteen.
func grows(t *testing.T, call func(size int) func()) {
	t.Helper()
	const n = 240
	small, large := call(n), call(4*n)
	small()
	bytes1, times1 := allocated(small)
	bytes4, times4 := allocated(large)
	if bytes4 > 7*bytes1 || times4 > 7*times1 {
		t.Errorf("%d bytes in %d pieces, and of four times the size %d in %d", bytes1, times1, bytes4, times4)
	}
}

func TestCostDoesNotGrowWithTheSquare(t *testing.T) {
	r := rules(t, admission.Config{})
	for name, make := range map[string]func(n int) object{
		"a volume that every container mounts": func(n int) object {
			var sources []string
			for range n {
				sources = append(sources, `{"secret":{"name":"s"}}`)
			}
			sources = append(sources, `{"serviceAccountToken":{"path":"azure-identity-token","audience":"api://AzureADTokenExchange"}}`)
			return pod(t, nil, `"containers":[`+many(n, func(int) string {
				return `,"volumeMounts":[{"name":"mine","mountPath":"/var/run/secrets/azure/tokens"}]`
			})+`],"volumes":[{"name":"mine","projected":{"sources":[`+strings.Join(sources, ",")+`]}}]`)
		},
		"a volume of its own for each": func(n int) object {
			var volumes []string
			for i := range n {
				volumes = append(volumes, fmt.Sprintf(`{"name":"v%d","projected":{"sources":[{"serviceAccountToken":{"path":"azure-identity-token","audience":"api://AzureADTokenExchange"}}]}}`, i))
			}
			return pod(t, nil, `"containers":[`+many(n, func(i int) string {
				return fmt.Sprintf(`,"volumeMounts":[{"name":"v%d","mountPath":"/var/run/secrets/azure/tokens"}]`, i)
			})+`],"volumes":[`+strings.Join(volumes, ",")+`]`)
		},
		"names to skip": func(n int) object {
			return pod(t, map[string]string{keys + "skip-containers": strings.Repeat(";", 50*n)}, `"containers":[`+many(n, nothing)+`]`)
		},
		"annotations near to ours": func(n int) object {
			a := map[string]string{}
			for i := range n {
				a[fmt.Sprintf("azure.workload.identity/cliend-id%d", i)] = ""
			}
			return pod(t, a, oneApp)
		},
	} {
		t.Run(name, func(t *testing.T) {
			for what, ask := range map[string]func(context.Context, []byte, admission.Lookup, []byte) admission.Response{"mutate": r.Mutate, "advise": r.Advise} {
				grows(t, func(n int) func() {
					body := review(t, make(n))
					return func() {
						if res := ask(context.Background(), body, known.lookup, nil); res.Body == nil || res.Outcome == admission.Denied {
							t.Errorf("%s: %s", what, res.Body)
						}
					}
				})
			}
		})
	}
}

// Two things take time and no memory. An object that means to take it is
// answered about as fast as one of the same size that does not: without the
// bounds it takes some hundred times as long.
func TestNoSlowObjects(t *testing.T) {
	r := rules(t, admission.Config{})
	fastest := func(f func(context.Context, []byte, admission.Lookup, []byte) admission.Response, obj object) time.Duration {
		body, best := review(t, obj), time.Hour
		for range 3 {
			start := time.Now()
			f(context.Background(), body, known.lookup, nil)
			best = min(best, time.Since(start))
		}
		return best
	}
	compare := func(what string, got, usual time.Duration) {
		if got > 20*usual+5*time.Millisecond {
			t.Errorf("%s: %s, and usually %s", what, got, usual)
		}
	}
	containers := func(skip string) object {
		return pod(t, map[string]string{keys + "skip-containers": skip}, `"containers":[`+many(1000, nothing)+`]`)
	}
	compare("names to skip", fastest(r.Mutate, containers(strings.Repeat("no;", 250_000))), fastest(r.Mutate, containers(strings.Repeat("no", 375_000))))

	annotations := func(key string) object {
		a := map[string]string{}
		for i := range 20_000 {
			a[fmt.Sprintf("azure.workload.%s/skip-container-of-mine-%05d", key, i)] = ""
		}
		return object{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": object{"name": "web", "annotations": a}}
	}
	compare("annotations", fastest(r.Advise, annotations("identity")), fastest(r.Advise, annotations("entities")))
}

// The node puts variables in place of $(NAME), in what we add as in what a pod
// has. Nothing that anybody wrote into an annotation or a configuration may
// become another variable's value: it would be sent to the token service.
func TestNothingIsExpanded(t *testing.T) {
	const evil = "$(DB_PASSWORD)"
	for _, key := range []string{"client-id", "tenant-id"} {
		for _, v := range []string{evil, "a$", "${CLIENT_ID}"} {
			all := accounts{"sa": {keys + key: v}}
			r := rules(t, admission.Config{})
			obj := pod(t, nil, oneApp)
			res := r.Mutate(context.Background(), review(t, obj), all.lookup, nil)
			if res.Outcome != admission.Denied || res.Reason != admission.BadServiceAccount ||
				!strings.Contains(res.Message, "service account shop/sa, annotation "+keys+key) || !strings.Contains(res.Message, "dollar") {
				t.Errorf("%s %q: %s %s", key, v, res.Outcome, res.Message)
			}
			if res := r.Advise(context.Background(), review(t, obj), all.lookup, nil); !slices.ContainsFunc(res.Warnings, func(w string) bool {
				return strings.Contains(w, "pods will be refused: service account shop/sa, annotation "+keys+key)
			}) {
				t.Errorf("%s %q: nobody says that pods will be refused: %q", key, v, res.Warnings)
			}
		}
	}
	e := endpoint()
	e.TokenProxy, e.SNIName = "https://proxy.example/"+evil, evil
	for _, native := range []bool{true, false} {
		r := rules(t, admission.Config{
			TenantID: evil, AuthorityHost: "https://login.example/" + evil, Extra: []admission.EnvVar{{Name: "EXTRA", Value: evil + "$"}},
			Trust: &admission.Trust{CA: ca}, CustomEndpoint: e, NativeSidecars: native,
		})
		out := mutate(t, r, pod(t, inject("use-"+e.Suffix, "true"), oneApp))
		found := 0
		for _, l := range []string{"initContainers", "containers"} {
			for _, c := range items(spec(out), l) {
				texts := []string{}
				for _, v := range items(c, "env") {
					if s, ok := v.(object)["value"].(string); ok {
						texts = append(texts, s)
					}
				}
				for _, k := range []string{"args", "command"} {
					for _, s := range items(c, k) {
						texts = append(texts, s.(string))
					}
				}
				for _, s := range texts {
					if strings.Contains(strings.ReplaceAll(s, "$$", ""), "$") {
						t.Errorf("%s is expanded: %q", c.(object)["name"], s)
					}
					if strings.ReplaceAll(s, "$$", "$") != s {
						found++
					}
				}
			}
		}
		if found < 5 {
			t.Errorf("%d values with a dollar sign: the test does not look at them", found)
		}
	}
	if _, err := admission.New(admission.Config{TenantID: tenantID, LogLevel: evil}); err == nil {
		t.Error("a log level that would be expanded")
	}
}

// A container that names the authority itself, as it has to be written, has the
// variables that go with it.
func TestAuthorityIsKnownAgain(t *testing.T) {
	r := rules(t, admission.Config{AuthorityHost: "https://login.example/$(X)/", Extra: []admission.EnvVar{{Name: "EXTRA", Value: "1"}}})
	out := mutate(t, r, pod(t, nil, `"containers":[{"name":"app","env":[{"name":"AZURE_AUTHORITY_HOST","value":"https://login.example/$$(X)/"}]}]`))
	if env := environ(items(spec(out), "containers")[0]); !slices.Contains(env, "EXTRA=1") {
		t.Errorf("%v", env)
	}
}

func TestLongAnnotationsAreRefusedByName(t *testing.T) {
	r := rules(t, admission.Config{})
	for _, key := range []string{"client-id", "tenant-id", "service-account-token-expiration"} {
		for n, want := range map[int]bool{admission.MaxValue: true, admission.MaxValue + 1: false} {
			all := accounts{"sa": {keys + key: strings.Repeat("1", n)}}
			res := r.Mutate(context.Background(), review(t, pod(t, nil, oneApp)), all.lookup, nil)
			if key == "service-account-token-expiration" {
				want = false // never a number within the bounds
			}
			if (res.Outcome == admission.Mutated) != want || !want && !strings.Contains(res.Message, "service account shop/sa, annotation "+keys+key) {
				t.Errorf("%s of %d bytes: %s %s", key, n, res.Outcome, res.Message)
			}
			if len(res.Message) > 1000 || !json.Valid(res.Body) {
				t.Errorf("%s of %d bytes: %s", key, n, res.Body)
			}
		}
	}
}
