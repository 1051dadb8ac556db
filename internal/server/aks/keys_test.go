package aks

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"math/big"
	"strings"
	"testing"
)

// What a set is refused for is said, and a set that two readers could take for
// different ones is refused at all.
func TestWhyAKeySetIsRefused(t *testing.T) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	text := func(n *big.Int) string { return base64.RawURLEncoding.EncodeToString(n.Bytes()) }
	n, e := text(private.N), text(big.NewInt(int64(private.E)))
	one := fmt.Sprintf(`{"kty":"RSA","kid":"a","n":%q,"e":%q}`, n, e)
	if keys, err := parseKeySet([]byte(`{"keys":[` + one + `]}`)); err != nil || len(keys) != 1 || keys[0] != (key{"a", n, e}) {
		t.Fatalf("%v, %v", keys, err)
	}
	for name, tc := range map[string]struct{ set, want string }{
		"too long":        {`{"keys":[` + one + strings.Repeat(" ", maxKeySet) + `]}`, "longer than"},
		"another member":  {`{"keys":[` + one + `],"issuer":"x"}`, `a member "issuer", which is not known`},
		"keys twice":      {`{"keys":[` + one + `],"keys":[` + one + `]}`, "a member is repeated"},
		"in a key, twice": {`{"keys":[` + strings.Replace(one, `"e"`, `"n":"AQAB","e"`, 1) + `]}`, "key 1 of the set: a member is repeated"},
		"text behind":     {`{"keys":[` + one + `]}{}`, "there is text after it"},
		"a list":          {`[` + one + `]`, "not a JSON object"},
		"cut off":         {`{"keys":[` + one, "not valid JSON"},
		"nothing":         {``, "not a JSON object"},
		"no exponent":     {`{"keys":[` + strings.Replace(one, `"e":"`+e+`"`, `"e":""`, 1) + `]}`, "its e is not base64url"},
		"a number":        {`{"keys":[` + strings.Replace(one, `"a"`, `1`, 1) + `]}`, "its kid is not a string"},
	} {
		keys, err := parseKeySet([]byte(tc.set))
		if err == nil || !strings.Contains(err.Error(), tc.want) || keys != nil {
			t.Errorf("%s: %v, %v", name, keys, err)
		}
	}
}
