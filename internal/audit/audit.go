// Package audit writes down who was allowed or refused what.
//
// One JSON line per decision goes to an append-only file before the answer
// leaves: [Log.Write] returns only when the line has been handed to the
// operating system, and an error from it must refuse the operation. Lines of
// concurrent requests are written together, with one system call. A line
// never holds a secret value. The package also owns [Principal], the identity
// of a caller, so that everything above can name one.
package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/podkey/podkey/internal/text"
)

// Decisions of a record.
const (
	Allow = "allow"
	Deny  = "deny"
)

// Record is one decision.
type Record struct {
	Plane     string // login, management, graph, vault, issuer, system
	Operation string // Azure's operation name, such as SecretGet, or the action asked for
	Object    string // lower-case ARM id of the object, or what was asked for
	Principal Principal
	Decision  string // Allow or Deny
	Reason    string // why, for people: the rule that decided or the field that differed
	Via       string // id of the role assignment or policy that allowed it; may be empty
}

// Log is an open audit file. Create with [Open] or [New]; safe for
// concurrent use.
type Log struct {
	out   io.Writer
	sync  func() error // flushes out to the disk; nil if out has none
	every bool         // sync each group before its writers return
	now   func() time.Time

	failed  chan struct{} // closed at the first failed write or sync
	mu      sync.Mutex
	pending *group // lines gathered while a write is under way
	writing bool   // a leader is writing
	dirty   bool   // written since the last sync
	broken  error  // the first failed write; everything after it is refused
	closed  bool
	spare   []byte // a buffer to reuse
}

// group is a batch of lines that share one write. done is closed when err is
// final; lead makes the one waiter that receives from it the next leader.
type group struct {
	buf  []byte
	done chan struct{}
	lead chan struct{}
	err  error
}

// Options adjust a Log. The zero value suits a server.
type Options struct {
	SyncEach bool             // sync to disk before every Write returns, not once a second
	Now      func() time.Time // clock of the time field; time.Now if nil
}

// Open appends to the file at path, creating it with mode 0600.
func Open(path string, o Options) (*Log, error) {
	f, err := openFile(path)
	if err != nil {
		return nil, err
	}
	return New(f, o), nil
}

// New writes to w. If w has a Sync method it is called once a second by
// [Log.Run] (or for every write, see Options); if it has a Close method,
// [Log.Close] calls it.
func New(w io.Writer, o Options) *Log {
	l := &Log{out: w, every: o.SyncEach, now: o.Now, failed: make(chan struct{})}
	if l.now == nil {
		l.now = time.Now
	}
	if s, ok := w.(interface{ Sync() error }); ok {
		l.sync = s.Sync
	}
	return l
}

var errClosed = errors.New("audit log is closed")

// Write appends one line and returns when it has been written. The record's
// time, request id, correlation id and remote address come from the clock and
// ctx. After a failed write every later Write fails too: a log with a hole
// must not look whole.
//
// The first writer to arrive while nobody writes becomes the leader and
// writes at once; those that arrive meanwhile share the next write, which one
// of them leads. So a lone caller pays one system call and no goroutine
// switch, and no caller waits for more than two writes.
func (l *Log) Write(ctx context.Context, rec Record) error {
	req := RequestOf(ctx)
	now := l.now()

	l.mu.Lock()
	if err := l.refusal(); err != nil {
		l.mu.Unlock()
		return err
	}
	if l.pending == nil {
		l.pending = &group{buf: l.spare[:0]}
		l.spare = nil
	}
	g := l.pending
	g.buf = appendRecord(g.buf, now, &req, &rec)
	if l.writing {
		if g.done == nil {
			g.done, g.lead = make(chan struct{}), make(chan struct{}, 1)
		}
		l.mu.Unlock()
		select {
		case <-g.done:
			return g.err
		case <-g.lead:
			l.mu.Lock()
		}
	}
	l.writing = true
	l.flush()
	if next := l.pending; next != nil {
		next.lead <- struct{}{} // writing stays true until that leader is done
	} else {
		l.writing = false
	}
	l.mu.Unlock()
	return g.err
}

// flush writes the pending group. Called with mu held by the leader; mu is
// released during the write.
func (l *Log) flush() {
	g := l.pending
	l.pending = nil
	if l.broken != nil {
		g.err = l.broken
	} else {
		l.mu.Unlock()
		_, err := l.out.Write(g.buf)
		if err == nil && l.every && l.sync != nil {
			err = l.sync()
		}
		l.mu.Lock()
		l.dirty = !l.every
		if err != nil {
			g.err = fmt.Errorf("write audit log: %w", err)
			l.fail(g.err)
		}
	}
	if l.spare == nil && cap(g.buf) <= 1<<16 {
		l.spare = g.buf
	}
	if g.done != nil {
		close(g.done)
	}
}

// Reopen opens the file of a log made by [Open] anew, for when a rotation has
// moved it away: lines from now on go to a new file at the same path. If that
// cannot be opened, the old one stays in use and the error is returned.
func (l *Log) Reopen() error {
	f, ok := l.out.(*file)
	if !ok {
		return errors.New("the audit log is not a file")
	}
	l.mu.Lock()
	err := l.refusal()
	l.mu.Unlock()
	if err != nil {
		return err
	}
	return f.reopen()
}

func (l *Log) refusal() error {
	if l.closed {
		return errClosed
	}
	return l.broken
}

// Run syncs the file once a second until ctx ends, and once more then. An
// error of the disk, here or in Write, breaks the log and is returned: a
// server that cannot write down what it does must stop, and start again when
// there is room.
func (l *Log) Run(ctx context.Context) error {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			if err := l.Sync(); err != nil {
				return err
			}
		case <-l.failed:
			return l.Err()
		case <-ctx.Done():
			return l.Sync()
		}
	}
}

// Sync flushes what has been written to the disk.
func (l *Log) Sync() error {
	l.mu.Lock()
	dirty := l.dirty && !l.closed
	l.dirty = false
	l.mu.Unlock()
	if !dirty || l.sync == nil {
		return nil
	}
	if err := l.sync(); err != nil {
		err = fmt.Errorf("sync audit log: %w", err)
		l.mu.Lock()
		l.fail(err)
		l.mu.Unlock()
		return err
	}
	return nil
}

// fail refuses everything from now on. mu is held.
func (l *Log) fail(err error) {
	if l.broken == nil {
		l.broken = err
		close(l.failed)
	}
}

// Err returns what broke the log, or nil.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.broken
}

// Close syncs and closes the file. Writes after it fail.
func (l *Log) Close() error {
	err := l.Sync()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	if c, ok := l.out.(io.Closer); ok {
		err = errors.Join(err, c.Close())
	}
	return err
}

// appendRecord encodes one line by hand: this runs before every answer, and
// the shape is fixed. Empty optional members are left out. The member names
// follow Azure's AuditEvent where it has one.
func appendRecord(b []byte, now time.Time, req *Request, rec *Record) []byte {
	b = append(b, `{"time":"`...)
	b = now.UTC().AppendFormat(b, "2006-01-02T15:04:05.000000Z")
	b = append(b, '"')
	b = appendMember(b, "plane", rec.Plane)
	b = appendMember(b, "operationName", rec.Operation)
	b = appendMember(b, "resourceId", rec.Object)
	b = appendMember(b, "decision", rec.Decision)
	b = appendMember(b, "reason", rec.Reason)
	b = appendMember(b, "via", rec.Via)
	b = appendMember(b, "oid", rec.Principal.ObjectID)
	b = appendMember(b, "appid", rec.Principal.AppID)
	b = appendMember(b, "tid", rec.Principal.TenantID)
	b = appendMember(b, "name", rec.Principal.Name)
	b = appendMember(b, "callerIpAddress", req.RemoteAddr)
	b = appendMember(b, "requestId", req.ID)
	if req.CorrelationID != req.ID {
		b = appendMember(b, "correlationId", req.CorrelationID)
	}
	return append(b, "}\n"...)
}

func appendMember(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	b = append(b, `,"`...)
	b = append(b, name...)
	b = append(b, `":`...)
	return text.AppendJSONLine(b, value)
}
