package directory

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/store"
)

// User is a person. The password's hash is kept apart from it.
type User struct {
	ObjectID          string    `json:"objectId"` // GUID
	TenantID          string    `json:"tenantId"`
	UserPrincipalName string    `json:"userPrincipalName"` // name@domain of the tenant, unique in any case
	DisplayName       string    `json:"displayName"`
	MailNickname      string    `json:"mailNickname,omitempty"`
	Enabled           bool      `json:"enabled"` // a new user is always enabled
	Created           time.Time `json:"created"`
	PasswordChanged   time.Time `json:"passwordChanged"` // when the password was set last
}

func foldName(upn string) string { return strings.ToLower(upn) }

// CreateUser adds a person to a tenant. An empty object id is chosen. The
// password has 8 to 256 bytes; it is kept as an Argon2id hash. A taken name
// or id is a fault of kind Clash.
func (d *Directory) CreateUser(ctx context.Context, u User, password string) (User, error) {
	chosen := u.ObjectID != ""
	id, err := d.giveID("object id", u.ObjectID)
	if err != nil {
		return User{}, err
	}
	local, domain, _ := strings.Cut(u.UserPrincipalName, "@")
	if local == "" || len(u.UserPrincipalName) > 320 || !ValidDomain(domain) || !printableASCII(local) {
		return User{}, fault.BadRequest("BadRequest", "The user name '%s' must have the form name@domain.", clip(u.UserPrincipalName))
	}
	hash, err := d.hashPassword(ctx, password)
	if err != nil {
		return User{}, err
	}
	u.ObjectID, u.Enabled, u.Created = id, true, d.now().UTC()
	u.PasswordChanged = u.Created
	if err := u.check(); err != nil {
		return User{}, err
	}
	err = d.s.Update(ctx, func(tx *store.Tx) error {
		if err := d.mustHaveTenant(tx, &u.TenantID); err != nil {
			return err
		}
		t, _, err := d.tenants.Get(tx, u.TenantID)
		if err != nil {
			return err
		}
		if !slices.Contains(t.Domains, strings.ToLower(domain)) {
			return fault.BadRequest("BadRequest", "The domain of the user name '%s' is not one of the tenant's.", clip(u.UserPrincipalName))
		}
		if chosen {
			if err := d.mustBeFree(tx, id); err != nil {
				return err
			}
		}
		same, err := d.users.By(tx, "name", u.TenantID+"/"+foldName(u.UserPrincipalName))
		if err != nil {
			return err
		}
		if len(same) > 0 {
			return fault.Conflict("Request_MultipleObjectsWithSameKeyValue", "A user with the name '%s' exists already.", clip(u.UserPrincipalName))
		}
		if err := d.users.Put(tx, id, u); err != nil {
			return err
		}
		return d.hashes.Put(tx, id+"/"+passwordKey, hash)
	})
	if err != nil {
		return User{}, err
	}
	return u, nil
}

func (u *User) check() error {
	return errors.Join(checkText("name", u.DisplayName, maxName), checkText("mail nickname", u.MailNickname, 64))
}

// SetPassword replaces a user's password.
func (d *Directory) SetPassword(ctx context.Context, objectID, password string) error {
	_, err := d.UpdateUser(ctx, objectID, password, func(*User) error { return nil })
	return err
}

// UpdateUser lets change edit a user: display name, mail nickname and whether
// it is enabled; all else stays what it is. It replaces the password too
// unless that is empty, in the same step. change may run several times.
func (d *Directory) UpdateUser(ctx context.Context, objectID, password string, change func(*User) error) (User, error) {
	id, _ := CanonicalID(objectID)
	var hash secretHash
	var err error
	if password != "" {
		if hash, err = d.hashPassword(ctx, password); err != nil {
			return User{}, err
		}
	}
	var out User
	err = d.s.Update(ctx, func(tx *store.Tx) error {
		u, ok, err := d.users.Get(tx, id)
		if err != nil {
			return err
		}
		if !ok {
			return fault.NotFound("Request_ResourceNotFound", "The user '%s' does not exist.", clip(objectID))
		}
		edited := u
		if err := change(&edited); err != nil {
			return err
		}
		u.DisplayName, u.MailNickname, u.Enabled = edited.DisplayName, edited.MailNickname, edited.Enabled
		if err := u.check(); err != nil {
			return err
		}
		if password != "" {
			u.PasswordChanged = d.now().UTC()
			if err := d.hashes.Put(tx, id+"/"+passwordKey, hash); err != nil {
				return err
			}
		}
		out = u
		return d.users.Put(tx, id, u)
	})
	if err != nil {
		return User{}, err
	}
	return out, nil
}

func (d *Directory) hashPassword(ctx context.Context, password string) (secretHash, error) {
	if len(password) < 8 || len(password) > maxSecret || !utf8.ValidString(password) || strings.ContainsFunc(password, unicode.IsControl) {
		return secretHash{}, fault.BadRequest("BadRequest", "A password must have between 8 and %d bytes of UTF-8.", maxSecret)
	}
	encoded, err := d.slowHash(ctx, password)
	return secretHash{Argon2id: encoded}, err
}

// User finds a user by object id or, in the tenant, by name.
func (d *Directory) User(ctx context.Context, tenantID, idOrName string) (User, bool, error) {
	if id, ok := CanonicalID(idOrName); ok {
		u, ok, err := d.users.Load(ctx, id)
		if !ok || u.TenantID != strings.ToLower(tenantID) {
			return User{}, false, err
		}
		return u, true, nil
	}
	us, err := d.users.Find(ctx, "name", strings.ToLower(tenantID)+"/"+foldName(idOrName))
	if err != nil || len(us) == 0 {
		return User{}, false, err
	}
	return us[0], true, nil
}

// EnableUser switches a user on or off; the password of one that is off is
// refused.
func (d *Directory) EnableUser(ctx context.Context, objectID string, on bool) error {
	_, err := d.UpdateUser(ctx, objectID, "", func(u *User) error { u.Enabled = on; return nil })
	return err
}

// DeleteUser removes a user and the password.
func (d *Directory) DeleteUser(ctx context.Context, objectID string) (existed bool, err error) {
	id, _ := CanonicalID(objectID)
	err = d.s.Update(ctx, func(tx *store.Tx) error {
		if _, existed, err = d.users.Get(tx, id); err != nil || !existed {
			return err
		}
		d.users.Delete(tx, id)
		d.hashes.Delete(tx, id+"/"+passwordKey)
		return nil
	})
	return existed, err
}

// nobody is a hash that no known password has: for names that do not exist it
// is computed with, so that they take as long as others.
const nobody = "$argon2id$v=19$m=19456,t=2,p=1$c29tZSBzYWx0IHZhbHVlIQ$AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"

// VerifyPassword returns the enabled user of a tenant whose name and password
// these are. An unknown name takes as long as a wrong password, and waits for
// its turn, or is turned away, as a known one would.
func (d *Directory) VerifyPassword(ctx context.Context, tenantID, name, password string) (User, bool, error) {
	if password == "" || len(password) > maxSecret {
		return User{}, false, nil
	}
	u, found, err := d.User(ctx, tenantID, name)
	if err != nil {
		return User{}, false, err
	}
	encoded := nobody
	if found {
		h, ok, err := d.hashes.Load(ctx, u.ObjectID+"/"+passwordKey)
		if err != nil {
			return User{}, false, err
		}
		if found = ok && h.Argon2id != ""; found {
			encoded = h.Argon2id
		}
	}
	ok, err := d.slowVerify(ctx, "user/"+strings.ToLower(tenantID)+"/"+foldName(name), encoded, password)
	if err != nil || !ok || !found || !u.Enabled {
		return User{}, false, err
	}
	return u, true, nil
}
