//go:build e2e && linux

package intercept

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// These tests need root and a kernel with nftables, as a node has: each runs
// in a network namespace of its own, that a child of the test binary is
// started in. Grandchildren drop their privileges and connect or install.

// roleEnv tells a child what it is; without it, this is the test itself.
const roleEnv = "PODKEY_INTERCEPT_TEST_ROLE"

const (
	metadata = "169.254.169.254:80"
	other    = "169.254.169.254:8080"
	proxied  = "127.0.0.1:8000"
	mesh     = "127.0.0.1:15001"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(roleEnv); role != "" {
		if err := act(role); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// act plays a role of a child.
func act(role string) error {
	verb, arg, _ := strings.Cut(role, " ")
	switch verb {
	case "connect": // prints what the listener that was reached says
		conn, err := net.DialTimeout("tcp4", arg, 5*time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			return err
		}
		_, err = io.Copy(os.Stdout, conn)
		return err
	case "install":
		return standard().Install()
	case "scenario":
		return scenario()
	}
	return fmt.Errorf("unknown role %q", role)
}

func standard() Redirect {
	return Redirect{Metadata: netip.MustParseAddrPort(metadata), ProxyPort: DefaultProxyPort, ProxyUID: DefaultProxyUID}
}

// child starts this binary again in a role and returns what it printed.
func child(role string, attr *syscall.SysProcAttr) (string, error) {
	// Not by its path: what `go test` built lies in a directory that other
	// users cannot enter.
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), roleEnv+"="+role)
	cmd.SysProcAttr = attr
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%w: %s", err, errs.String())
	}
	return out.String(), nil
}

func as(uid uint32, caps ...uintptr) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}, AmbientCaps: caps}
}

// report is what a scenario found, in the order in which it happened.
type report struct {
	Step, Got string
}

// scenario is the whole story in one network namespace.
func scenario() error {
	if err := loopback(); err != nil {
		return err
	}
	for _, addr := range []string{metadata, other, proxied, mesh} {
		if err := announce(addr); err != nil {
			return err
		}
	}
	var found []report
	connect := func(step string, uid uint32, addr string) {
		got, err := child("connect "+addr, as(uid))
		if err != nil {
			got = "error: " + err.Error()
		}
		found = append(found, report{step, got})
	}
	connect("before, an application", 1000, metadata)

	_, err := child("install", as(1000))
	switch {
	case err == nil:
		found = append(found, report{"install without the capability", "done"})
	case strings.Contains(err.Error(), "NET_ADMIN"):
		found = append(found, report{"install without the capability", "refused, names NET_ADMIN"})
	default:
		found = append(found, report{"install without the capability", err.Error()})
	}
	// Neither root nor any other capability.
	if _, err := child("install", as(1501, unix.CAP_NET_ADMIN)); err != nil {
		return fmt.Errorf("install with NET_ADMIN alone: %w", err)
	}
	once, err := ruleset()
	if err != nil {
		return err
	}
	found = append(found, report{"rules", once})
	connect("an application", 1000, metadata)
	connect("root", 0, metadata)
	connect("the proxy itself", 1501, metadata)
	connect("another port", 1000, other)
	connect("the proxy's port", 1000, proxied)

	// Once more, as when an init container is restarted; and with another
	// port in between, whose rule must not stay.
	moved := standard()
	moved.ProxyPort = 8001
	if err := errors.Join(moved.Install(), standard().Install(), standard().Install()); err != nil {
		return err
	}
	again, err := ruleset()
	if err != nil {
		return err
	}
	found = append(found, report{"rules after the fourth time", again})
	connect("an application, after the fourth time", 1000, metadata)

	// The rules of others stay, and ours comes first: this is what a service
	// mesh has, for all that is not its own.
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	foreign := conn.AddTable(&nftables.Table{Name: "mesh", Family: nftables.TableFamilyIPv4})
	chain := conn.AddChain(&nftables.Chain{
		Table: foreign, Name: "output", Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest,
	})
	all := standard()
	all.ProxyPort, all.ProxyUID = 15001, 1337
	conn.AddRule(&nftables.Rule{Table: foreign, Chain: chain, Exprs: all.expressions()})
	if err := conn.Flush(); err != nil {
		return err
	}
	connect("an application in a mesh", 1000, metadata)
	connect("the proxy in a mesh", 1501, metadata)
	if err := standard().Install(); err != nil {
		return err
	}
	tables, err := conn.ListTables()
	if err != nil {
		return err
	}
	found = append(found, report{"tables", fmt.Sprint(len(tables))})
	return json.NewEncoder(os.Stdout).Encode(found)
}

// loopback brings up the loopback device, with the metadata address on it, so
// that there is something to be redirected from.
func loopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	alias, err := unix.NewIfreq("lo:1")
	if err != nil {
		return err
	}
	if err := alias.SetInet4Addr([]byte{169, 254, 169, 254}); err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFADDR, alias); err != nil {
		return fmt.Errorf("add the metadata address: %w", err)
	}
	return nil
}

// announce tells everyone who connects which address was reached.
func announce(addr string) error {
	ln, err := net.Listen("tcp4", addr)
	if err != nil {
		return err
	}
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(conn, addr)
			conn.Close()
		}
	}()
	return nil
}

// ruleset is the chain and its rules, without the handles that the kernel
// numbers anew each time.
func ruleset() (string, error) {
	conn, err := nftables.New()
	if err != nil {
		return "", err
	}
	var text strings.Builder
	chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return "", err
	}
	for _, c := range chains {
		fmt.Fprintf(&text, "%s/%s %s hook %d priority %d\n", c.Table.Name, c.Name, c.Type, *c.Hooknum, *c.Priority)
		rules, err := conn.GetRules(c.Table, c)
		if err != nil {
			return "", err
		}
		for _, r := range rules {
			for _, e := range r.Exprs {
				b, err := json.Marshal(e)
				if err != nil {
					return "", err
				}
				fmt.Fprintf(&text, "%T %s\n", e, b)
			}
		}
	}
	return text.String(), nil
}

func TestInNetworkNamespace(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("this test needs root, for a network namespace")
	}
	out, err := child("scenario", &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET})
	if err != nil {
		t.Fatal(err)
	}
	var found []report
	if err := json.Unmarshal([]byte(out), &found); err != nil {
		t.Fatalf("%v in %q", err, out)
	}
	got := map[string]string{}
	for _, r := range found {
		got[r.Step] = r.Got
	}
	rules := got["rules"]
	if !strings.Contains(rules, "podkey_proxy/output nat hook 3 priority -110") || strings.Count(rules, "*expr.Redir") != 1 {
		t.Errorf("the rules are\n%s", rules)
	}
	if again := got["rules after the fourth time"]; again != rules {
		t.Errorf("rules after the fourth time (-first +fourth):\n%s", cmp.Diff(rules, again))
	}
	for step, want := range map[string]string{
		"before, an application":                metadata,
		"install without the capability":        "refused, names NET_ADMIN",
		"an application":                        proxied,
		"root":                                  proxied,
		"the proxy itself":                      metadata,
		"another port":                          other,
		"the proxy's port":                      proxied,
		"an application, after the fourth time": proxied,
		"an application in a mesh":              proxied,
		"the proxy in a mesh":                   mesh,
		"tables":                                "2",
	} {
		if got[step] != want {
			t.Errorf("%s: %q, want %q", step, got[step], want)
		}
	}
}
