package text

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestClip(t *testing.T) {
	for _, c := range []struct {
		in   string
		most int
		want string
	}{
		{"", 5, ""},
		{"plain text", 10, "plain text"},
		{"plain text", 5, "plain..."},
		{"O'Neil <b> ü 漢", 99, "O'Neil <b> ü 漢"},
		{"a\nb\r\tc\x00\x7f\u0085\u2028\u202e\ufeff", 99, "a?b??c??????"},
		{"a\xffb\xc3", 99, "a?b?"},
		{"ü", 1, "?..."},
		{"\x1b[31mred", 99, "?[31mred"},
		{"x", 0, "..."},
	} {
		if got := Clip(c.in, c.most); got != c.want {
			t.Errorf("Clip(%q, %d) = %q, want %q", c.in, c.most, got, c.want)
		}
	}
	if got := Printable(strings.Repeat("x", 10_000) + "\n"); got != strings.Repeat("x", 10_000)+"?" {
		t.Error("cut, or not printable")
	}
}

func FuzzClip(f *testing.F) {
	f.Add("a\nb", 2)
	f.Fuzz(func(t *testing.T, s string, most int) {
		most = max(most, 0)
		got := Clip(s, most)
		if !utf8.ValidString(got) || len(got) > max(len(s), most)+3 || strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q", got)
		}
	})
}

// roundTrip demands that a quoted text decodes to what it was, but for what
// is not UTF-8.
func roundTrip(t *testing.T, b []byte, s string) {
	t.Helper()
	var got string
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatalf("%q: %v", b, err)
	}
	if want := strings.ToValidUTF8(s, "\ufffd"); utf8.ValidString(s) && got != s || !utf8.ValidString(s) && strings.ReplaceAll(got, "\ufffd", "") != strings.ReplaceAll(want, "\ufffd", "") {
		t.Errorf("%q comes back as %q", s, got)
	}
}

func seeds(f *testing.F) {
	for _, s := range []string{"", "a\"b\\c", "\x00\x1f\x7f", "\u2028<>&", "é\U0001F511", "a\xffb", "\xed\xa0\x80", "\ufffd"} {
		f.Add(s)
	}
}

func FuzzAppendJSON(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, s string) { roundTrip(t, AppendJSON([]byte("x"), s)[1:], s) })
}

func FuzzAppendJSONLine(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, s string) {
		b := AppendJSONLine([]byte("x"), s)[1:]
		if strings.ContainsFunc(string(b), func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q is not printable", b)
		}
		for _, r := range s { // what is beyond the first plane and not printable is not kept
			if r > 0xffff && !unicode.IsPrint(r) {
				return
			}
		}
		roundTrip(t, b, s)
	})
}

func TestPlain8(t *testing.T) {
	for _, around := range []byte{' ', 'a', '~', '!', '#', '[', ']', 0x7f} {
		for at := range 8 {
			for c := range 256 {
				text := bytes.Repeat([]byte{around}, 8)
				text[at] = byte(c)
				if got := plain8(string(text)); got != plain(byte(c)) {
					t.Fatalf("plain8(%q) = %v", text, got)
				}
			}
		}
	}
}
