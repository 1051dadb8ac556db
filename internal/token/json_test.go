package token

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMembersReadsOnlyStrictJSON(t *testing.T) {
	deep := func(n int) string { return `{"a":` + strings.Repeat("[", n) + strings.Repeat("]", n) + "}" }
	many := func(n int) string {
		var b strings.Builder
		b.WriteString("{")
		for i := range n {
			if i > 0 {
				b.WriteString(",")
			}
			b.WriteString(`"m` + string(rune('A'+i/100)) + string(rune('0'+i/10%10)) + string(rune('0'+i%10)) + `":1`)
		}
		return b.String() + "}"
	}
	for _, c := range []struct {
		in  string
		err error
	}{
		{`{}`, nil},
		{" \t\r\n{ \"a\" : [ 1 , -0.5e+10 , true , false , null , \"\\u00e9\\ud83d\\ude00\" , { } ] } ", nil},
		{deep(31), nil},
		{deep(32), errDeep},
		{many(256), nil},
		{many(257), errMany},
		{`{"a":1,"a":2}`, errRepeated},
		{`{"a":1,"\u0061":2}`, errRepeated},
		{`{"x":{"a":1,"a":2}}`, errRepeated},
		{`{"x":[[{"a":1,"a":1}]]}`, errRepeated},
		{`{"a":1,"A":2}`, nil},
		{`{"a":1}{"a":1}`, errTrailing},
		{`{"a":1} x`, errTrailing},
		{"{\"a\":\"\xff\"}", errText},
		{"{\"\xff\":1}", errText},
		{`{"a":"\ud800"}`, errText},
		{`{"a":"\ud800\u0041"}`, errText},
		{`{"a":"\ud800\n"}`, errText},
		{`{"a":"\udc00\ud800"}`, errText},
		{``, errJSON}, {`[]`, errJSON}, {`"a"`, errJSON}, {`null`, errJSON}, {`{`, errJSON},
		{`{"a"}`, errJSON}, {`{"a":}`, errJSON}, {`{"a":1,}`, errJSON}, {`{,}`, errJSON}, {`{a:1}`, errJSON}, {`{'a':1}`, errJSON},
		{`{"a":01}`, errJSON}, {`{"a":+1}`, errJSON}, {`{"a":1.}`, errJSON}, {`{"a":.5}`, errJSON}, {`{"a":1e}`, errJSON}, {`{"a":-}`, errJSON},
		{`{"a":NaN}`, errJSON}, {`{"a":tru}`, errJSON}, {`{"a":nullx}`, errJSON}, {`{"a":[1,]}`, errJSON}, {`{"a":[1 2]}`, errJSON},
		{"{\"a\":\"\n\"}", errJSON}, {`{"a":"\x"}`, errJSON}, {`{"a":"\u00g0"}`, errJSON}, {`{"a":"\u00"}`, errJSON}, {`{"a":"\"}`, errJSON}, {`{"a":"`, errJSON},
		{"\ufeff{}", errJSON},
	} {
		err := members([]byte(c.in), func(_, _ []byte) error { return nil })
		if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
			t.Errorf("%.60q: %v, want %v", c.in, err, c.err)
		}
	}
}

func TestMembersDecodesNamesAndStrings(t *testing.T) {
	got := map[string]string{}
	err := members([]byte(`{"\u0061\n\"\\\/\b\f\r\t":"x","é":"\ud83d\ude00 \u00E9","n":1.5}`), func(name, value []byte) error {
		if value[0] != '"' {
			got[string(name)] = string(value)
			return nil
		}
		s, err := stringValue(value)
		got[string(name)] = s
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"a\n\"\\/\b\f\r\t": "x", "é": "😀 é", "n": "1.5"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestClaimTypesAreNotConverted(t *testing.T) {
	for in, want := range map[string]int64{"0": 0, "1700000000": 1700000000, "1700000000.9": 1700000000, "1.7e9": 1700000000, "253402300799": 253402300799} {
		if got, err := seconds([]byte(in)); got != want || err != nil {
			t.Errorf("seconds(%s) = %d, %v", in, got, err)
		}
	}
	for _, in := range []string{`"1700000000"`, "-1", "-0.5", "253402300800", "1e300", "99999999999999999999", "true", "null", "[1]", "{}"} {
		if got, err := seconds([]byte(in)); err == nil {
			t.Errorf("seconds(%s) = %d", in, got)
		}
	}
	for _, in := range []string{`1`, `null`, `["a"]`, `{}`, `true`} {
		if got, err := stringValue([]byte(in)); err == nil {
			t.Errorf("stringValue(%s) = %q", in, got)
		}
	}
	for _, in := range []string{`"a"`, `null`, `["a",1]`, `[null]`, `[["a"]]`, `{}`} {
		if got, err := stringList([]byte(in)); err == nil {
			t.Errorf("stringList(%s) = %q", in, got)
		}
	}
}

// FuzzMembers holds our reader against the standard library's: what we accept
// it accepts too and reads the same; what it accepts and we do not has a
// reason of ours.
func FuzzMembers(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"a":1}`, `{"a":"\u00e9\ud83d\ude00","b":[1,-2.5e-3,{"c":null}]}`, `{"a":1,"\u0061":2}`,
		`{"a":"\ud800"}`, "{\"a\":\"\xff\"}", `{"a":01}`, `{"a":[[[[]]]]}`, `{"":""}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		got := map[string]string{}
		err := members(in, func(name, value []byte) error {
			if !json.Valid(value) {
				t.Errorf("value %q is not JSON", value)
			}
			if value[0] == '"' {
				s, err := stringValue(value)
				if err != nil {
					return err
				}
				got[string(name)] = s
			}
			return nil
		})
		var want map[string]any
		std := json.Unmarshal(in, &want)
		if err != nil {
			if std == nil && want != nil && (errors.Is(err, errJSON) || errors.Is(err, errTrailing)) {
				t.Errorf("valid JSON is refused as invalid: %v", err)
			}
			return
		}
		if std != nil {
			t.Fatalf("accepted, but not JSON: %v", std)
		}
		for name, v := range want {
			if s, ok := v.(string); ok && got[name] != s {
				t.Errorf("member %q is %q, want %q", name, got[name], s)
			}
		}
	})
}
