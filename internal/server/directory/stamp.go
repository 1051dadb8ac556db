package directory

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
)

// PasswordStamp names a user's present password without telling anything
// about it: the stamp is another one as soon as a password is set, be it the
// same text. ok is false if the user has none. It lets the token service end
// what was signed in with an older password.
func (d *Directory) PasswordStamp(ctx context.Context, objectID string) (stamp string, ok bool, err error) {
	id, ok := CanonicalID(objectID)
	if !ok {
		return "", false, nil
	}
	h, ok, err := d.hashes.Load(ctx, id+"/"+passwordKey)
	if err != nil || !ok || h.Argon2id == "" {
		return "", false, err
	}
	sum := sha256.Sum256([]byte(h.Argon2id)) // which has a random salt
	return hex.EncodeToString(sum[:]), true, nil
}
