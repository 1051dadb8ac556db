package admission

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"testing"
)

// oneSkipped wraps a text in an object, where it is passed over.
func oneSkipped(s string) error {
	r := &reader{s: []byte(`{"x":` + s + `}`)}
	for range r.members {
	}
	r.end()
	return r.err
}

// The reader accepts what encoding/json accepts, down to the depth that it
// goes to.
func TestReaderIsStrict(t *testing.T) {
	for _, s := range []string{
		`0`, `-0`, `01`, `1.`, `.5`, `1.5`, `1e5`, `1E+5`, `1e`, `1e+`, `-`, `+1`, `--1`, `0x1`, `1_000`, `NaN`,
		`true`, `tru`, `truee`, `false`, `null`, `nul`, `True`,
		`""`, `"`, `"a`, `"\n"`, `"\x"`, `"\u12"`, `"\u123g"`, `"\u+123"`, `"\u0041"`, "\"\t\"", "\"\x7f\"", `"\`, "\"\xff\"",
		`[]`, `[`, `[1]`, `[1,]`, `[,1]`, `[1 2]`, `[1}`, `[]]`, ` [ 1 , 2 ] `,
		`{}`, `{`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{a:1}`, `{"a" 1}`, `{"a":1]`, `{"a":1}}`, "{ \"a\" :\r\n\t1 }", `{"a":1,"a":2}`, `[{},"a":1}`, `[{},"a":1]`, `{"a":[],1]`, `{"a":[],1}`, `{"a":{"b":[{"c":[]}],"d":[[{}]]}}`, `[[1,2],{"a":1}`, `[1]]`,
		``, ` `, `,`, `:`, "\x00", "\u00a01", `/**/1`, `'a'`,
	} {
		if got, want := oneSkipped(s) == nil, json.Valid([]byte(`{"x":`+s+`}`)); got != want {
			t.Errorf("%q: accepted %t, encoding/json %t", s, got, want)
		}
	}
	nest := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	if oneSkipped(nest(maxDepth-1)) != nil || oneSkipped(nest(maxDepth)) == nil {
		t.Error("the depth is not as said")
	}
	// Of it, 200 levels are read.
	var read func(r *reader, n int)
	read = func(r *reader, n int) {
		for range r.members {
			if n > 1 {
				read(r, n-1)
			}
		}
	}
	for n, good := range map[int]bool{maxDepth - 200: true, maxDepth - 199: false} {
		r := &reader{s: []byte(strings.Repeat(`{"x":`, 200) + nest(n) + strings.Repeat("}", 200))}
		read(r, 200)
		if r.end(); (r.err == nil) != good {
			t.Errorf("%d levels below 200: %v", n, r.err)
		}
	}
}

// Values as API servers write them go the quick way, whole, and no others do.
func TestQuickWay(t *testing.T) {
	quick := []string{
		`"a"`, `""`, `10`, `true`, `false`, `null`, `[]`, `{}`, `[1,"a",[],{}]`, `{"a":{"b":[{"c":[]}],"d":[[{}]]},"e":2}`,
		strings.Repeat(`[{"a":`, 32) + `1` + strings.Repeat(`}]`, 32),
	}
	for _, s := range quick {
		if end := quickly([]byte(s+`,"what is behind"`), 0); end != len(s) {
			t.Errorf("%s: %d, not %d", s, end, len(s))
		}
	}
	for _, s := range []string{``, ` 1`, `1.5`, `-1`, `"\n"`, `[1 ]`, `{"a" :1}`, `{"a": 1}`, `{"a":1`, `[`, `{`, `{"`, `"a`, `nul`, strings.Repeat("[", 65) + strings.Repeat("]", 65)} {
		if end := quickly([]byte(s), 0); end >= 0 {
			t.Errorf("%s: %d", s, end)
		}
	}
}

func TestReaderReadsStrings(t *testing.T) {
	for _, s := range []string{
		``, `plain`, `é`, `\"\\\/\b\f\n\r\t`, `\u0041\u00e9\u20ac`, `\ud83d\ude00`, `\ud83d`, `\ud83dx`, `\ude00\ud83d`, `\ud83d\u0041`, `\ud83d\ud83d\ude00`, `a\u0000b`,
	} {
		var want string
		if err := json.Unmarshal([]byte(`"`+s+`"`), &want); err != nil {
			t.Fatal(err)
		}
		r := &reader{s: []byte(`"` + s + `"`)}
		if got := r.text(); got != want || r.err != nil || r.i != len(r.s) {
			t.Errorf("%s: %q, %v, not %q", s, got, r.err, want)
		}
	}
}

func TestReaderFindsNamesGivenTwice(t *testing.T) {
	for _, n := range []int{1, 31, 32, 33, 100} {
		var b strings.Builder
		for i := range n {
			b.WriteString(`"` + strings.Repeat("k", i+1) + `":{"a":1,"b":2},`)
		}
		read := func(s string) error {
			r := &reader{s: []byte(s)}
			for range r.members {
				for range r.members {
				}
			}
			r.end()
			return r.err
		}
		if err := read("{" + b.String() + `"last":{}}`); err != nil {
			t.Errorf("%d names: %v", n, err)
		}
		for _, again := range []int{1, n} {
			if err := read("{" + b.String() + `"` + strings.Repeat("k", again) + `":{}}`); err == nil {
				t.Errorf("name %d of %d occurs twice unseen", again, n)
			}
		}
	}
}

// FuzzReader: what encoding/json takes for an object, the reader takes too, with
// the same members.
func FuzzReader(f *testing.F) {
	f.Add(`{"a":"\ud83d\u0041","b":[1,{"c":null}]}`)
	f.Add(`{"a":1,"\u0061":2}`)
	f.Fuzz(func(t *testing.T, s string) {
		var want map[string]json.RawMessage
		valid := json.Unmarshal([]byte(s), &want) == nil && want != nil
		got := map[string]string{}
		r := &reader{s: []byte(s)}
		for key := range r.members {
			got[strings.ToValidUTF8(string(key), "\ufffd")] = string(r.raw())
		}
		r.end()
		if r.err != nil {
			if valid && !strings.Contains(r.err.Error(), "occurs twice") && !strings.Contains(r.err.Error(), "nested more than") {
				t.Fatalf("%q is refused: %v", s, r.err)
			}
			return
		}
		if !valid && strings.TrimSpace(s) != "null" {
			t.Fatalf("%q is accepted", s)
		}
		for k, v := range got {
			if w, ok := want[k]; ok && v != "" && !json.Valid([]byte(v)) || v != "" && ok && len(v) != len(strings.TrimSpace(string(w))) {
				t.Fatalf("member %q: %q, not %q", k, v, w)
			}
		}
	})
}

// Every byte at every place among the eight that are looked at together.
func TestSpecialBytes(t *testing.T) {
	for c := range 256 {
		for other := range 256 {
			for at := range 8 {
				b := bytes.Repeat([]byte{'x'}, 8)
				b[at], b[7] = byte(c), byte(other)
				if at == 7 {
					b[7] = byte(c)
				}
				want := slices.IndexFunc(b, func(c byte) bool { return c < ' ' || c == '"' || c == '\\' })
				if want < 0 {
					want = 8
				}
				if got := bits.TrailingZeros64(special(binary.LittleEndian.Uint64(b))) / 8; got != want {
					t.Fatalf("%q: %d, not %d", b, got, want)
				}
			}
		}
	}
}

// Pieces that were encoded one by one are the base64 of the whole, whatever
// their lengths are.
func TestPatchIsSeamless(t *testing.T) {
	p := newPatch([]byte("before"))
	if p.bytes() != nil {
		t.Error("nothing to do, and a patch")
	}
	var want []string
	for _, index := range []int{0, 9, 10, 99, 100, 12345} {
		for n := range 3 {
			value := []byte(`"` + strings.Repeat("v", n) + `"`)
			p.replace(value, "/spec/containers", index, "/x")
			p.addElements([]*element{{text: value}, {text: value}}, true, "/spec/containers", index, "/env")
			p.addElements([]*element{{text: value}, {text: value}}, false, "/spec/containers", index, "/env")
			at := fmt.Sprint("/spec/containers/", index)
			want = append(want, "replace "+at+"/x "+string(value), "add "+at+"/env/- "+string(value), "add "+at+"/env/- "+string(value),
				"add "+at+"/env ["+string(value)+","+string(value)+"]")
		}
	}
	encoded, ok := bytes.CutPrefix(p.bytes(), []byte("before"))
	text, err := base64.StdEncoding.DecodeString(string(encoded))
	if err != nil || !ok {
		t.Fatal(err)
	}
	var ops []struct {
		Op, Path string
		Value    json.RawMessage
	}
	if err := json.Unmarshal(text, &ops); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	var got []string
	for _, o := range ops {
		got = append(got, o.Op+" "+o.Path+" "+string(o.Value))
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
}
