package euca

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"mallee/bundle"
)

// heldParts are in memory at once while a bundle is made and uploaded: one that
// is made, and two on their way.
const heldParts = 3

// maxHeldPart is the largest part that is held in memory, in bytes. Larger ones
// go through files.
const maxHeldPart = 16 << 20

// upload puts a bundle's parts into the object store, beside their making. A
// part is held in memory until it is whole, so that nothing half-made is ever sent.
type upload struct {
	client         *Client
	bucket, folder string // folder is "" or ends with a slash
	acl            string
	retries        int
	form           *uploadForm // nil where requests are signed

	held    chan struct{} // has an entry for each part in memory
	running sync.WaitGroup

	mu     sync.Mutex // guards what follows
	stored []string   // keys
	err    error      // the first part's that failed
}

func newUpload(client *Client, bucket, folder string) *upload {
	return &upload{client: client, bucket: bucket, folder: folder, acl: execRead, held: make(chan struct{}, heldParts)}
}

// part is a bundle.Sink.
func (u *upload) part(ctx context.Context, name string) (bundle.PartWriter, error) {
	select {
	case u.held <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.err != nil {
		<-u.held
		return nil, u.err
	}
	return &partUpload{ctx: ctx, upload: u, key: u.folder + name}, nil
}

// end waits until the parts are stored, and tells why the bundle isn't whole:
// made is what its making has returned. Then nothing of it stays.
func (u *upload) end(ctx context.Context, made error) error {
	u.running.Wait()
	err := cmp.Or(u.err, made)
	if err != nil {
		u.undo(ctx)
	}
	return err
}

// undo what was stored, where the bundle won't be whole. It is no matter where
// that fails: without a manifest the parts are nothing.
func (u *upload) undo(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	defer cancel()
	for _, key := range u.stored {
		_ = u.client.DeleteObject(ctx, u.bucket, key)
	}
}

type partUpload struct {
	bytes.Buffer
	ctx    context.Context
	upload *upload
	key    string
}

// Close sends the part off; end tells how it went.
func (p *partUpload) Close() error {
	u := p.upload
	u.running.Go(func() {
		err := u.bytes(p.ctx, p.key, p.Bytes())
		u.mu.Lock()
		defer u.mu.Unlock()
		u.err = cmp.Or(u.err, err)
		<-u.held
	})
	return nil
}

// CloseWithError drops the part: nothing of it was sent.
func (p *partUpload) CloseWithError(error) error {
	<-p.upload.held
	return nil
}

// bytes become an object.
func (u *upload) bytes(ctx context.Context, key string, body []byte) error {
	sum := sha256.Sum256(body)
	return u.object(ctx, key, bytes.NewReader(body), int64(len(body)), hex.EncodeToString(sum[:]))
}

// object of size bytes with that SHA-256; what fails for a moment is tried again.
func (u *upload) object(ctx context.Context, key string, body io.ReadSeeker, size int64, sum string) error {
	pause := retryPause
	for again := u.retries; ; again-- {
		if _, err := body.Seek(0, io.SeekStart); err != nil {
			return fmt.Errorf("upload %s/%s: %w", u.bucket, key, err)
		}
		err := u.once(ctx, key, body, size, sum)
		if err == nil {
			u.mu.Lock()
			defer u.mu.Unlock()
			u.stored = append(u.stored, key)
			return nil
		}
		if again == 0 || !passing(err) {
			return err
		}
		select {
		case <-time.After(pause):
			pause *= 2
		case <-ctx.Done():
			return err
		}
	}
}

// retryPause comes before the first further attempt, and twice as long before each other.
const retryPause = 100 * time.Millisecond

func (u *upload) once(ctx context.Context, key string, body io.Reader, size int64, sum string) error {
	if u.form != nil {
		return u.form.post(ctx, u.client, u.bucket, key, u.acl, body, size)
	}
	return u.client.PutStream(ctx, u.bucket, key, u.acl, body, size, sum)
}

// passing tells errors that another attempt may not have: the network's, and
// those that the cloud says are its own.
func passing(err error) bool {
	switch c := code(err); c {
	case "", "InternalError", "ServiceUnavailable", "SlowDown", "RequestTimeout":
		return true
	default:
		return strings.HasPrefix(c, "5")
	}
}
