package keyvault

import (
	"bytes"
	"compress/flate"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/podkey/podkey/internal/fault"
	"github.com/podkey/podkey/internal/store"
	"github.com/podkey/podkey/internal/web"
)

// A backup is, in base64url without padding,
//
//	"PKB1" | nonce, 12 bytes | AES-256-GCM of the compressed JSON of a secretBackup
//
// under a key of the tenant's own, with backupContext and the tenant as
// associated data. So only a vault of the same tenant opens it, nobody can
// make one up, and what it holds is read by nobody on the way.
const (
	backupMagic   = "PKB1"
	backupContext = "podkey/backup/secret/v1/"

	// maxBackupVersions is the greatest number of versions in a backup.
	maxBackupVersions = 500

	// maxBackup bounds a blob, so that the request that restores it fits into
	// the largest body that is read.
	maxBackup = web.MaxBody - 1024

	// maxBackupPlain bounds what a backup holds before it is compressed, so that
	// a small blob cannot cost much memory to restore.
	maxBackupPlain = 16 << 20

	// restoreBatch and restoreBytes are how much one transaction writes: an etcd
	// with default limits takes 128 operations and 1.5 MiB at once.
	restoreBatch = 100
	restoreBytes = 512 << 10
)

// backupKey is what a tenant's backups are sealed under.
type backupKey struct {
	Key []byte `json:"key"` // 256 bits
}

// secretBackup is the content of a backup.
type secretBackup struct {
	Name     string    `json:"name"`
	Versions []version `json:"versions"` // the older ones; the current one is the last
}

// backupSecret seals all versions of a secret.
func (v *Vaults) backupSecret(ctx context.Context, vault *Vault, name string) (string, error) {
	var b secretBackup
	err := v.store.View(ctx, func(tx *store.Tx) error {
		current, ok, err := v.secrets.Get(tx, secretKey(vault.UID, name))
		if err != nil {
			return err
		}
		if !ok {
			return secretNotFound(name, "")
		}
		older, err := v.versions.List(tx, versionsPrefix(vault.UID, current.Serial), "", maxBackupVersions)
		if err != nil {
			return err
		}
		if len(older)+1 > maxBackupVersions {
			return badParameter("The secret has more than %d versions and cannot be backed up.", maxBackupVersions)
		}
		b = secretBackup{Name: current.Name}
		for _, e := range older {
			if e.Err != nil {
				return e.Err // a backup with a hole must not look whole
			}
			b.Versions = append(b.Versions, e.Value)
		}
		b.Versions = append(b.Versions, current.version)
		return nil
	})
	if err != nil {
		return "", err
	}
	aead, err := v.backupAEAD(ctx, vault.TenantID)
	if err != nil {
		return "", err
	}
	plain, err := json.Marshal(b)
	if err != nil {
		return "", fmt.Errorf("encode backup: %w", err)
	}
	if len(plain) > maxBackupPlain {
		return "", badParameter("The secret's versions are too large together to be backed up: %d bytes of at most %d.", len(plain), maxBackupPlain)
	}
	nonce := make([]byte, aead.NonceSize())
	rand.Read(nonce)
	blob := append([]byte(backupMagic), nonce...)
	blob = aead.Seal(blob, nonce, deflate(plain), backupAAD(vault.TenantID))
	if base64.RawURLEncoding.EncodedLen(len(blob)) > maxBackup {
		return "", badParameter("The secret's versions are too large together to be backed up: the backup would exceed %d bytes.", maxBackup)
	}
	return base64.RawURLEncoding.EncodeToString(blob), nil
}

func backupAAD(tenant string) []byte { return []byte(backupContext + strings.ToLower(tenant)) }

// backupAEAD returns the tenant's cipher, making its key on first use.
func (v *Vaults) backupAEAD(ctx context.Context, tenant string) (cipher.AEAD, error) {
	id := strings.ToLower(tenant)
	k, ok, err := v.backupKeys.Load(ctx, id)
	if err != nil {
		return nil, err
	}
	if !ok {
		err = v.store.Update(ctx, func(tx *store.Tx) error {
			if k, ok, err = v.backupKeys.Get(tx, id); err != nil || ok {
				return err
			}
			k.Key = make([]byte, 32)
			rand.Read(k.Key)
			return v.backupKeys.Put(tx, id, k)
		})
		if err != nil {
			return nil, err
		}
	}
	block, err := aes.NewCipher(k.Key)
	if err != nil {
		return nil, fmt.Errorf("backup key: %w", err)
	}
	return cipher.NewGCM(block)
}

// openBackup opens a blob that was made in the tenant. Every way in which it
// can be wrong has the same answer.
func (v *Vaults) openBackup(ctx context.Context, tenant, blob string) (b secretBackup, err error) {
	refused := badParameter("The backup is not valid, or was not made in this tenant.")
	raw, err := base64.RawURLEncoding.Strict().DecodeString(strings.TrimRight(blob, "="))
	if err != nil {
		return b, refused
	}
	aead, err := v.backupAEAD(ctx, tenant)
	if err != nil {
		return b, err
	}
	sealed, ok := bytes.CutPrefix(raw, []byte(backupMagic))
	if !ok || len(sealed) < aead.NonceSize() {
		return b, refused
	}
	packed, err := aead.Open(nil, sealed[:aead.NonceSize()], sealed[aead.NonceSize():], backupAAD(tenant))
	if err != nil {
		return b, refused
	}
	plain, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(packed)), maxBackupPlain+1))
	if err != nil {
		return b, fmt.Errorf("unpack backup: %w", err)
	}
	if len(plain) > maxBackupPlain {
		return b, refused
	}
	if err := json.Unmarshal(plain, &b); err != nil {
		return b, fmt.Errorf("decode backup: %w", err)
	}
	if n := len(b.Versions); !validName(b.Name) || n == 0 || n > maxBackupVersions {
		return b, refused
	}
	return b, nil
}

// restoreSecret brings a backup back under its name, which must be free, with
// its version ids. The older versions are written first, under a new serial
// that nothing refers to yet: if the process dies before the last
// transaction, which makes the secret, there is no half-restored one.
func (v *Vaults) restoreSecret(ctx context.Context, vault *Vault, blob string) (put secret, err error) {
	b, err := v.openBackup(ctx, vault.TenantID, blob)
	if err != nil {
		return secret{}, err
	}
	last := len(b.Versions) - 1
	put = secret{Name: b.Name, Serial: randomID(), version: b.Versions[last]}
	free := func(tx *store.Tx) error {
		if err := v.stillThere(tx, vault); err != nil {
			return err
		}
		if _, taken, err := v.secrets.Get(tx, secretKey(vault.UID, b.Name)); err != nil || taken {
			return orErr(err, restoreConflict(b.Name))
		}
		return v.nameFree(tx, vault, b.Name)
	}
	if err := v.store.Update(ctx, free); err != nil {
		return secret{}, err
	}
	if err := v.restoreOlder(ctx, vault, put.Serial, b.Versions[:last]); err != nil {
		return secret{}, err
	}
	err = v.store.Update(ctx, func(tx *store.Tx) error {
		if err := free(tx); err != nil {
			return err
		}
		return v.secrets.Put(tx, secretKey(vault.UID, b.Name), put)
	})
	// If it is unknown whether the commit happened, the versions must stay.
	if err != nil && last > 0 && !fault.Is(err, fault.Unavailable) {
		v.dropVersions(ctx, vault, put.Serial)
	}
	return put, err
}

// restoreOlder writes versions under a serial that nothing refers to yet, in
// batches; it leaves nothing behind if it fails.
func (v *Vaults) restoreOlder(ctx context.Context, vault *Vault, serial string, versions []version) error {
	for len(versions) > 0 {
		n, size := 0, 0
		for n < len(versions) && n < restoreBatch && (n == 0 || size+versions[n].size() <= restoreBytes) {
			size += versions[n].size()
			n++
		}
		err := v.store.Update(ctx, func(tx *store.Tx) error {
			for _, ver := range versions[:n] {
				if err := v.versions.Put(tx, versionKey(vault.UID, serial, ver.ID), ver); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			v.dropVersions(ctx, vault, serial)
			return err
		}
		versions = versions[n:]
	}
	return nil
}

// size is about how many bytes a version takes when it is stored.
func (ver *version) size() int {
	n := 512 + len(ver.Value) + len(ver.ContentType)
	for k, val := range ver.Tags {
		n += len(k) + len(val) + 8
	}
	return n
}

// dropVersions removes what a failed restoration has written, also if the
// client has gone. What it cannot remove goes with the vault.
func (v *Vaults) dropVersions(ctx context.Context, vault *Vault, serial string) {
	err := v.store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error {
		v.versions.DeletePrefix(tx, versionsPrefix(vault.UID, serial))
		return nil
	})
	if err != nil {
		v.log.Warn("versions of a restoration that failed could not be removed", "vault", vault.ID, "error", err)
	}
}

func deflate(plain []byte) []byte {
	var buf bytes.Buffer
	w, err := flate.NewWriter(&buf, flate.DefaultCompression)
	if err != nil {
		panic("keyvault: " + err.Error()) // the level is a constant
	}
	_, _ = w.Write(plain) // a bytes.Buffer takes everything
	_ = w.Close()
	return buf.Bytes()
}
