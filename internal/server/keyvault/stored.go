package keyvault

import (
	"encoding/binary"
	"errors"
	"maps"
	"slices"
)

// A live secret is what every read opens, so it is not stored as JSON, which
// costs more to read than all the rest of a read together. Its stored form is
//
//	flags      1 byte, see below
//	name, serial, id, content type, preceding version: each a length and text
//	created, updated
//	nbf, exp   if the flags say so
//	tags       if the flags say so: their number, then names and values, each a
//	           length and text, in order of name
//	value      the rest
//
// with lengths and the number as unsigned, times as signed varints. There is
// one form for each secret, and no other is read.
const (
	flagDisabled = 1 << iota
	flagNotBefore
	flagExpires
	flagTags

	flagsKnown = 1<<iota - 1
)

func marshalSecret(s *secret) ([]byte, error) {
	var flags byte
	if s.Disabled {
		flags |= flagDisabled
	}
	if s.NotBefore != nil {
		flags |= flagNotBefore
	}
	if s.Expires != nil {
		flags |= flagExpires
	}
	if s.Tags != nil {
		flags |= flagTags
	}
	b := append(make([]byte, 0, len(s.Value)+256), flags)
	for _, text := range []string{s.Name, s.Serial, s.ID, s.ContentType, s.Previous} {
		b = appendText(b, text)
	}
	b = binary.AppendVarint(b, s.Created)
	b = binary.AppendVarint(b, s.Updated)
	for _, t := range []*int64{s.NotBefore, s.Expires} {
		if t != nil {
			b = binary.AppendVarint(b, *t)
		}
	}
	if s.Tags != nil {
		b = binary.AppendUvarint(b, uint64(len(s.Tags)))
		for _, name := range slices.Sorted(maps.Keys(s.Tags)) {
			b = appendText(appendText(b, name), s.Tags[name])
		}
	}
	return append(b, s.Value...), nil
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

var errStored = errors.New("the stored secret is malformed")

// unmarshalSecret reads what marshalSecret wrote. The texts are parts of one
// copy of b.
func unmarshalSecret(b []byte, s *secret) error {
	if len(b) == 0 || b[0]&^flagsKnown != 0 {
		return errStored
	}
	flags := b[0]
	r := storedReader{num: b[1:], text: string(b[1:])}
	*s = secret{Name: r.string(), Serial: r.string()}
	s.ID, s.ContentType, s.Previous = r.string(), r.string(), r.string()
	s.Disabled = flags&flagDisabled != 0
	s.Created, s.Updated = r.int(), r.int()
	if flags&flagNotBefore != 0 {
		t := r.int()
		s.NotBefore = &t
	}
	if flags&flagExpires != 0 {
		t := r.int()
		s.Expires = &t
	}
	if flags&flagTags != 0 {
		s.Tags = r.tags()
	}
	s.Value = r.text
	if r.bad {
		return errStored
	}
	return nil
}

// storedReader takes a stored secret apart. num and text are what is left of
// it, as bytes and as text. After a mistake it only returns zero values.
type storedReader struct {
	num  []byte
	text string
	bad  bool
}

func (r *storedReader) advance(n int) {
	r.num, r.text = r.num[n:], r.text[n:]
}

func (r *storedReader) uint() uint64 {
	v, n := binary.Uvarint(r.num)
	if n <= 0 || n > 1 && r.num[n-1] == 0 { // cut off, too large, or longer than need be
		r.bad = true
		r.num, r.text = nil, ""
		return 0
	}
	r.advance(n)
	return v
}

func (r *storedReader) int() int64 {
	u := r.uint()
	return int64(u>>1) ^ -int64(u&1)
}

func (r *storedReader) string() string {
	n := r.uint()
	if n > uint64(len(r.text)) {
		r.bad = true
		return ""
	}
	s := r.text[:n]
	r.advance(int(n))
	return s
}

func (r *storedReader) tags() map[string]string {
	n := r.uint()
	if n > uint64(len(r.text)) { // each takes a byte at least: a number cannot ask for much memory
		r.bad = true
		return nil
	}
	tags := make(map[string]string, n)
	last := ""
	for i := range n {
		name := r.string()
		if i > 0 && name <= last {
			r.bad = true
		}
		if r.bad {
			return nil
		}
		last = name
		tags[name] = r.string()
	}
	return tags
}
