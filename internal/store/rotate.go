package store

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// LeftoverError says that records which do not open keep old data keys from
// being dropped. They have to be restored or deleted first.
type LeftoverError struct {
	Records []string // table/key
}

func (e *LeftoverError) Error() string {
	const some = 5
	names, more := e.Records, ""
	if n := len(names) - some; n > 0 {
		names, more = names[:some], fmt.Sprintf(" and %d more", n)
	}
	return fmt.Sprintf("damaged records are sealed under old data keys: %v%s", names, more)
}

// errReplaced says that a keyring is not the stored one any more, and that
// the stored one has been taken over.
var errReplaced = errors.New("the keyring was replaced")

// RotateDataKey makes a new data key. From its return on, every server seals
// under it; records sealed before are rewritten in the background by Run, see
// [Store.Reseal], and the old key goes when none is left. It needs Run.
//
// Another server that has not seen the new key yet cannot commit under the old
// one, see Tx.commit; it sees the new key, and runs its transaction again.
func (s *Store) RotateDataKey(ctx context.Context) error {
	s.keys.rotating.Lock()
	defer s.keys.rotating.Unlock()
	for {
		ring := s.keys.ring.Load()
		next, err := ring.withNewPrimary()
		if err != nil {
			return err
		}
		done, err := s.putKeyring(ctx, ring, next, nil)
		if err != nil {
			return err
		}
		if done {
			s.log.Info("data key rotated", "primary", keyID(next.primary))
			return nil
		}
	}
}

// putKeyring stores next, wrapped under kek (nil: the one in use), if ring is
// still the stored one, and waits until it is in use here. done is false if
// ring had been replaced; then what replaced it is in use.
func (s *Store) putKeyring(ctx context.Context, ring, next *keyring, kek KEK) (done bool, err error) {
	if kek == nil {
		kek = s.keys.currentKEK()
	}
	wrapped, err := next.wrap(kek)
	if err != nil {
		return false, err
	}
	key := s.prefix + keyringKey
	resp, err := s.client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", ring.mod)).Then(
		clientv3.OpPut(key, string(wrapped)),
		clientv3.OpPut(s.prefix+primaryKey, keyID(next.primary)),
		clientv3.OpPut(s.prefix+clockKey, ""),
	).Else(clientv3.OpGet(key)).Commit()
	if err != nil {
		return false, s.refused(err)
	}
	if resp.Succeeded {
		return true, s.reach(ctx, resp.Header.Revision)
	}
	if err := s.isStored(ctx, ring, resp.Responses[0].GetResponseRange().Kvs); err != errReplaced {
		return false, err
	}
	return false, nil
}

// isStored compares ring with what etcd answered when asked for the keyring.
// It returns nil if they are the same, errReplaced if there is another which
// is in use here now, and else why that is not so.
func (s *Store) isStored(ctx context.Context, ring *keyring, kvs []*mvccpb.KeyValue) error {
	if len(kvs) == 0 {
		return unavailable(errNoKeyring)
	}
	mod := kvs[0].ModRevision
	if mod == ring.mod {
		return nil
	}
	if err := s.reach(ctx, mod); err != nil {
		return err
	}
	if s.keys.ring.Load().mod < mod {
		_, err := s.keys.unwrap(kvs[0].Value)
		return fmt.Errorf("the keyring was changed by another server and does not open here: %w", err)
	}
	return errReplaced
}

// RotateKEK replaces the key-encryption key. A file key is replaced by a new
// one in the same file; for any other, whose versions are its own affair, the
// keyring is wrapped again, which uses the newest. It needs Run.
//
// Servers that share the file take the new key from it. A server with a copy
// of its own goes on with the data keys that it has, and says in its log that
// the copy must be brought up to date before it restarts.
func (s *Store) RotateKEK(ctx context.Context) error {
	kek := s.keys.currentKEK()
	if file, ok := kek.(*FileKEK); ok {
		return s.rotateFileKEK(ctx, file, true)
	}
	s.keys.rotating.Lock()
	defer s.keys.rotating.Unlock()
	return s.rewrap(ctx, kek, true)
}

// rotateFileKEK does, with A the old key and B the new one:
//
//	                                      file    keyring under
//	0                                     A       A
//	1  write both keys, B primary         A B     A
//	2  wrap the keyring again             A B     B
//	3  write the new key alone            B       B
//
// Each step replaces one thing as a whole, the file by a rename and the
// keyring by a transaction, and in each line the file opens the keyring. So
// the store can be opened after a crash at any point. A file with more than
// one key means that steps are to be done yet: Run does them after its start,
// with begin false, and the next RotateKEK would.
func (s *Store) rotateFileKEK(ctx context.Context, kek *FileKEK, begin bool) (err error) {
	s.keys.rotating.Lock()
	defer s.keys.rotating.Unlock()
	// One process at a time, or one would write away a key that another's
	// keyring needs.
	unlock, err := kek.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	defer func() {
		if err != nil {
			s.kickUpkeep() // to carry on what has begun
		}
	}()
	// The file counts, not what we remember of it.
	if kek, err = ReadFileKEK(kek.path); err != nil {
		return err
	}
	if err := s.opensStored(ctx, kek); err != nil {
		return fmt.Errorf("the key-encryption key %s is not that of the store: %w", kek.path, err)
	}
	if kek.size() == 1 && begin {
		if kek, err = kek.withNewPrimary(); err != nil {
			return fmt.Errorf("rotate key-encryption key: %w", err)
		}
		if err := kek.write(); err != nil { // step 1
			return err
		}
	}
	s.keys.setKEK(kek)
	if kek.size() == 1 {
		return nil // another process has finished it
	}
	if err := s.rewrap(ctx, kek, false); err != nil { // step 2
		return err
	}
	alone, err := kek.primaryOnly()
	if err != nil {
		return fmt.Errorf("rotate key-encryption key: %w", err)
	}
	// Never throw a key away on the strength of what should be the case.
	if err := s.opensStored(ctx, alone); err != nil {
		return fmt.Errorf("the old key-encryption key is kept: %w", err)
	}
	if err := alone.write(); err != nil { // step 3
		return err
	}
	s.keys.setKEK(alone)
	s.log.Info("key-encryption key rotated", "kek", alone.ID())
	return nil
}

// rewrap stores the keyring under kek, unless it is by name and always is not
// set.
func (s *Store) rewrap(ctx context.Context, kek KEK, always bool) error {
	for {
		ring := s.keys.ring.Load()
		if ring.kek == kek.ID() && !always {
			return nil
		}
		if done, err := s.putKeyring(ctx, ring, ring, kek); done || err != nil {
			return err
		}
	}
}

// opensStored checks that kek opens the keyring as it is in etcd now.
func (s *Store) opensStored(ctx context.Context, kek KEK) error {
	got, err := s.client.Get(ctx, s.prefix+keyringKey)
	if err != nil {
		return unavailable(err)
	}
	if len(got.Kvs) == 0 {
		return errNoKeyring
	}
	_, err = unwrapKeyring(got.Kvs[0].Value, kek)
	return err
}
