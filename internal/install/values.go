package install

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

// Authority is the token service that the pods of a cluster use.
type Authority struct {
	TenantID string
	Login    string // origin of the token service; empty if pods use Azure's name
	CA       []byte // PEM of who signed its certificate and the vaults'; empty if public authorities did
}

// Values are the chart's values for an authority.
func (a Authority) Values() map[string]any {
	v := map[string]any{"tenantID": a.TenantID}
	if a.Login != "" {
		v["authorityHost"] = strings.TrimSuffix(a.Login, "/") + "/"
		v["ownNames"] = true
	}
	if len(a.CA) > 0 {
		v["trust"] = map[string]any{"ca": string(a.CA)}
	}
	return v
}

// Set reads a.b.c=value into values. A dot of a name is written \. . As with
// Helm, whole numbers, true, false and null are what they look like and all
// else is text, so that a version stays one; lists and maps are written in
// brackets, as in YAML.
func Set(values map[string]any, assignment string) error {
	path, text, ok := strings.Cut(assignment, "=")
	if !ok || path == "" {
		return errors.New("must be NAME=VALUE")
	}
	v, err := scalar(text)
	if err != nil {
		return err
	}
	names := splitPath(path)
	for _, n := range names {
		if n == "" {
			return errors.New("has an empty name")
		}
	}
	last := len(names) - 1
	for _, n := range names[:last] {
		below, ok := values[n].(map[string]any)
		if !ok {
			below = map[string]any{}
			values[n] = below
		}
		values = below
	}
	values[names[last]] = v
	return nil
}

func splitPath(path string) []string {
	const escaped = "\x00"
	names := strings.Split(strings.ReplaceAll(path, `\.`, escaped), ".")
	for i := range names {
		names[i] = strings.ReplaceAll(names[i], escaped, ".")
	}
	return names
}

func scalar(text string) (any, error) {
	switch text {
	case "true":
		return true, nil
	case "false":
		return false, nil
	case "null":
		return nil, nil
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && strconv.FormatInt(n, 10) == text {
		return n, nil
	}
	if strings.HasPrefix(text, "[") || strings.HasPrefix(text, "{") {
		var v any
		if err := yaml.UnmarshalStrict([]byte(text), &v); err != nil {
			return nil, errors.New("is not a list or map in brackets")
		}
		return v, nil
	}
	return text, nil
}

// Image is the part of the values that names Podkey's image, from a reference:
// REPOSITORY, REPOSITORY:TAG or REPOSITORY@sha256:DIGEST.
func Image(reference string) (map[string]any, error) {
	bad := fmt.Errorf("%q is not REPOSITORY, REPOSITORY:TAG or REPOSITORY@sha256:DIGEST", reference)
	if strings.ContainsFunc(reference, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return nil, bad
	}
	repository, digest, pinned := strings.Cut(reference, "@")
	image := map[string]any{"repository": repository, "digest": digest, "tag": ""}
	// A colon before the last slash is a registry's port.
	if i := strings.LastIndexByte(repository, ':'); !pinned && i > strings.LastIndexByte(repository, '/') {
		image["repository"], image["tag"] = repository[:i], repository[i+1:]
		if repository[i+1:] == "" {
			return nil, bad
		}
	}
	if image["repository"] == "" || pinned && !strings.HasPrefix(digest, "sha256:") {
		return nil, bad
	}
	return map[string]any{"image": image}, nil
}
