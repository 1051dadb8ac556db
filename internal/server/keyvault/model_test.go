package keyvault_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// model is a vault as simply as it can be said: names with lists of versions,
// live or deleted.
type model struct {
	live, gone map[string][]modelVersion // by lower-case name; the last version is the current one
	purgeAt    map[string]int64
	name       map[string]string // as first set
	backups    []modelBackup
}

type modelVersion struct {
	id, value string
	enabled   bool
	tag       string
}

type modelBackup struct {
	blob, name string
	versions   []modelVersion
}

func newModel() *model {
	return &model{live: map[string][]modelVersion{}, gone: map[string][]modelVersion{}, purgeAt: map[string]int64{}, name: map[string]string{}}
}

// run is one random history on a vault of its own.
type run struct {
	*system
	rt    *rapid.T
	vault string
	m     *model
}

var modelNames = []string{"a", "A", "b", "name-2", "NAME-2"}

func (r *run) draw() (name, key string) {
	name = rapid.SampledFrom(modelNames).Draw(r.rt, "name")
	return name, strings.ToLower(name)
}

// expect sends a request and demands a status.
func (r *run) expect(status int, method, target string, body any) answer {
	a := r.call("officer", method, r.vault, target, body)
	if a.status != status {
		r.rt.Fatalf("%s %s %v: %d %s, want %d", method, target, body, a.status, a.raw, status)
	}
	return a
}

// expire forgets what is past its retention.
func (r *run) expire() {
	for key, at := range r.m.purgeAt {
		if at <= r.clock.Load() {
			delete(r.m.gone, key)
			delete(r.m.purgeAt, key)
			delete(r.m.name, key)
		}
	}
}

func (r *run) actions() map[string]func(*rapid.T) {
	act := func(f func()) func(*rapid.T) {
		return func(rt *rapid.T) {
			r.rt = rt
			r.expire()
			f()
		}
	}
	return map[string]func(*rapid.T){
		"set": act(func() {
			name, key := r.draw()
			value := rapid.String().Draw(r.rt, "value")
			body := map[string]any{"value": strings.ToValidUTF8(value, "?"), "attributes": map[string]any{"enabled": rapid.Bool().Draw(r.rt, "enabled")}}
			if r.m.gone[key] != nil {
				r.expect(409, "PUT", "/secrets/"+name, body)
				return
			}
			a := r.expect(200, "PUT", "/secrets/"+name, body)
			if r.m.live[key] == nil {
				r.m.name[key] = name
			}
			r.m.live[key] = append(r.m.live[key], modelVersion{id: a.version(), value: body["value"].(string), enabled: body["attributes"].(map[string]any)["enabled"].(bool)})
		}),
		"update": act(func() {
			name, key := r.draw()
			tag, enabled := rapid.StringMatching(`[a-z]{1,3}`).Draw(r.rt, "tag"), rapid.Bool().Draw(r.rt, "enabled")
			body := map[string]any{"tags": map[string]string{"t": tag}, "attributes": map[string]any{"enabled": enabled}}
			versions := r.m.live[key]
			if versions == nil {
				r.expect(404, "PATCH", "/secrets/"+name, body)
				return
			}
			i, target := len(versions)-1, "/secrets/"+name
			if rapid.Bool().Draw(r.rt, "by version") {
				i = rapid.IntRange(0, len(versions)-1).Draw(r.rt, "version")
				target += "/" + versions[i].id
			}
			r.expect(200, "PATCH", target, body)
			versions[i].tag, versions[i].enabled = tag, enabled
		}),
		"delete": act(func() {
			name, key := r.draw()
			if r.m.live[key] == nil {
				r.expect(404, "DELETE", "/secrets/"+name, nil)
				return
			}
			a := r.expect(200, "DELETE", "/secrets/"+name, nil)
			r.m.gone[key], r.m.purgeAt[key] = r.m.live[key], int64(a.body["scheduledPurgeDate"].(float64))
			delete(r.m.live, key)
		}),
		"recover": act(func() {
			name, key := r.draw()
			if r.m.gone[key] == nil {
				r.expect(404, "POST", "/deletedsecrets/"+name+"/recover", nil)
				return
			}
			r.expect(200, "POST", "/deletedsecrets/"+name+"/recover", nil)
			r.m.live[key] = r.m.gone[key]
			delete(r.m.gone, key)
			delete(r.m.purgeAt, key)
		}),
		"purge": act(func() {
			name, key := r.draw()
			if r.m.gone[key] == nil {
				r.expect(404, "DELETE", "/deletedsecrets/"+name, nil)
				return
			}
			r.expect(204, "DELETE", "/deletedsecrets/"+name, nil)
			delete(r.m.gone, key)
			delete(r.m.purgeAt, key)
			delete(r.m.name, key)
		}),
		"backup": act(func() {
			name, key := r.draw()
			if r.m.live[key] == nil {
				r.expect(404, "POST", "/secrets/"+name+"/backup", nil)
				return
			}
			a := r.expect(200, "POST", "/secrets/"+name+"/backup", nil)
			r.m.backups = append(r.m.backups, modelBackup{a.str("value"), r.m.name[key], slices.Clone(r.m.live[key])})
		}),
		"restore": act(func() {
			if len(r.m.backups) == 0 {
				return
			}
			b := rapid.SampledFrom(r.m.backups).Draw(r.rt, "backup")
			key := strings.ToLower(b.name)
			body := map[string]any{"value": b.blob}
			if r.m.live[key] != nil || r.m.gone[key] != nil {
				r.expect(409, "POST", "/secrets/restore", body)
				return
			}
			r.expect(200, "POST", "/secrets/restore", body)
			r.m.live[key], r.m.name[key] = slices.Clone(b.versions), b.name
		}),
		"time": act(func() {
			r.pass(time.Duration(rapid.IntRange(1, 5).Draw(r.rt, "days")) * days)
			if rapid.Bool().Draw(r.rt, "purge due") {
				if err := r.vaults.PurgeDue(r.t.Context()); err != nil {
					r.rt.Fatal(err)
				}
			}
		}),
		"": act(r.check),
	}
}

// check compares the listings, and all of one name, with the model.
func (r *run) check() {
	key := rapid.SampledFrom([]string{"a", "b", "name-2"}).Draw(r.rt, "checked")
	versions := r.m.live[key]
	if versions == nil {
		r.expect(404, "GET", "/secrets/"+key, nil)
	}
	for i, v := range versions {
		targets := []string{"/secrets/" + key + "/" + v.id}
		if i == len(versions)-1 {
			targets = append(targets, "/secrets/"+key)
		}
		for _, target := range targets {
			if !v.enabled {
				r.expect(403, "GET", target, nil)
				continue
			}
			a := r.expect(200, "GET", target, nil)
			want := "https://" + r.vault + "." + suffix + "/secrets/" + r.m.name[key] + "/" + v.id
			if a.str("value") != v.value || a.str("id") != want || a.str("tags", "t") != v.tag {
				r.rt.Fatalf("%s: %s, want %+v at %s", target, a.raw, v, want)
			}
		}
	}
	ids, _ := r.pages("officer", r.vault, "/secrets/"+key+"/versions?maxresults=2&"+api)
	if len(ids) != len(versions) {
		r.rt.Fatalf("%s has versions %v, want %+v", key, ids, versions)
	}
	if r.m.gone[key] == nil {
		r.expect(404, "GET", "/deletedsecrets/"+key, nil)
	} else if a := r.expect(200, "GET", "/deletedsecrets/"+key, nil); a.body["scheduledPurgeDate"] != float64(r.m.purgeAt[key]) {
		r.rt.Fatalf("%s, want purge at %d", a.raw, r.m.purgeAt[key])
	}
	for collection, want := range map[string]map[string][]modelVersion{"/secrets": r.m.live, "/deletedsecrets": r.m.gone} {
		ids, _ := r.pages("officer", r.vault, collection+"?maxresults=2&"+api)
		var names []string
		for _, id := range ids {
			names = append(names, strings.ToLower(id[strings.LastIndexByte(id, '/')+1:]))
		}
		if keys := slices.Sorted(maps.Keys(want)); !slices.Equal(names, keys) {
			r.rt.Fatalf("%s lists %v, want %v", collection, names, keys)
		}
	}
}

// Random histories through the handler, with a retention of a week and a
// clock that runs, against the model.
func TestSecretsAgreeWithModel(t *testing.T) {
	s := newSystem(t)
	vaults := 0
	rapid.Check(t, func(rt *rapid.T) {
		vaults++
		r := &run{system: s, rt: rt, vault: fmt.Sprint("model", vaults), m: newModel()}
		spec := newSpec(r.vault)
		spec.Properties.RetentionDays = ptr(7)
		if _, _, err := s.vaults.Put(t.Context(), spec); err != nil {
			rt.Fatal(err)
		}
		rt.Repeat(r.actions())
	})
}
