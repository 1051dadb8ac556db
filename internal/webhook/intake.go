package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxConns is how many connections there are at once. API servers have one
	// for each review under way, a few hundred at most, and keep some. One that
	// does nothing takes about 40 KiB.
	maxConns      = 768
	maxPlainConns = 64 // of health and of metrics

	// bodyTime is for the whole body of a review from its first byte on: the
	// caller has it ready, and waits.
	bodyTime = 2 * time.Second

	// answerTime is for a caller to take what it asked for.
	answerTime = 5 * time.Second

	// What bodies take together beyond the first part of each, which all but a
	// few do not exceed.
	maxBodies = 32 << 20
	firstPart = 16 << 10
)

// maxKept is the largest answer whose memory is used again. That of a pod of 200
// containers takes half of it.
const maxKept = 1 << 20

// answers keeps the memory of answers that were taken, for a while.
type answers struct{ pool sync.Pool }

func (a *answers) get() []byte {
	if b, ok := a.pool.Get().(*[]byte); ok {
		return *b
	}
	return nil
}

func (a *answers) put(b []byte) {
	if cap(b) <= maxKept {
		a.pool.Put(&b)
	}
}

// intake bounds what strangers can make this process hold. Everybody in the
// cluster reaches the port, and nobody has to say who they are: whatever waits
// for a caller has a bound, and at the bound goes whoever has done nothing for
// the longest. A review that comes as API servers send them, at once, is
// answered however many others are silent.
type intake struct {
	most   int
	bodies atomic.Int64 // bytes that are held, of reviews beyond the first parts

	mu    sync.Mutex
	turn  uint64
	conns map[net.Conn]*conn
}

// conn is what matters of a connection.
type conn struct {
	turn      uint64 // when it last began or ended a request, in the order of all
	answering bool   // the request has arrived, and it is we who are to do something
}

func newIntake(most int) *intake { return &intake{most: most, conns: map[net.Conn]*conn{}} }

// connKey is of a request's connection in its context.
type connKey struct{}

// watch makes a server tell of its connections.
func (n *intake) watch(s *http.Server) *http.Server {
	s.ConnState = n.state
	s.ConnContext = func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) }
	return s
}

func (n *intake) state(c net.Conn, s http.ConnState) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.turn++
	switch s {
	case http.StateNew:
		if len(n.conns) >= n.most && !n.evict() {
			hangUp(c)
			return
		}
		n.conns[c] = &conn{turn: n.turn}
	case http.StateActive, http.StateIdle:
		if x := n.conns[c]; x != nil {
			x.turn, x.answering = n.turn, false
		}
	case http.StateClosed, http.StateHijacked:
		delete(n.conns, c)
	}
}

// evict closes the connection that has done nothing for the longest, and fails
// if all are being answered.
func (n *intake) evict() bool {
	var victim net.Conn
	for c, x := range n.conns {
		if !x.answering && (victim == nil || x.turn < n.conns[victim].turn) {
			victim = c
		}
	}
	if victim == nil {
		return false
	}
	delete(n.conns, victim)
	hangUp(victim)
	return true
}

// hangUp closes without a farewell, for which the other side might let us wait.
func hangUp(c net.Conn) {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	_ = c.Close()
}

// arrived notes that a request has been read.
func (n *intake) arrived(ctx context.Context) { n.set(ctx, true) }

// answered notes that it is the caller's turn again: to take the answer, which
// is charged like a body until it is released. One that is there already is
// not refused.
func (n *intake) answered(ctx context.Context, w http.ResponseWriter, size int64) (release func()) {
	n.set(ctx, false)
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTime))
	n.bodies.Add(size)
	return func() { n.bodies.Add(-size) }
}

func (n *intake) set(ctx context.Context, answering bool) {
	c, _ := ctx.Value(connKey{}).(net.Conn)
	n.mu.Lock()
	defer n.mu.Unlock()
	if x := n.conns[c]; x != nil {
		x.answering = answering
	}
}

// read reads a body, and is charged for it as it grows: what is announced and
// not sent takes no more than the first part. The caller releases it.
func (n *intake) read(w http.ResponseWriter, r *http.Request, most int64) (_ []byte, release func(), err error) {
	var charged int64
	defer func() {
		if release = func() { n.bodies.Add(-charged) }; err != nil {
			release()
		}
	}()
	deadline := http.NewResponseController(w)
	if err := deadline.SetReadDeadline(time.Now().Add(bodyTime)); err != nil {
		return nil, nil, err
	}
	announced := min(max(r.ContentLength, 0), most) + 1 // one more, to see the end
	b := make([]byte, 0, min(max(announced, 512), firstPart))
	from := http.MaxBytesReader(w, r.Body, most)
	for {
		if len(b) == cap(b) {
			size := int64(2 * cap(b))
			if int64(len(b)) < announced {
				size = min(size, announced)
			}
			more := max(size-firstPart, 0) - charged
			charged += more
			if n.bodies.Add(more) > maxBodies {
				return nil, nil, &refusal{http.StatusServiceUnavailable, "too many large reviews at once"}
			}
			b = append(make([]byte, 0, size), b...)
		}
		m, err := from.Read(b[len(b):cap(b)])
		b = b[:len(b)+m]
		switch {
		case err == io.EOF:
			// Whether the caller goes away is still read.
			return b, nil, deadline.SetReadDeadline(time.Time{})
		case err != nil:
			return nil, nil, refuseBody(err, most)
		}
	}
}

func refuseBody(err error, most int64) error {
	switch _, large := errors.AsType[*http.MaxBytesError](err); {
	case large:
		return &refusal{http.StatusRequestEntityTooLarge, fmt.Sprintf("the review is larger than %d bytes", most)}
	case errors.Is(err, io.ErrUnexpectedEOF):
		return &refusal{http.StatusBadRequest, "the review ends early"}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &refusal{http.StatusRequestTimeout, "the review did not arrive within " + bodyTime.String()}
	case errors.Is(err, net.ErrClosed):
		return &refusal{http.StatusServiceUnavailable, "too many connections"}
	}
	return err
}
