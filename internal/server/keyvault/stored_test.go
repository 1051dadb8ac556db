package keyvault

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestStoredSecretComesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.String()
		maybe := func(label string) *int64 {
			return rapid.Ptr(rapid.Int64(), true).Draw(t, label)
		}
		want := secret{
			Name: text.Draw(t, "name"), Serial: text.Draw(t, "serial"),
			version: version{
				ID: text.Draw(t, "id"), Value: text.Draw(t, "value"), ContentType: text.Draw(t, "type"), Previous: text.Draw(t, "previous"),
				Disabled: rapid.Bool().Draw(t, "disabled"), NotBefore: maybe("nbf"), Expires: maybe("exp"),
				Created: rapid.Int64().Draw(t, "created"), Updated: rapid.Int64().Draw(t, "updated"),
			},
		}
		if rapid.Bool().Draw(t, "tagged") {
			want.Tags = rapid.MapOf(text, text).Draw(t, "tags")
		}
		b, err := marshalSecret(&want)
		if err != nil {
			t.Fatal(err)
		}
		got := secret{Name: "left over", version: version{Tags: map[string]string{"left": "over"}}}
		if err := unmarshalSecret(b, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(secret{})); diff != "" {
			t.Fatal(diff)
		}
	})
}

// FuzzStoredSecret: whatever the bytes, an error, or a secret whose only
// stored form they are.
func FuzzStoredSecret(f *testing.F) {
	n := int64(-1)
	for _, s := range []secret{
		{},
		{Name: "n", version: version{Value: "v"}},
		{Name: "n", Serial: "s", version: version{ID: "i", Value: "v", Disabled: true, NotBefore: &n, Expires: &n, Tags: map[string]string{"a": "b", "c": ""}}},
		{version: version{Tags: map[string]string{}}},
	} {
		good, err := marshalSecret(&s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(good)
		f.Add(good[:len(good)/2])
	}
	f.Add([]byte{})
	f.Add([]byte{0xff})
	f.Add([]byte{0x10, 0, 0, 0, 0, 0, 0, 0}) // a flag there is not
	f.Add([]byte{0, 1})                      // a text that is not there
	f.Add([]byte{0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Add([]byte{8, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f})
	f.Add([]byte{0, 0x80, 0x00, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var s secret
		if unmarshalSecret(b, &s) != nil {
			return
		}
		again, err := marshalSecret(&s)
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("%x is read, and written as %x (%v)", b, again, err)
		}
	})
}
