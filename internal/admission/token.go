package admission

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path"
	"reflect"
	"strings"
)

// Profile is a layout of the token's volume. Programs have each of upstream's
// layouts hard-coded.
type Profile string

// The profiles.
const (
	// Classic is that of v0.8 to v1.5, which most guides show.
	Classic Profile = "classic"
	// Reserved is that of v1.6: the volume's name contains a hash of the pod's.
	Reserved Profile = "reserved"
	// Hashed has the hash in the path too.
	Hashed Profile = "hashed"
	// Both is one volume at the places of Classic and of Reserved.
	Both Profile = "both"
)

func (p Profile) validate() error {
	switch p {
	case Classic, Reserved, Hashed, Both:
		return nil
	}
	return fmt.Errorf("token path profile %q is none of classic, reserved, hashed and both", clip(string(p)))
}

const (
	classicVolume  = "azure-identity-token"
	classicPath    = "/var/run/secrets/azure/tokens"
	classicToken   = "azure-identity-token"
	reservedPrefix = "azure-workload-identity-reserved-"
	reservedPath   = "/var/run/secrets/azure/wi"
	reservedToken  = "token/azure-identity-token"

	maxVolumeName = 63
	hashDigits    = maxVolumeName - len(reservedPrefix)
)

// place is where a volume is to be mounted and, for the token's, where in it
// the token is.
type place struct{ path, token string }

// token is the volume that holds the token.
type token struct {
	volume string
	places []place // the first is the one that the variable names
	file   string
}

// layout says where a pod's token goes. A volume of ours that is there already
// is used again, under the name that it has: the hash comes from the pod's
// name, which another webhook may have changed since.
func (p Profile) layout(pod *pod) token {
	t := token{volume: classicVolume}
	switch p {
	case Classic:
		t.places = []place{{classicPath, classicToken}}
	case Both:
		t.places = []place{{classicPath, classicToken}, {reservedPath, reservedToken}}
	case Reserved:
		t.volume = reservedVolume(pod)
		t.places = []place{{reservedPath, reservedToken}}
	case Hashed:
		t.volume = reservedVolume(pod)
		t.places = []place{{reservedPath + "/" + strings.TrimPrefix(t.volume, reservedPrefix), reservedToken}}
	}
	t.file = t.places[0].path + "/" + t.places[0].token
	return t
}

func reservedVolume(pod *pod) string {
	for _, v := range pod.volumes.items {
		if digits, ok := strings.CutPrefix(v.name, reservedPrefix); ok && len(digits) == hashDigits && strings.Trim(digits, "0123456789abcdef") == "" {
			return v.name
		}
	}
	name := pod.name
	if name == "" {
		name = pod.generateName + " (prefix)"
	}
	sum := sha256.Sum256([]byte(name))
	return reservedPrefix + hex.EncodeToString(sum[:])[:hashDigits]
}

// projected is the token's volume as it is to be.
func (t *token) projected(audience string, seconds int64, more map[string]any) map[string]any {
	var sources []any
	for _, p := range t.places {
		sources = append(sources, map[string]any{"serviceAccountToken": map[string]any{
			"path": p.token, "expirationSeconds": seconds, "audience": audience,
		}})
	}
	if more != nil {
		sources = append(sources, more)
	}
	return map[string]any{"name": t.volume, "projected": map[string]any{"sources": sources}}
}

// sameVolume compares a volume of the pod with what it is to be, but for what
// the API server fills in.
func sameVolume(text string, want []byte) bool {
	var a, b map[string]any
	if json.Unmarshal([]byte(text), &a) != nil || json.Unmarshal(want, &b) != nil {
		return false
	}
	if p, ok := a["projected"].(map[string]any); ok && p["defaultMode"] == 420.0 {
		delete(p, "defaultMode")
	}
	return reflect.DeepEqual(a, b)
}

// held is a volume and the path of a token in it.
type held struct{ volume, path string }

// holdsToken reports whether a volume of the user's has, at the path of the
// token, a token for the audience: somebody wrote by hand what we would add.
// Containers share volumes, so all are looked at together, and once.
func (x *plan) holdsToken(name, tokenPath string) bool {
	if tokenPath == "" {
		return false
	}
	if x.holders == nil {
		x.holders = map[held]bool{}
		for _, v := range x.pod.volumes.items {
			var projected struct {
				Projected struct {
					Sources []struct {
						ServiceAccountToken struct{ Path, Audience string }
					}
				}
			}
			if json.Unmarshal([]byte(v.text), &projected) != nil {
				continue
			}
			for _, s := range projected.Projected.Sources {
				if t := s.ServiceAccountToken; t.Path != "" && t.Audience == x.audience {
					x.holders[held{v.name, t.Path}] = true
				}
			}
		}
	}
	return x.holders[held{name, tokenPath}]
}

// mounted finds what a container has mounted at a path of ours.
func (c *container) mounted(at string) (mount, bool) {
	for _, m := range c.mounts.items {
		// The API server compares texts; the node would mount both.
		if m.path == at || path.Clean(m.path) == at {
			return m, true
		}
	}
	return mount{}, false
}
