package keyvault

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestStoredSecretComesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64().Draw(t, "n")
		want := secret{
			Name: rapid.String().Draw(t, "name"), Serial: rapid.String().Draw(t, "serial"),
			version: version{
				ID: rapid.String().Draw(t, "id"), Value: rapid.String().Draw(t, "value"), ContentType: rapid.String().Draw(t, "type"),
				Disabled: rapid.Bool().Draw(t, "disabled"), NotBefore: &n, Created: n, Tags: map[string]string{"k": rapid.String().Draw(t, "tag")},
			},
		}
		b, err := marshalSecret(&want)
		if err != nil {
			t.Fatal(err)
		}
		var got secret
		if err := unmarshalSecret(b, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(secret{})); diff != "" {
			t.Fatal(diff)
		}
	})
}

// FuzzStoredSecret: whatever the bytes, an error or a secret, never a panic.
func FuzzStoredSecret(f *testing.F) {
	good, err := marshalSecret(&secret{Name: "n", version: version{Value: "v"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:3])
	f.Add([]byte{})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, '{'})
	f.Fuzz(func(t *testing.T, b []byte) {
		var s secret
		if unmarshalSecret(b, &s) != nil {
			return
		}
		if _, err := marshalSecret(&s); err != nil {
			t.Errorf("read but not written: %v", err)
		}
	})
}
