package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// tunnel copies bytes both ways between two connections. The end of one
// direction is passed on as such, so that a peer that has finished sending
// still gets its answer. An error in either direction ends both, and so does
// a time without a byte in any.
type tunnel struct {
	client, upstream net.Conn
	idle             time.Duration
	last             atomic.Int64 // when a byte last passed, in Unix nanoseconds
}

func newTunnel(client, upstream net.Conn, idle time.Duration) *tunnel {
	return &tunnel{client: client, upstream: upstream, idle: idle}
}

// run copies until both directions have ended. What the client sends is read
// from fromClient, which may have buffered some of it. Both connections are
// closed afterwards.
func (t *tunnel) run(fromClient io.Reader) {
	t.last.Store(time.Now().UnixNano())
	var wg sync.WaitGroup
	wg.Go(func() { t.copy(t.client, t.upstream, t.upstream) })
	t.copy(t.upstream, t.client, fromClient)
	wg.Wait()
	t.close()
}

func (t *tunnel) close() {
	t.client.Close()
	t.upstream.Close()
}

// copy moves bytes from r, which reads src, to dst.
func (t *tunnel) copy(dst, src net.Conn, r io.Reader) {
	buf := make([]byte, 32<<10)
	for {
		src.SetReadDeadline(t.deadline())
		n, err := r.Read(buf)
		if n > 0 {
			t.last.Store(time.Now().UnixNano())
			// A peer that does not take what it is sent is idle too.
			dst.SetWriteDeadline(t.deadline())
			if _, werr := dst.Write(buf[:n]); werr != nil {
				t.close()
				return
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			w, ok := dst.(interface{ CloseWrite() error })
			if !ok || w.CloseWrite() != nil {
				t.close()
			}
			return
		case errors.Is(err, os.ErrDeadlineExceeded) && time.Now().Before(t.deadline()):
			// Quiet here, but not in the other direction.
		default:
			t.close()
			return
		}
	}
}

// deadline is when the tunnel counts as idle, if no byte passes till then.
func (t *tunnel) deadline() time.Time { return time.Unix(0, t.last.Load()).Add(t.idle) }
