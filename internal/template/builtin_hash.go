package template

import (
	"crypto/sha1"
	"encoding/binary"
	"math/bits"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

func hashFunctions() map[string]builtin {
	return map[string]builtin{
		"guid": {least: 1, most: -1, walks: true, eval: func(_ *scope, a []any) (any, error) {
			joined, err := dashed(a)
			return guid(joined), err
		}},
		"uniquestring": {least: 1, most: -1, walks: true, eval: func(_ *scope, a []any) (any, error) {
			joined, err := dashed(a)
			return uniqueString(joined), err
		}},
	}
}

func dashed(args []any) (string, error) {
	parts := make([]string, len(args))
	for i := range args {
		var err error
		if parts[i], err = text(args, i); err != nil {
			return "", err
		}
	}
	return strings.Join(parts, "-"), nil
}

// guidSpace is the namespace of the UUIDs (version 5) that guid() gives.
var guidSpace = uuid.MustParse("11fb06fb-712d-4ddd-98c7-e71bbd588830")

// Hash is a number that tells texts apart, written in decimal.
func Hash(text []byte) string { return strconv.FormatUint(hash64(string(text)), 10) }

func guid(s string) string { return uuid.NewHash(sha1.New(), guidSpace, []byte(s), 5).String() }

// uniqueString is the hash of a text, written in 13 letters of base 32, the
// highest bits first.
func uniqueString(s string) string {
	const letters = "abcdefghijklmnopqrstuvwxyz234567"
	h := hash64(s)
	var out [13]byte
	for i := range out {
		out[i] = letters[h>>59]
		h <<= 5
	}
	return string(out[:])
}

// hash64 is the variant of MurmurHash3 with two lanes of 32 bits that Azure's
// uniqueString has.
func hash64(s string) uint64 {
	const c1, c2 = 0x239b961b, 0xab0e9789
	var h1, h2 uint32
	b := []byte(s)
	n := uint32(len(b))
	for ; len(b) >= 8; b = b[8:] {
		k1, k2 := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
		h1 ^= bits.RotateLeft32(k1*c1, 15) * c2
		h1 = (bits.RotateLeft32(h1, 19)+h2)*5 + 0x561ccd1b
		h2 ^= bits.RotateLeft32(k2*c2, 17) * c1
		h2 = (bits.RotateLeft32(h2, 13)+h1)*5 + 0x0bcaa747
	}
	var rest [8]byte
	tail := copy(rest[:], b)
	if tail > 0 {
		h1 ^= bits.RotateLeft32(binary.LittleEndian.Uint32(rest[:])*c1, 15) * c2
	}
	if tail > 4 {
		h2 ^= bits.RotateLeft32(binary.LittleEndian.Uint32(rest[4:])*c2, 17) * c1
	}
	h1, h2 = h1^n, h2^n
	h1 += h2
	h2 += h1
	h1, h2 = scatter(h1), scatter(h2)
	h1 += h2
	h2 += h1
	return uint64(h2)<<32 | uint64(h1)
}

func scatter(h uint32) uint32 {
	h = (h ^ h>>16) * 0x85ebca6b
	h = (h ^ h>>13) * 0xc2b2ae35
	return h ^ h>>16
}
