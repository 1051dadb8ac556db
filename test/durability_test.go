package test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
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

// written is what the server acknowledged: the values by secret and version,
// and the order in which each secret's versions were acknowledged.
type written struct {
	mu     sync.Mutex
	values map[string]map[string]string // name -> version -> value
	last   map[string]string            // name -> last acknowledged version
	open   map[string]bool              // values sent whose answer never came
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
	w := &written{values: map[string]map[string]string{}, last: map[string]string{}, open: map[string]bool{}}
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
		<-time.After(time.Duration(5+rand.IntN(150)) * time.Millisecond)
		p.stop(syscall.SIGKILL)
		cancel()
		wg.Wait()
		p = startProcess(t, dir, p.op.Listen)
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
	p.stop(syscall.SIGTERM)
	noSecretsInTheClear(t, dir)
}

func (w *written) set(ctx context.Context, c *client.Client, name, value string) {
	w.mu.Lock()
	w.open[value] = true
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
		w.values[name] = map[string]string{}
	}
	w.values[name][version] = value
	w.last[name] = version
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
			delete(w.open, got.Value)
		}
		if len(list.Value) != len(versions) {
			t.Fatalf("round %d: %s has %d versions, want %d", round, name, len(list.Value), len(versions))
		}
	}
}

// clear is what must not be found in a data directory: secret values and
// private keys, as text, base64 or DER prefixes of PKCS#8.
var privateKeys = regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY-----|canary-`)

// noSecretsInTheClear reads every byte of every file.
func noSecretsInTheClear(t *testing.T, dir string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		b, err := io.ReadAll(f)
		if err != nil {
			return err
		}
		if m := privateKeys.Find(b); m != nil {
			t.Errorf("%s contains %q", path, m)
		}
		if filepath.Base(path) == "kek.json" || filepath.Base(path) == client.OperatorFile {
			return nil // what opens the rest: files of mode 0600, by contract
		}
		for _, oid := range pkcs8Prefixes {
			if bytes.Contains(b, oid) {
				t.Errorf("%s contains a private key (PKCS#8)", path)
			}
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
