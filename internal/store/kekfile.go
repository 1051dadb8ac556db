package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
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

// ReadFileKEK reads the key at path. The error wraps fs.ErrNotExist if there
// is none. A file that others may read is refused.
func ReadFileKEK(path string) (*FileKEK, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read key-encryption key: %w", err)
	}
	if fi.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("key-encryption key %s may be read by others (mode %04o): chmod 600 %s", path, fi.Mode().Perm(), path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read key-encryption key: %w", err)
	}
	h, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(b)))
	if err != nil {
		return nil, fmt.Errorf("key-encryption key %s is not a Tink keyset", path)
	}
	return fileKEK(path, h)
}

// CreateFileKEK makes a new key at path; it fails if the file exists.
func CreateFileKEK(path string) (*FileKEK, error) {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("create key-encryption key: %s exists already", path)
	}
	h, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, fmt.Errorf("create key-encryption key: %w", err)
	}
	k, err := fileKEK(path, h)
	if err != nil {
		return nil, err
	}
	return k, k.write()
}

func fileKEK(path string, h *keyset.Handle) (*FileKEK, error) {
	a, err := aead.New(h)
	if err != nil {
		return nil, fmt.Errorf("key-encryption key %s: %w", path, err)
	}
	return &FileKEK{AEAD: a, path: path, handle: h}, nil
}

// withNewPrimary returns the key set with a fresh primary key and all old
// keys; only says whether to drop the old ones.
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

// write replaces the file in one step and syncs it: after a power cut the
// file is the old one or the new one.
func (k *FileKEK) write() error {
	var buf bytes.Buffer
	if err := insecurecleartextkeyset.Write(k.handle, keyset.NewJSONWriter(&buf)); err != nil {
		return fmt.Errorf("write key-encryption key: %w", err)
	}
	return WriteFileAtomic(k.path, buf.Bytes(), 0o600)
}

// WriteFileAtomic writes a file by way of a temporary one beside it, synced
// before the rename and its directory after.
func WriteFileAtomic(path string, data []byte, mode fs.FileMode) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	tmp := f.Name()
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
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
		if k, err = CreateFileKEK(path); err != nil {
			return nil, err
		}
		return k, nil
	}
}
