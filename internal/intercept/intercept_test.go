package intercept_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/podkey/podkey/internal/intercept"
)

func TestFromEnv(t *testing.T) {
	for name, c := range map[string]struct {
		env  map[string]string
		want intercept.Redirect
		err  string // part of it; empty for none
	}{
		"nothing set": {nil, intercept.Redirect{Metadata: netip.MustParseAddrPort("169.254.169.254:80"), ProxyPort: 8000, ProxyUID: 1501}, ""},
		"all set": {
			map[string]string{"PROXY_PORT": "8080", "METADATA_IP": "10.0.0.1", "METADATA_PORT": "8775", "PROXY_UID": "0"},
			intercept.Redirect{Metadata: netip.MustParseAddrPort("10.0.0.1:8775"), ProxyPort: 8080}, "",
		},
		"port zero":      {map[string]string{"PROXY_PORT": "0"}, intercept.Redirect{}, "PROXY_PORT"},
		"port too large": {map[string]string{"METADATA_PORT": "65536"}, intercept.Redirect{}, "METADATA_PORT"},
		"port in words":  {map[string]string{"PROXY_PORT": "eighty"}, intercept.Redirect{}, `"eighty"`},
		"user negative":  {map[string]string{"PROXY_UID": "-1"}, intercept.Redirect{}, "PROXY_UID"},
		"no user":        {map[string]string{"PROXY_UID": "4294967295"}, intercept.Redirect{}, "PROXY_UID"},
		"IPv6":           {map[string]string{"METADATA_IP": "fd00:ec2::254"}, intercept.Redirect{}, "METADATA_IP"},
		"mapped IPv4":    {map[string]string{"METADATA_IP": "::ffff:169.254.169.254"}, intercept.Redirect{}, "METADATA_IP"},
		"name":           {map[string]string{"METADATA_IP": "metadata"}, intercept.Redirect{}, "METADATA_IP"},
	} {
		got, err := intercept.FromEnv(func(name string) string { return c.env[name] })
		switch {
		case c.err == "" && (err != nil || got != c.want):
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, c.want)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%s: %+v, error %v; want one with %s", name, got, err, c.err)
		}
	}
}
