package keyvault

import (
	"crypto/rand"
	"encoding/hex"
	"strings"

	"github.com/podkey/podkey/internal/store"
)

// Secrets are stored as
//
//	secret         <vault UID>/<name>               the current version, value and all
//	secretversion  <vault UID>/<serial>/<version>   the older versions
//	deletedsecret  <vault UID>/<name>               what was in secret, with the dates
//	secretpurge    <time>/<vault UID>/<name>        when deletedsecret is to go
//
// with names in lower case. So the usual read is one record in memory, and a
// deletion moves one record however many versions there are. The serial is
// random, made when the name is first set: versions left over from a secret
// that is gone can never appear under a new one of its name.

// secret is a live secret: its name, in the case it was first set in, and its
// current version. It is stored by [marshalSecret], which must know every
// member; as JSON within [deletedSecret].
type secret struct {
	Name   string `json:"name"`
	Serial string `json:"serial"`
	version
}

// version is one version of a secret. Times are Unix seconds.
type version struct {
	ID          string            `json:"id"` // 32 lower-case hexadecimal digits
	Value       string            `json:"value"`
	ContentType string            `json:"contentType,omitempty"`
	Disabled    bool              `json:"disabled,omitempty"`
	NotBefore   *int64            `json:"nbf,omitempty"`
	Expires     *int64            `json:"exp,omitempty"`
	Created     int64             `json:"created"`
	Updated     int64             `json:"updated"`
	Tags        map[string]string `json:"tags,omitempty"`
	Previous    string            `json:"previous,omitempty"` // id of the version that this one followed
}

// deletedSecret is a soft-deleted secret.
type deletedSecret struct {
	secret
	DeletedAt int64 `json:"deletedAt"`
	PurgeAt   int64 `json:"purgeAt"`
}

func secretKey(vaultUID, name string) string {
	return vaultUID + "/" + strings.ToLower(name)
}

func versionsPrefix(vaultUID, serial string) string { return store.Key(vaultUID, serial) + "/" }

func versionKey(vaultUID, serial, id string) string { return store.Key(vaultUID, serial, id) }

// randomID is 128 random bits as 32 lower-case hexadecimal digits: a version
// id, or a serial.
func randomID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// validVersion reports whether s, in lower case, can be a version's id.
func validVersion(s string) bool {
	if len(s) != 32 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
