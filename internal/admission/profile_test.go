package admission_test

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/podkey/podkey/internal/admission"
)

const wi = "/var/run/secrets/azure/wi"

// reserved is the volume's name for a pod's name.
func reserved(name string) string {
	sum := sha256.Sum256([]byte(name))
	return "azure-workload-identity-reserved-" + hex.EncodeToString(sum[:])[:30]
}

func TestProfiles(t *testing.T) {
	r := reserved("web")
	for profile, tc := range map[admission.Profile]struct {
		volume, file   string
		mounts, tokens []string
	}{
		admission.Classic:  {"azure-identity-token", classicFile, []string{classicMount}, []string{"azure-identity-token"}},
		admission.Reserved: {r, wi + "/token/azure-identity-token", []string{r + ":" + wi + ":ro"}, []string{"token/azure-identity-token"}},
		admission.Hashed: {r, wi + "/" + r[33:] + "/token/azure-identity-token", []string{r + ":" + wi + "/" + r[33:] + ":ro"},
			[]string{"token/azure-identity-token"}},
		admission.Both: {"azure-identity-token", classicFile, []string{classicMount, "azure-identity-token:" + wi + ":ro"},
			[]string{"azure-identity-token", "token/azure-identity-token"}},
	} {
		t.Run(string(profile), func(t *testing.T) {
			p := mutate(t, rules(t, admission.Config{Profile: profile}), pod(t, nil, oneApp))
			equal(t, "volumes", names(items(p["spec"], "volumes")), []string{tc.volume})
			equal(t, "mounts", mounts(app(t, p)), tc.mounts)
			if !slices.Contains(environ(app(t, p)), "AZURE_FEDERATED_TOKEN_FILE="+tc.file) {
				t.Errorf("environment: %v", environ(app(t, p)))
			}
			var tokens []string
			for _, s := range named(t, items(p["spec"], "volumes"), tc.volume)["projected"].(object)["sources"].(list) {
				tokens = append(tokens, s.(object)["serviceAccountToken"].(object)["path"].(string))
			}
			equal(t, "tokens", tokens, tc.tokens)
		})
	}
}

func TestHashOfAPrefix(t *testing.T) {
	p := pod(t, nil, oneApp)
	meta := p["metadata"].(object)
	delete(meta, "name")
	meta["generateName"] = "web-"
	r := rules(t, admission.Config{Profile: admission.Reserved})
	equal(t, "volume", names(items(mutate(t, r, p)["spec"], "volumes")), []string{reserved("web- (prefix)")})
	equal(t, "volume", names(items(mutate(t, r, pod(t, nil, oneApp))["spec"], "volumes")), []string{"azure-workload-identity-reserved-4b5e57f6eb2f42b9039b3d1e139292"})
}

func TestVolumeIsUsedAgain(t *testing.T) {
	old := reserved("an-older-name")
	for _, profile := range []admission.Profile{admission.Reserved, admission.Hashed} {
		r := rules(t, admission.Config{Profile: profile})
		// Seeded with something else: overwritten, under its name.
		p := mutate(t, r, pod(t, nil, oneApp+`,"volumes":[{"name":"`+old+`","secret":{"secretName":"forged"}}]`))
		volumes := items(p["spec"], "volumes")
		equal(t, "volumes", names(volumes), []string{old})
		if volumes[0].(object)["secret"] != nil || source(t, p, old)["path"] != "token/azure-identity-token" {
			t.Errorf("volume: %v", volumes[0])
		}
		// Only what is one of ours: not just anything with the prefix.
		for _, name := range []string{"azure-workload-identity-reserved-mine", strings.ToUpper(old), old + "0", old[:62] + "g"} {
			p := mutate(t, r, pod(t, nil, oneApp+`,"volumes":[{"name":"`+name+`","secret":{"secretName":"mine"}}]`))
			equal(t, "volumes", names(items(p["spec"], "volumes")), []string{name, reserved("web")})
		}
	}
}
