package walrus

import (
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

func TestWritesOfTheCloud(t *testing.T) {
	w := start(t, t.TempDir()).Walrus
	ctx := t.Context()
	if err := w.MakeBucket(ctx, annaID, "exports"); err != nil {
		t.Fatal(err)
	}
	if err := w.MakeBucket(ctx, annaID, "exports"); err != nil {
		t.Errorf("one's own bucket again: %v", err)
	}
	if err := w.MakeBucket(ctx, bertID, "exports"); !errors.Is(err, ErrExists) {
		t.Errorf("another's bucket: %v, want ErrExists", err)
	}
	for account, want := range map[string]bool{annaID: true, bertID: false} {
		if got, err := w.Writable(ctx, account, "exports"); err != nil || got != want {
			t.Errorf("Writable by %s: %v, %v; want %v", account, got, err, want)
		}
	}
	if _, err := w.Writable(ctx, annaID, "nowhere"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Writable of no bucket: %v", err)
	}
	for _, key := range []string{"a/one", "a/two", "b"} {
		if err := w.Put(ctx, "exports", key, "aws-exec-read", strings.NewReader("bytes"), 5); err != nil {
			t.Fatal(err)
		}
	}
	if keys, err := w.Keys(ctx, "exports", "a/", 10); err != nil || !slices.Equal(keys, []string{"a/one", "a/two"}) {
		t.Errorf("Keys: %q, %v", keys, err)
	}
	if may, err := w.Readable(ctx, bertID, "exports", "b"); err != nil || !may {
		t.Errorf("the canned ACL is lost: %v, %v", may, err)
	}
	body, size, err := w.Open(ctx, "exports", "b")
	if err != nil || size != 5 {
		t.Fatalf("Open: %d bytes, %v", size, err)
	}
	defer body.Close()
	if got, err := io.ReadAll(body); string(got) != "bytes" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
	for _, size := range []int64{4, 6} {
		if err := w.Put(ctx, "exports", "c", "", strings.NewReader("bytes"), size); err == nil {
			t.Errorf("5 bytes were stored as %d", size)
		}
		if _, err := w.Stat(ctx, "exports", "c"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("something of a broken write is there: %v", err)
		}
	}
}

// TestWritesThatMustNotBe: names that lead out of a bucket, buckets that aren't
// there, and what isn't a bucket's name.
func TestWritesThatMustNotBe(t *testing.T) {
	w := start(t, t.TempDir()).Walrus
	ctx := t.Context()
	for _, bucket := range []string{"exports", "others"} {
		if err := w.MakeBucket(ctx, annaID, bucket); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"", "../others/key", "a/../../others/key", "..", "a/..", strings.Repeat("k", 1025)} {
		if err := w.Put(ctx, "exports", key, "private", strings.NewReader("x"), 1); err == nil {
			t.Errorf("there is an object %q", key)
		}
		if err := w.Delete(ctx, "exports", key); err == nil {
			t.Errorf("%q can be deleted", key)
		}
	}
	if keys, err := w.Keys(ctx, "others", "", 10); err != nil || len(keys) != 0 {
		t.Errorf("others holds %q, %v", keys, err)
	}
	if err := w.Put(ctx, "nowhere", "key", "private", strings.NewReader("x"), 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Put into no bucket: %v", err)
	}
	if err := w.Delete(ctx, "nowhere", "key"); err != nil {
		t.Errorf("Delete in no bucket: %v", err)
	}
	if _, err := w.Keys(ctx, "nowhere", "", 10); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Keys of no bucket: %v", err)
	}
	for _, name := range []string{"", "..", "../exports", "A", "x/y"} {
		if err := w.MakeBucket(ctx, annaID, name); err == nil {
			t.Errorf("there is a bucket %q", name)
		}
		if _, err := w.Writable(ctx, annaID, name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Writable of %q: %v", name, err)
		}
		if _, err := w.Keys(ctx, name, "", 10); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Keys of %q: %v", name, err)
		}
	}
}

// TestWritableByGrant: an account may write where it is granted to, and nowhere
// else; a bucket that is granted is not its own.
func TestWritableByGrant(t *testing.T) {
	c := start(t, t.TempDir())
	for bucket, grant := range map[string]string{"written": "WRITE", "full": "FULL_CONTROL", "read": "READ"} {
		grantee := aws.String("id=" + bertID)
		in := &s3.CreateBucketInput{Bucket: aws.String(bucket), ObjectOwnership: types.ObjectOwnershipBucketOwnerPreferred}
		switch grant {
		case "WRITE":
			in.GrantWrite = grantee
		case "FULL_CONTROL":
			in.GrantFullControl = grantee
		case "READ":
			in.GrantRead = grantee
		}
		if _, err := c.anna().CreateBucket(t.Context(), in); err != nil {
			t.Fatal(err)
		}
		if may, err := c.Writable(t.Context(), bertID, bucket); err != nil || may != (grant != "READ") {
			t.Errorf("%s: writable %v, %v", grant, may, err)
		}
		if err := c.MakeBucket(t.Context(), bertID, bucket); !errors.Is(err, ErrExists) {
			t.Errorf("%s makes the bucket one's own: %v", grant, err)
		}
	}
}

// TestReplacing an object replaces its ACL too: nobody sees the new bytes by the
// old one's.
func TestReplacing(t *testing.T) {
	c := start(t, t.TempDir())
	c.bucketWithACLs(c.anna(), "bucket")
	for acl, want := range map[string]bool{"public-read": true, "private": false} {
		for _, first := range []string{"public-read", "private"} {
			for _, put := range []string{first, acl} {
				if err := c.Put(t.Context(), "bucket", "key", put, strings.NewReader("x"), 1); err != nil {
					t.Fatal(err)
				}
			}
			wantGranted(t, c, bertID, want)
		}
	}
}
