package admission

import (
	"errors"
	"strconv"
	"strings"
)

const (
	proxyName     = "azwi-proxy"
	proxyInitName = "azwi-proxy-init"
	proxyUser     = 1501 // exempt from the redirection, so it must be this one
)

// nativeSince is the minor version of Kubernetes 1 since which init containers
// that keep running can be relied on.
const nativeSince = 32

// NativeSidecars reports whether an API server of that version, as it names it
// ("1", "32+"), has native sidecars that can be relied on.
func NativeSidecars(major, minor string) bool {
	number := func(s string) int {
		end := strings.IndexFunc(s, func(c rune) bool { return c < '0' || c > '9' })
		if end >= 0 {
			s = s[:end]
		}
		n, err := strconv.Atoi(s)
		if err != nil {
			return -1
		}
		return n
	}
	m := number(major)
	return m > 1 || m == 1 && number(minor) >= nativeSince
}

// proxy is what a pod asked for.
type proxy struct {
	on         bool
	port       int
	appService bool // App Service's protocol: no interception
}

// wantedProxy reads a pod's annotations.
func (r *Rules) wantedProxy(p *pod) (proxy, *denial) {
	v, ok := p.annotations.get(injectAnnotation)
	// Linux containers cannot run on a Windows node.
	if !ok || strings.EqualFold(v, "false") || p.windows {
		return proxy{}, nil
	}
	refuse := func(message string) (proxy, *denial) { return proxy{}, &denial{BadProxy, message} }
	if p.hostNetwork {
		return refuse("hostNetwork is set to true, cannot inject proxy sidecar: remove the annotation " + injectAnnotation + " or hostNetwork")
	}
	port, err := proxyPort(p.annotations)
	if err != nil {
		return refuse("annotation " + portAnnotation + ": failed to parse proxy sidecar port: " + err.Error())
	}
	out := proxy{on: true, port: port}
	switch v, _ := p.annotations.get(protocolAnnotation); strings.ToLower(v) {
	case "", "imds":
	case "appservice":
		out.appService = true
	default:
		return refuse("annotation " + protocolAnnotation + ": " + strconv.Quote(clip(v)) + " is neither imds nor appservice")
	}
	if r.config.Images.Proxy == "" && !p.has(proxyName) {
		return refuse("annotation " + injectAnnotation + ": the webhook was not told which image the proxy has")
	}
	return out, nil
}

func proxyPort(annotations pairs) (int, error) {
	v, ok := annotations.get(portAnnotation)
	if !ok {
		return DefaultProxyPort, nil
	}
	n, err := strconv.ParseInt(v, 10, 32)
	if err != nil {
		return 0, numberError(err)
	}
	if n < 1 || n > 65535 {
		return 0, errors.New(strconv.FormatInt(n, 10) + " is not between 1 and 65535")
	}
	return int(n), nil
}

// has reports whether a container of either kind has that name. Names are
// unique across both, so a second one would make the pod invalid.
func (p *pod) has(name string) bool {
	for _, l := range [][]container{p.initContainers.items, p.containers.items} {
		for i := range l {
			if l[i].name == name {
				return true
			}
		}
	}
	return false
}

// identityHeader is the secret of App Service's protocol. It is no text in the
// pod's specification: it is the pod's UID, which the node fills in, and which
// no web page or redirected request can know. Whoever is inside the pod needs
// no secret, for the token's file is there.
var identityHeader = variable{name: "IDENTITY_HEADER", field: "metadata.uid"}

// The variables of the proxy, and of those who ask it by App Service's
// protocol.
const (
	identityEndpointName = "IDENTITY_ENDPOINT"
	podName              = "POD_NAME"
	podNamespaceName     = "POD_NAMESPACE"
	nodeName             = "NODE_NAME"
)

// variables are those by which an application finds the proxy.
func (x proxy) variables() []variable {
	if !x.appService {
		return nil // intercepted
	}
	return []variable{
		{name: identityEndpointName, value: "http://127.0.0.1:" + strconv.Itoa(x.port) + "/msi/token"},
		identityHeader,
	}
}

// own are the variables of the proxy itself, besides the token's.
func (x proxy) own() []variable {
	vars := []variable{
		{name: podName, field: "metadata.name"},
		{name: podNamespaceName, field: "metadata.namespace"},
		{name: nodeName, field: "spec.nodeName"},
	}
	if x.appService {
		vars = append(vars, identityHeader)
	}
	return vars
}

// proxyContainer is the sidecar, but for token and trust.
func (r *Rules) proxyContainer(x proxy, sizes sizes) *containerSpec {
	flags := []string{"--proxy-port=" + strconv.Itoa(x.port), "--log-level=" + r.config.LogLevel}
	c := &containerSpec{
		Name: proxyName, Image: r.config.Images.Proxy, ImagePullPolicy: r.config.Images.PullPolicy,
		Args:      append([]string{"proxy"}, flags...),
		Ports:     []portSpec{{ContainerPort: x.port}},
		Resources: sizes.proxy,
		// The containers behind it start when this has succeeded: they find
		// the proxy ready.
		Lifecycle: &lifecycleSpec{PostStart: handlerSpec{Exec: execSpec{
			Command: append([]string{r.config.Images.Binary, "proxy", "--probe"}, flags...),
		}}},
		SecurityContext: restricted(proxyUser),
	}
	if x.appService {
		c.Args = append(c.Args, "--protocol=appservice")
	}
	if r.config.NativeSidecars {
		c.RestartPolicy = "Always"
	}
	return c
}

// proxyInitContainer redirects the metadata address to the proxy. It needs one
// capability, and neither the token nor trust.
func (r *Rules) proxyInitContainer(x proxy, sizes sizes) *containerSpec {
	s := restricted(0)
	*s.RunAsNonRoot = false
	s.Capabilities.Add = []string{"NET_ADMIN"}
	return &containerSpec{
		Name: proxyInitName, Image: r.config.Images.ProxyInit, ImagePullPolicy: r.config.Images.PullPolicy,
		Args:            []string{"proxy-init"},
		Env:             []envSpec{{Name: "PROXY_PORT", Value: strconv.Itoa(x.port)}},
		Resources:       sizes.helper,
		SecurityContext: s,
	}
}
