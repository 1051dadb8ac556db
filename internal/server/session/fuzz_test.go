package session

import "testing"

// A refresh token has one spelling.
func FuzzParseRefresh(f *testing.F) {
	one := family{Key: make([]byte, 32)}
	f.Add(one.token(make([]byte, familyIDLen)))
	f.Add("pkr1_")
	f.Add("pkr1_\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		p, ok := parseRefresh(text)
		if !ok {
			return
		}
		if back := refreshPrefix + b64.EncodeToString(append(p.signed[:signedLen:signedLen], p.mac...)); back != text {
			t.Errorf("%q is read as %q", text, back)
		}
	})
}
