package test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"maps"
	mathrand "math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/podkey/podkey/internal/bootstrap"
	"github.com/podkey/podkey/internal/client"
)

const durable = `
vaults:
  - name: durable
    resourceGroup: test
    secrets: [{name: first, value: "canary-first-value"}]
`

// written is what the server acknowledged.
type written struct {
	mu      sync.Mutex
	values  map[string]map[string]string // name -> version -> value
	current map[string]map[string]bool   // name -> versions that may be the current one, see set
	open    map[string]bool              // values sent whose answer never came
}

// TestKillDuringWrites kills the server at random moments while many clients
// write, and checks after each restart that everything acknowledged is there,
// with value and version, and that nothing is half there.
func TestKillDuringWrites(t *testing.T) {
	const writers = 8
	rounds := 30
	if testing.Short() {
		rounds = 5
	}
	dir := t.TempDir()
	p := startProcess(t, dir, "127.0.0.1:0")
	apply(t, dir, durable)
	w := &written{values: map[string]map[string]string{}, current: map[string]map[string]bool{}, open: map[string]bool{}}
	for round := range rounds {
		c := open(t, dir)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var began sync.Once
		flowing := make(chan struct{})
		for i := range writers {
			wg.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					name := fmt.Sprintf("s%d", (i/2*7+n)%12) // two writers contend for each name
					w.set(ctx, c, name, fmt.Sprintf("canary-%d-%d-%d", round, i, n))
					began.Do(func() { close(flowing) })
				}
			})
		}
		<-flowing
		// The moment of the kill is the point of the test; nothing waits on it.
		<-time.After(time.Duration(5+mathrand.IntN(150)) * time.Millisecond)
		p.Stop(syscall.SIGKILL)
		cancel()
		wg.Wait()
		p = startProcess(t, dir, p.Operator.Listen)
		w.check(t, open(t, dir), round)
	}
	total := 0
	for _, versions := range w.values {
		total += len(versions)
	}
	if total < rounds*writers {
		t.Errorf("only %d writes were acknowledged in %d rounds: the test tested little", total, rounds)
	}
	t.Logf("%d rounds, %d acknowledged versions, all there", rounds, total)
	p.Stop(syscall.SIGTERM)
	noSecretsInTheClear(t, dir)
}

// set writes a version. Of the acknowledged ones, those that were begun before
// another one was acknowledged and ended after may be the current one; a
// version that was acknowledged before this one began cannot be any more.
func (w *written) set(ctx context.Context, c *client.Client, name, value string) {
	w.mu.Lock()
	w.open[value] = true
	overtaken := maps.Clone(w.current[name])
	w.mu.Unlock()
	var out struct{ ID string }
	if err := c.Vault(ctx, "durable", http.MethodPut, "/secrets/"+name+"?api-version=7.5", map[string]string{"value": value}, &out); err != nil {
		return // not acknowledged
	}
	version := out.ID[strings.LastIndexByte(out.ID, '/')+1:]
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.open, value)
	if w.values[name] == nil {
		w.values[name], w.current[name] = map[string]string{}, map[string]bool{}
	}
	w.values[name][version] = value
	for v := range overtaken {
		delete(w.current[name], v)
	}
	w.current[name][version] = true
}

func (w *written) check(t *testing.T, c *client.Client, round int) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, versions := range w.values {
		for version, value := range versions {
			var got struct{ Value string }
			err := c.Vault(t.Context(), "durable", "GET", "/secrets/"+name+"/"+version+"?api-version=7.5", nil, &got)
			if err != nil || got.Value != value {
				t.Fatalf("round %d: acknowledged %s/%s: %q %v, want %q", round, name, version, got.Value, err, value)
			}
		}
		// Whatever else is there must be whole, and sent by somebody whose
		// answer was cut off.
		var list struct{ Value []struct{ ID string } }
		path := "/secrets/" + name + "/versions?api-version=7.5"
		for path != "" {
			var page struct {
				Value    []struct{ ID string }
				NextLink string
			}
			if err := c.Vault(t.Context(), "durable", "GET", path, nil, &page); err != nil {
				t.Fatal(err)
			}
			list.Value = append(list.Value, page.Value...)
			_, path, _ = strings.Cut(page.NextLink, strings.TrimPrefix(c.Operator.Endpoints.VaultSuffix, "."))
		}
		for _, item := range list.Value {
			version := item.ID[strings.LastIndexByte(item.ID, '/')+1:]
			if _, known := versions[version]; known {
				continue
			}
			var got struct{ Value string }
			if err := c.Vault(t.Context(), "durable", "GET", "/secrets/"+name+"/"+version+"?api-version=7.5", nil, &got); err != nil {
				t.Fatalf("round %d: listed but not readable: %s/%s: %v", round, name, version, err)
			}
			if !w.open[got.Value] {
				t.Fatalf("round %d: %s/%s has the value %q, which nobody sent", round, name, version, got.Value)
			}
			versions[version] = got.Value // from now on it must stay
			w.current[name][version] = true
			delete(w.open, got.Value)
		}
		var now struct{ ID, Value string }
		if err := c.Vault(t.Context(), "durable", "GET", "/secrets/"+name+"?api-version=7.5", nil, &now); err != nil {
			t.Fatalf("round %d: the current version of %s: %v", round, name, err)
		}
		version := now.ID[strings.LastIndexByte(now.ID, '/')+1:]
		if !w.current[name][version] || versions[version] != now.Value {
			t.Fatalf("round %d: the current version of %s is %s with %q, want one of %v", round, name, version, now.Value, w.current[name])
		}
		w.current[name] = map[string]bool{version: true}
		if len(list.Value) != len(versions) {
			t.Fatalf("round %d: %s has %d versions, want %d", round, name, len(list.Value), len(versions))
		}
	}
}

// noSecretsInTheClear reads every byte of every file and looks for secret
// values and private keys: as text, in base64 of any alignment, in
// hexadecimal, and as DER.
func noSecretsInTheClear(t *testing.T, dir string) {
	t.Helper()
	needles := map[string]string{"-----BEGIN PRIVATE KEY": "a PEM key", "-----BEGIN EC PRIVATE": "a PEM key", "-----BEGIN RSA PRIVATE": "a PEM key"}
	for what, raw := range map[string][]byte{"a secret value": []byte("canary-"), "an RSA key": pkcs8Prefixes[0], "an EC key": pkcs8Prefixes[1]} {
		for _, form := range encodings(raw) {
			needles[form] = what
		}
	}
	look := func(path string, b []byte) (found []string) {
		for form, what := range needles {
			if bytes.Contains(b, []byte(form)) {
				found = append(found, what)
			}
		}
		return found
	}
	// The search itself can find: a key of each kind, in each form, is planted.
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for offset := range 3 {
		padded := append(bytes.Repeat([]byte{'x'}, offset), der...)
		if len(look("planted", []byte(base64.StdEncoding.EncodeToString(padded)))) == 0 {
			t.Fatalf("a planted key in base64 at offset %d was not found", offset)
		}
	}
	if len(look("planted", der)) == 0 || len(look("planted", []byte(hex.EncodeToString([]byte("a canary-1"))))) == 0 {
		t.Fatal("a planted key or value was not found")
	}

	files := 0
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if found := look(path, b); len(found) > 0 {
			t.Errorf("%s contains %v", path, found)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 5 {
		t.Errorf("only %d files were read", files)
	}
}

// encodings are the forms in which raw bytes could lie in a file: as they are,
// in hexadecimal, and in base64 at each of the three alignments, without the
// characters that depend on what stands before and after.
func encodings(raw []byte) []string {
	forms := []string{string(raw), hex.EncodeToString(raw)}
	for offset := range 3 {
		text := base64.RawStdEncoding.EncodeToString(append(make([]byte, offset), raw...))
		skip := (offset*8 + 5) / 6
		end := len(text) - 1
		forms = append(forms, text[skip:end])
	}
	return forms
}

// pkcs8Prefixes begin a PKCS#8 private key: version 0, then the algorithm's
// identifier (RSA, and EC on P-256).
var pkcs8Prefixes = [][]byte{
	{0x02, 0x01, 0x00, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01},
	{0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07},
}

func apply(t testing.TB, dir, yaml string) {
	t.Helper()
	f, err := bootstrap.Parse([]byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	if err := bootstrap.Apply(t.Context(), open(t, dir), f, func(bootstrap.Step) {}); err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, dir string) *client.Client {
	t.Helper()
	c, err := client.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
