package admission

import "fmt"

// Trust is what pods must have to trust an authority of Podkey's.
type Trust struct {
	// CA is the PEM of the certificates to be trusted. It is shown to
	// everyone who may read pods.
	CA string
}

const (
	trustName   = "podkey-trust" // of the container and of the volume
	trustPath   = "/var/run/secrets/podkey/trust"
	trustBundle = trustPath + "/ca-bundle.pem"
	javaName    = "JAVA_TOOL_OPTIONS"

	// The password protects nothing: the store holds public certificates.
	javaTrust = "-Djavax.net.ssl.trustStore=" + trustPath + "/truststore.p12" +
		" -Djavax.net.ssl.trustStoreType=PKCS12 -Djavax.net.ssl.trustStorePassword=changeit"
)

func (t *Trust) validate() error {
	switch n, err := certificates(t.CA); {
	case err != nil:
		return fmt.Errorf("CA of injected trust: %w", err)
	case n == 0:
		return fmt.Errorf("CA of injected trust holds no PEM certificate")
	}
	return nil
}

// trustVariables are what clients read to know whom to trust: Go, Python and
// .NET by OpenSSL; Python's requests; curl; Node; Java.
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
func (r *Rules) trustContainer() *containerSpec {
	return &containerSpec{
		Name: trustName, Image: r.config.Images.Trust, ImagePullPolicy: r.config.Images.PullPolicy,
		Args:            []string{"trust", "--to", trustPath},
		Env:             []envSpec{{Name: "PODKEY_CA", Value: r.config.Trust.CA}},
		Resources:       smallResources,
		VolumeMounts:    []mountSpec{{Name: trustName, MountPath: trustPath}},
		SecurityContext: restricted(65532),
	}
}
