package directory

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"
	"sync"

	"golang.org/x/crypto/argon2"

	"github.com/podkey/podkey/internal/fault"
)

// Argon2id parameters, the second choice of RFC 9106 scaled to a server that
// answers while it hashes: 19 MiB, two passes, one lane. At most slowAtOnce
// computations run at a time, and few more wait about one secret or in all:
// guesses cost neither all memory nor all processors, and who guesses at one
// secret does not shut out the others.
//
// What a computation is about is named by whoever asks for it, not by the hash
// in hand: names that do not exist share one hash, and must be turned away as
// soon as others are and no sooner.
const (
	argonMemory = 19 * 1024 // KiB
	argonTime   = 2
	argonSalt   = 16
	argonSum    = 32
	slowAtOnce  = 2

	slowWaiting    = 64 // computations under way and waiting, in all
	slowWaitingOne = 6  // the same, about one secret
)

// slowMemo is how many successes are remembered: a client that presents a
// chosen secret again pays microseconds, and does not queue behind guesses.
const slowMemo = 1000

// slowQueue bounds the computations, and remembers which texts were right.
type slowQueue struct {
	slots chan struct{}
	key   [sha256.Size]byte // of this process: what is remembered is of no use elsewhere

	mu      sync.Mutex
	waiting int
	about   map[string]int
	right   map[[sha256.Size]byte]struct{}
}

func newSlowQueue() *slowQueue {
	q := &slowQueue{slots: make(chan struct{}, slowAtOnce), about: map[string]int{}, right: map[[sha256.Size]byte]struct{}{}}
	_, _ = rand.Read(q.key[:]) // never fails, see crypto/rand
	return q
}

// mark names the fact that text is what hash is of. The hash has a salt of
// its own, so that a mark is about one secret of one owner.
func (q *slowQueue) mark(hash, text string) (m [sha256.Size]byte) {
	h := hmac.New(sha256.New, q.key[:])
	h.Write([]byte(hash))
	h.Write([]byte{0})
	h.Write([]byte(text))
	h.Sum(m[:0])
	return m
}

func (q *slowQueue) known(m [sha256.Size]byte) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	_, ok := q.right[m]
	return ok
}

func (q *slowQueue) remember(m [sha256.Size]byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.right) >= slowMemo {
		clear(q.right)
	}
	q.right[m] = struct{}{}
}

// enter waits for a turn. about names the secret of the computation; it is
// empty for a new one, of which only the total is bounded.
func (q *slowQueue) enter(ctx context.Context, about string) (leave func(), err error) {
	q.mu.Lock()
	if q.waiting >= slowWaiting || about != "" && q.about[about] >= slowWaitingOne {
		q.mu.Unlock()
		return nil, busy(nil)
	}
	q.waiting++
	q.about[about]++
	q.mu.Unlock()
	out := func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.waiting--
		if q.about[about]--; q.about[about] == 0 {
			delete(q.about, about)
		}
	}
	select {
	case q.slots <- struct{}{}:
	case <-ctx.Done():
		out()
		return nil, busy(ctx.Err())
	}
	if ctx.Err() != nil { // both were ready, and nobody waits for the result
		<-q.slots
		out()
		return nil, busy(ctx.Err())
	}
	return func() { <-q.slots; out() }, nil
}

func busy(cause error) error {
	return fault.Wrap(cause, fault.Unavailable, "ServiceUnavailable", "The server is busy. Try again.")
}

var b64 = base64.RawStdEncoding

func (d *Directory) slowHash(ctx context.Context, text string) (string, error) {
	salt := make([]byte, argonSalt)
	_, _ = rand.Read(salt) // never fails, see crypto/rand
	leave, err := d.slow.enter(ctx, "")
	if err != nil {
		return "", err
	}
	defer leave()
	sum := argon2.IDKey([]byte(text), salt, argonTime, argonMemory, 1, argonSum)
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=1$%s$%s", argon2.Version, argonMemory, argonTime, b64.EncodeToString(salt), b64.EncodeToString(sum)), nil
}

// slowVerify compares text with an encoded hash. about names the secret, whose
// waiting computations are bounded. A malformed hash is an error of ours, never
// a match.
func (d *Directory) slowVerify(ctx context.Context, about, encoded, text string) (bool, error) {
	var version int
	var memory, passes uint32
	parts := strings.Split(encoded, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" {
		return false, fmt.Errorf("stored hash is malformed")
	}
	_, err1 := fmt.Sscanf(parts[2]+" "+parts[3], "v=%d m=%d,t=%d,p=1", &version, &memory, &passes)
	salt, err2 := b64.DecodeString(parts[4])
	want, err3 := b64.DecodeString(parts[5])
	if err1 != nil || err2 != nil || err3 != nil || version != argon2.Version || passes == 0 || len(want) != argonSum {
		return false, fmt.Errorf("stored hash is malformed")
	}
	mark := d.slow.mark(encoded, text)
	if d.slow.known(mark) {
		return true, nil
	}
	leave, err := d.slow.enter(ctx, about)
	if err != nil {
		return false, err
	}
	defer leave()
	if subtle.ConstantTimeCompare(argon2.IDKey([]byte(text), salt, passes, memory, 1, argonSum), want) != 1 {
		return false, nil
	}
	d.slow.remember(mark)
	return true, nil
}
