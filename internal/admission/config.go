package admission

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

// The defaults of a [Config].
const (
	DefaultAuthorityHost = "https://login.microsoftonline.com/"
	DefaultAudience      = "api://AzureADTokenExchange"
	DefaultProxyPort     = 8000
)

// Config says what pods get. TenantID is required; the zero value of all else
// is the default.
type Config struct {
	// TenantID is the tenant of service accounts that name none.
	TenantID string

	// AuthorityHost is the token service, an https URL. A closing slash is
	// added. [AuthorityHost] has those of Azure's clouds.
	AuthorityHost string

	// Audience is what tokens are made for.
	Audience string

	// Profile is the layout of the token's volume.
	Profile Profile

	// Images are those of the containers that are injected.
	Images Images

	// NativeSidecars makes the proxy an init container that keeps running; see
	// [NativeSidecars].
	NativeSidecars bool

	// LogLevel is that of the proxy.
	LogLevel string

	// Extra are variables that go with AuthorityHost, such as
	// AZURE_REGIONAL_AUTHORITY_NAME when Podkey answers to its own names. A
	// container that sets another AZURE_AUTHORITY_HOST itself does not get
	// them: they would lead it astray.
	Extra []EnvVar

	// Trust makes pods trust an authority of a private certificate authority.
	Trust *Trust

	// CustomEndpoint is the token endpoint that pods may choose by annotation.
	CustomEndpoint *CustomEndpoint
}

// EnvVar is a variable of a container.
type EnvVar struct{ Name, Value string }

// Images are the images of injected containers.
type Images struct {
	// Proxy is Podkey's image. Without it, pods that want a proxy are refused.
	Proxy string

	// ProxyInit and Trust are the same image if they are empty.
	ProxyInit, Trust string

	// PullPolicy is IfNotPresent if empty.
	PullPolicy string

	// Binary is where the program is in the image: the proxy is asked by it
	// whether it is ready. If empty, /podkey.
	Binary string
}

// authorityHosts are Azure's clouds by the names that AZURE_ENVIRONMENT takes.
var authorityHosts = map[string]string{
	"azurepubliccloud":       DefaultAuthorityHost,
	"azureusgovernmentcloud": "https://login.microsoftonline.us/",
	"azurechinacloud":        "https://login.chinacloudapi.cn/",
	"azuregermancloud":       "https://login.microsoftonline.de/",
}

// AuthorityHost is the authority host of a cloud by its AZURE_ENVIRONMENT, in
// any case of letters. Empty means the public cloud.
func AuthorityHost(environment string) (string, error) {
	if environment == "" {
		return DefaultAuthorityHost, nil
	}
	host, ok := authorityHosts[strings.ToLower(environment)]
	if !ok {
		return "", fmt.Errorf("there is no cloud environment matching the name %q: AZURE_ENVIRONMENT is AzurePublicCloud, "+
			"AzureUSGovernmentCloud, AzureChinaCloud or AzureGermanCloud", clip(environment))
	}
	return host, nil
}

// withDefaults fills in what is empty.
func (c Config) withDefaults() Config {
	set := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
	}
	set(&c.AuthorityHost, DefaultAuthorityHost)
	if !strings.HasSuffix(c.AuthorityHost, "/") {
		c.AuthorityHost += "/"
	}
	set(&c.Audience, DefaultAudience)
	set((*string)(&c.Profile), string(Classic))
	set(&c.LogLevel, "info")
	set(&c.Images.ProxyInit, c.Images.Proxy)
	set(&c.Images.Trust, c.Images.Proxy)
	set(&c.Images.PullPolicy, "IfNotPresent")
	set(&c.Images.Binary, "/podkey")
	if c.CustomEndpoint != nil && *c.CustomEndpoint == (CustomEndpoint{}) {
		c.CustomEndpoint = nil
	}
	return c
}

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// Validate reports every problem, each as a line of its own.
func (c Config) Validate() error {
	c = c.withDefaults()
	var problems []error
	bad := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if c.TenantID == "" {
		bad("AZURE_TENANT_ID is required")
	} else if strings.ContainsAny(c.TenantID, " \t\r\n/") {
		bad("tenant %q is neither an id nor a domain", clip(c.TenantID))
	}
	if err := httpsURL(c.AuthorityHost); err != nil {
		bad("authority host %q: %w", clip(c.AuthorityHost), err)
	}
	if err := c.Profile.validate(); err != nil {
		problems = append(problems, err)
	}
	if strings.Contains(c.LogLevel, "$") {
		bad("log level %q is none", clip(c.LogLevel)) // the node would expand it in arguments
	}
	switch c.Images.PullPolicy {
	case "IfNotPresent", "Always", "Never":
	default:
		bad("image pull policy %q is none of IfNotPresent, Always and Never", clip(c.Images.PullPolicy))
	}
	for _, v := range c.Extra {
		if !envName.MatchString(v.Name) || v.Value == "" {
			bad("extra variable %q needs a name of letters, digits and underscores, and a value", clip(v.Name))
		}
	}
	if c.Trust != nil {
		if c.Images.Trust == "" {
			bad("injected trust needs an image")
		}
		if err := c.Trust.validate(); err != nil {
			problems = append(problems, err)
		}
	}
	if c.CustomEndpoint != nil {
		problems = append(problems, c.CustomEndpoint.problems(c.Audience)...)
	}
	return errors.Join(problems...)
}

// httpsURL refuses what the SDKs would refuse, or what a path could not be
// appended to.
func httpsURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return errors.New("not a URL")
	case u.Scheme != "https":
		return errors.New("must be https: the Azure SDKs refuse anything else")
	case u.Host == "":
		return errors.New("no host")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return errors.New("must have no user, query or fragment")
	}
	return nil
}
