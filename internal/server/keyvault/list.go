package keyvault

import (
	"context"
	"strings"
)

// page is a part of a listing: items after a place, in order, and whether
// there are more. last is the place of the last item.
type page[T any] struct {
	items []T
	last  string
	more  bool
}

// listSecrets lists secrets by name; after is the lower-case name of the last
// one of the page before. Damaged records are named in the log and left out.
func (v *Vaults) listSecrets(ctx context.Context, vault *Vault, after string, limit int) (page[secret], error) {
	prefix := vault.UID + "/"
	es, err := v.secrets.Scan(ctx, prefix, prefix+after, limit+1)
	if err != nil {
		return page[secret]{}, err
	}
	var p page[secret]
	for i := range es {
		if i == limit {
			p.more = true
			break
		}
		p.last = strings.TrimPrefix(es[i].Key, prefix)
		if es[i].Err != nil {
			v.log.Error("damaged record left out of a listing", "error", es[i].Err)
			continue
		}
		p.items = append(p.items, es[i].Value)
	}
	return p, nil
}

// listDeleted lists deleted secrets as [Vaults.listSecrets] does live ones.
// Those past their retention are left out, so that a page can be short.
func (v *Vaults) listDeleted(ctx context.Context, vault *Vault, after string, limit int) (page[deletedSecret], error) {
	prefix := vault.UID + "/"
	es, err := v.deleted.Scan(ctx, prefix, prefix+after, limit+1)
	if err != nil {
		return page[deletedSecret]{}, err
	}
	var p page[deletedSecret]
	now := v.now().Unix()
	for i := range es {
		if i == limit {
			p.more = true
			break
		}
		p.last = strings.TrimPrefix(es[i].Key, prefix)
		switch {
		case es[i].Err != nil:
			v.log.Error("damaged record left out of a listing", "error", es[i].Err)
		case es[i].Value.PurgeAt > now:
			p.items = append(p.items, es[i].Value)
		}
	}
	return p, nil
}

// listVersions lists the versions of a secret in order of their ids; after is
// the id of the last one of the page before. A secret that does not exist has
// no versions: the service answers an empty list.
func (v *Vaults) listVersions(ctx context.Context, vault *Vault, name, after string, limit int) (page[secret], error) {
	current, ok, err := v.secrets.Load(ctx, secretKey(vault.UID, name))
	if err != nil || !ok {
		return page[secret]{}, err
	}
	prefix := versionsPrefix(vault.UID, current.Serial)
	es, err := v.versions.Scan(ctx, prefix, prefix+after, limit+1)
	if err != nil {
		return page[secret]{}, err
	}
	var p page[secret]
	add := func(ver version) {
		s := current
		s.version = ver
		p.items = append(p.items, s)
		p.last = ver.ID
	}
	pending := current.ID > after // the current version takes its place among the others
	for i := range es {
		id := strings.TrimPrefix(es[i].Key, prefix)
		if id == current.ID {
			continue // became an older one between the two reads
		}
		if pending && current.ID < id {
			if p.more = len(p.items) == limit; p.more {
				return p, nil
			}
			add(current.version)
			pending = false
		}
		if p.more = len(p.items) == limit || i == limit; p.more {
			return p, nil
		}
		if es[i].Err != nil {
			v.log.Error("damaged record left out of a listing", "error", es[i].Err)
			p.last = id
			continue
		}
		add(es[i].Value)
	}
	if pending {
		if p.more = len(p.items) == limit; !p.more {
			add(current.version)
		}
	}
	return p, nil
}
