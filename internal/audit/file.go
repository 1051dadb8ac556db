package audit

import (
	"errors"
	"fmt"
	"os"
	"sync"
)

// file is an append-only file that can be exchanged for a new one at the same
// path while others write to it.
type file struct {
	path string
	mu   sync.RWMutex // held for reading while f is used, for writing while it is exchanged
	f    *os.File
}

func openFile(path string) (*file, error) {
	f, err := openAppend(path)
	if err != nil {
		return nil, err
	}
	return &file{path: path, f: f}, nil
}

func openAppend(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	if err := endLine(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	return f, nil
}

// endLine ends a last line that a crash or a full disk cut off, so that the
// next record is not glued to it.
func endLine(f *os.File) error {
	fi, err := f.Stat()
	if err != nil || fi.Size() == 0 {
		return err
	}
	var last [1]byte
	if _, err := f.ReadAt(last[:], fi.Size()-1); err != nil || last[0] == '\n' {
		return err
	}
	_, err = f.Write([]byte{'\n'})
	return err
}

// reopen puts a new file in the place of the present one, which is synced
// first: its lines have been acknowledged.
func (f *file) reopen() error {
	next, err := openAppend(f.path)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.f.Sync(); err != nil {
		return errors.Join(fmt.Errorf("sync audit log: %w", err), next.Close())
	}
	old := f.f
	f.f = next
	return old.Close()
}

func (f *file) Write(p []byte) (int, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.f.Write(p)
}

// Sync flushes the file to the disk.
func (f *file) Sync() error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.f.Sync()
}

// Close closes the file.
func (f *file) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.f.Close()
}
