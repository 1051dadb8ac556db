package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
	"go.etcd.io/etcd/client/pkg/v3/fileutil"
)

// FileKEK is a key-encryption key in a file of mode 0600: a Tink keyset in
// clear JSON. During a rotation the file holds the old key too.
type FileKEK struct {
	tink.AEAD
	path   string
	handle *keyset.Handle
}

// ID names the primary key: "file key 1a2b3c4d".
func (k *FileKEK) ID() string {
	return fmt.Sprintf("file key %08x", k.handle.KeysetInfo().GetPrimaryKeyId())
}

// Path is the file's name.
func (k *FileKEK) Path() string { return k.path }

// size is the number of keys in the file: two in the middle of a rotation.
func (k *FileKEK) size() int { return k.handle.Len() }

// ReadFileKEK reads the key at path. The error wraps fs.ErrNotExist if there
// is none. A file that others may read is refused.
func ReadFileKEK(path string) (*FileKEK, error) {
	b, err := readPrivate(path)
	if err != nil {
		return nil, fmt.Errorf("read key-encryption key: %w", err)
	}
	h, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(b)))
	if err != nil {
		return nil, fmt.Errorf("key-encryption key %s is not a Tink keyset", path) // the cause may quote the key
	}
	return fileKEK(path, h)
}

// readPrivate reads a file that only its owner may read.
func readPrivate(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if fi.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s may be read by others (mode %04o): chmod 600 %s", path, fi.Mode().Perm(), path)
	}
	const most = 1 << 20
	b, err := io.ReadAll(io.LimitReader(f, most))
	if err == nil && len(b) == most {
		err = fmt.Errorf("%s is too large to be a key", path)
	}
	return b, err
}

// CreateFileKEK makes a new key at path; it fails, with fs.ErrExist, if the
// file exists. Of several processes that do it at once, one succeeds.
func CreateFileKEK(path string) (*FileKEK, error) {
	h, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, fmt.Errorf("create key-encryption key: %w", err)
	}
	k, err := fileKEK(path, h)
	if err != nil {
		return nil, err
	}
	if err := k.store(os.Link); err != nil { // unlike a rename, a link replaces nothing
		return nil, fmt.Errorf("create key-encryption key: %w", err)
	}
	return k, nil
}

func fileKEK(path string, h *keyset.Handle) (*FileKEK, error) {
	a, err := aead.New(h)
	if err != nil {
		return nil, fmt.Errorf("key-encryption key %s: %w", path, err)
	}
	return &FileKEK{AEAD: a, path: path, handle: h}, nil
}

// withNewPrimary returns the key set with a fresh primary key and all old
// keys.
func (k *FileKEK) withNewPrimary() (*FileKEK, error) {
	m := keyset.NewManagerFromHandle(k.handle)
	id, err := m.Add(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, err
	}
	if err := m.SetPrimary(id); err != nil {
		return nil, err
	}
	h, err := m.Handle()
	if err != nil {
		return nil, err
	}
	return fileKEK(k.path, h)
}

// primaryOnly returns the key set without its old keys.
func (k *FileKEK) primaryOnly() (*FileKEK, error) {
	m := keyset.NewManagerFromHandle(k.handle)
	primary := k.handle.KeysetInfo().GetPrimaryKeyId()
	for _, info := range k.handle.KeysetInfo().GetKeyInfo() {
		if info.GetKeyId() != primary {
			if err := m.Delete(info.GetKeyId()); err != nil {
				return nil, err
			}
		}
	}
	h, err := m.Handle()
	if err != nil {
		return nil, err
	}
	return fileKEK(k.path, h)
}

// lock keeps other processes from changing the file until unlock is called.
func (k *FileKEK) lock(ctx context.Context) (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second) // what is done under the lock takes milliseconds
	defer cancel()
	for {
		f, err := fileutil.TryLockFile(k.path+".lock", lockFlags, 0o600)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, fileutil.ErrLocked) {
			return nil, fmt.Errorf("lock key-encryption key: %w", err)
		}
		if wait(ctx, 10*time.Millisecond) != nil {
			return nil, fmt.Errorf("the key-encryption key %s is being rotated by another process", k.path)
		}
	}
}

// write replaces the file in one step and syncs it: after a power cut the
// file is the old one or the new one.
func (k *FileKEK) write() error { return k.store(os.Rename) }

func (k *FileKEK) store(place func(tmp, path string) error) error {
	var buf bytes.Buffer
	if err := insecurecleartextkeyset.Write(k.handle, keyset.NewJSONWriter(&buf)); err != nil {
		return fmt.Errorf("write key-encryption key: %w", err)
	}
	return writeFile(k.path, buf.Bytes(), 0o600, place)
}

// WriteFileAtomic writes a file by way of a temporary one beside it, synced
// before the rename and its directory after.
func WriteFileAtomic(path string, data []byte, mode fs.FileMode) error {
	return writeFile(path, data, mode, os.Rename)
}

func writeFile(path string, data []byte, mode fs.FileMode, place func(tmp, path string) error) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // mode 0600 from the start
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := place(f.Name(), path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// KEKInFile is an Options.KEK that keeps the key in the file at path, made
// when the store is new. A file that is there already is used even then, so
// that several servers can share one.
func KEKInFile(path string) func(fresh bool) (KEK, error) {
	return func(fresh bool) (KEK, error) {
		k, err := ReadFileKEK(path)
		switch {
		case err == nil:
			return k, nil
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		case !fresh:
			return nil, fmt.Errorf("the key-encryption key %s is missing, and the store is sealed: restore the file, or name another with --kek", path)
		}
		k, err = CreateFileKEK(path)
		if errors.Is(err, fs.ErrExist) {
			k, err = ReadFileKEK(path) // another server was quicker
		}
		if err != nil {
			return nil, err
		}
		return k, nil
	}
}
