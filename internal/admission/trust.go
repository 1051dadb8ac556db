package admission

import (
	"fmt"

	"github.com/podkey/podkey/internal/pki"
)

// Trust is what pods must have to trust an authority of Podkey's.
type Trust struct {
	// CA is the PEM of the certificates to be trusted, and nothing else: it
	// is shown to everyone who may read pods.
	CA string
}

const (
	trustName   = "podkey-trust" // of the container and of the volume
	trustPath   = "/var/run/secrets/podkey/trust"
	trustBundle = trustPath + "/" + pki.TrustBundleFile
	caName      = "PODKEY_CA"
	javaName    = "JAVA_TOOL_OPTIONS"
	javaTrust   = "-Djavax.net.ssl.trustStore=" + trustPath + "/" + pki.TrustStoreFile +
		" -Djavax.net.ssl.trustStoreType=PKCS12 -Djavax.net.ssl.trustStorePassword=" + pki.TrustStorePassword
)

// maxTrusted is what Linux leaves of one variable of 128 KiB with its name, the
// equals sign and the end. A longer one lets no program start.
const maxTrusted = 128<<10 - len(caName) - len("=\x00")

// validate refuses what the injected container would refuse: no pod could start.
func (t *Trust) validate() error {
	if _, err := pki.ParseTrusted([]byte(t.CA)); err != nil {
		return fmt.Errorf("CA of injected trust: %w", err)
	}
	if len(t.CA) > maxTrusted {
		return fmt.Errorf("CA of injected trust: %d bytes are too many for a variable, which has at most %d", len(t.CA), maxTrusted)
	}
	return nil
}

// trustVariables are what clients read to know whom to trust: Go, Python by
// OpenSSL, and .NET, which reads it itself; Python's requests; curl; Node; Java.
var trustVariables = []variable{
	{name: "SSL_CERT_FILE", value: trustBundle},
	{name: "REQUESTS_CA_BUNDLE", value: trustBundle},
	{name: "CURL_CA_BUNDLE", value: trustBundle},
	{name: "NODE_EXTRA_CA_CERTS", value: trustBundle},
	{name: javaName, value: javaTrust},
}

// trustVolume is in memory, like the token's, and small.
var trustVolume = map[string]any{"name": trustName, "emptyDir": map[string]any{"medium": "Memory", "sizeLimit": "4Mi"}}

// trustContainer writes the files before any other container starts. It meets
// the restricted Pod Security Standard, whatever the pod says of itself.
func (r *Rules) trustContainer(sizes sizes) *containerSpec {
	return &containerSpec{
		Name: trustName, Image: r.config.Images.Trust, ImagePullPolicy: r.config.Images.PullPolicy,
		Args:            []string{"trust", "--to", trustPath},
		Env:             []envSpec{{Name: caName, Value: unexpanded(r.config.Trust.CA)}},
		Resources:       sizes.helper,
		VolumeMounts:    []mountSpec{{Name: trustName, MountPath: trustPath}},
		SecurityContext: restricted(65532),
	}
}
