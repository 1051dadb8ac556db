package keyvault

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/podkey/podkey/internal/audit"
	"github.com/podkey/podkey/internal/store"
)

// duePurge says that a deleted secret is to be purged at a time. Its key
// begins with that time, so that what is due comes first; the record of the
// deleted secret has the last word.
type duePurge struct {
	VaultUID string `json:"vaultUid"`
	VaultID  string `json:"vaultId"` // for the audit line
	Name     string `json:"name"`    // lower case
}

// dueKey orders by time: seconds as 12 digits.
func dueKey(at int64, uid, name string) string {
	return store.Key(fmt.Sprintf("%012d", at), uid, name)
}

// dueAt is the time in a key of dueKey.
func dueAt(key string) (int64, bool) {
	at, _, _ := strings.Cut(key, "/")
	n, err := strconv.ParseInt(at, 10, 64)
	return n, err == nil
}

// purgeInterval is how often Run looks for what is due.
const purgeInterval = time.Minute

// Run purges deleted vaults and secrets when their retention has passed,
// until ctx ends; then it returns nil. Reads do not wait for it: what is past
// its time is not found.
func (v *Vaults) Run(ctx context.Context) error {
	t := time.NewTicker(purgeInterval)
	defer t.Stop()
	for {
		if err := v.PurgeDue(ctx); err != nil && ctx.Err() == nil {
			v.log.Error("background purge failed, will try again", "error", err)
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// PurgeDue purges what is due now. [Vaults.Run] calls it; a test with a clock
// of its own may too.
func (v *Vaults) PurgeDue(ctx context.Context) error {
	vaults, err := v.deletedVaults.Scan(ctx, "", "", 0)
	if err != nil {
		return err
	}
	for i := range vaults {
		if e := &vaults[i]; e.Err == nil && v.expired(&e.Value) {
			if err := v.purgeExpired(ctx, &e.Value); err != nil {
				return err
			}
		}
	}
	return v.purgeDueSecrets(ctx)
}

func (v *Vaults) purgeDueSecrets(ctx context.Context) error {
	const page = 200
	now := v.now().Unix()
	for after := ""; ; {
		due, err := v.due.Scan(ctx, "", after, page)
		if err != nil {
			return err
		}
		for _, e := range due {
			if at, ok := dueAt(e.Key); ok && at > now {
				return nil
			}
			if e.Err == nil {
				err = v.purgeDueSecret(ctx, e.Key, e.Value)
			}
			if err != nil {
				return err
			}
			after = e.Key
		}
		if len(due) < page {
			return nil
		}
	}
}

// purgeDueSecret purges one secret, if it is still deleted and due: it may
// have been recovered, purged or deleted again, which all leave the entry.
func (v *Vaults) purgeDueSecret(ctx context.Context, key string, d duePurge) error {
	rec, ok, err := v.deleted.Load(ctx, secretKey(d.VaultUID, d.Name))
	if err != nil {
		v.log.Error("deleted secret cannot be purged", "error", err)
		return nil
	}
	if ok && rec.PurgeAt <= v.now().Unix() {
		if err := v.recordPurge(ctx, "SecretPurge", d.VaultID+"/secrets/"+d.Name); err != nil {
			return err
		}
	}
	return v.store.Update(ctx, func(tx *store.Tx) error {
		v.due.Delete(tx, key)
		return v.wipeExpired(tx, d.VaultUID, d.Name)
	})
}

// recordPurge writes the audit line of a purge that nobody asked for.
func (v *Vaults) recordPurge(ctx context.Context, operation, object string) error {
	if v.audit == nil {
		return nil
	}
	err := v.audit.Write(ctx, audit.Record{
		Plane:     "system",
		Operation: operation,
		Object:    strings.ToLower(object),
		Decision:  audit.Allow,
		Reason:    "the retention period has passed",
	})
	if err != nil {
		return fmt.Errorf("write down a purge: %w", err)
	}
	return nil
}
