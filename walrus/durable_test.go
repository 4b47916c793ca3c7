package walrus

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// ledger notes what was forced to the disk, relative to the store's folder.
type ledger struct {
	root  string
	mu    sync.Mutex // guards names
	names []string
}

func (l *ledger) fsync(f *os.File) error {
	err := f.Sync()
	l.mu.Lock()
	defer l.mu.Unlock()
	name, _ := filepath.Rel(l.root, f.Name())
	l.names = append(l.names, name)
	return err
}

// take returns what was forced since the last take.
func (l *ledger) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	names := l.names
	l.names = nil
	return names
}

// Every change is on the disk, with all the folders it needs, when its answer
// arrives.
func TestAnswersComeAfterTheDisk(t *testing.T) {
	dir := t.TempDir()
	c := start(t, dir)
	l := &ledger{root: dir}
	c.store.disk.fsync = l.fsync
	s, bucket := c.anna(), aws.String("bucket")
	want := func(did string, names ...string) {
		t.Helper()
		if got := l.take(); !slices.Equal(got, names) {
			t.Errorf("%s forced %q, want %q", did, got, names)
		}
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	c.bucket(s, "bucket")
	want("create bucket", "bucket", ".")
	c.put(s, "bucket", "a/b/key", "1")
	want("put into new folders", "bucket/a/b/key", "bucket/a/b", "bucket/a", "bucket", ".")
	c.put(s, "bucket", "a/b/other", "1")
	want("put into known folders", "bucket/a/b/other", "bucket/a/b")
	c.put(s, "bucket", "a/b/key", "2")
	want("overwrite", "bucket/a/b/key", "bucket/a/b")
	_, err := s.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: bucket, Key: aws.String("copy"), CopySource: aws.String("bucket/a/b/key")})
	check(err)
	want("copy", "bucket/copy", "bucket")
	_, err = s.PutObjectTagging(t.Context(), &s3.PutObjectTaggingInput{Bucket: bucket, Key: aws.String("copy"), Tagging: &types.Tagging{TagSet: []types.Tag{{Key: aws.String("k"), Value: aws.String("v")}}}})
	check(err)
	want("tag", "bucket/copy", "bucket")
	_, err = s.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: bucket, Key: aws.String("a/b/key")})
	check(err)
	want("delete", "bucket/a/b")
	_, err = s.DeleteObjects(t.Context(), &s3.DeleteObjectsInput{Bucket: bucket, Delete: &types.Delete{Objects: []types.ObjectIdentifier{{Key: aws.String("a/b/other")}}}})
	check(err)
	want("delete the folders' last", "bucket")
	c.put(s, "bucket", "a/b/key", "1")
	want("put into folders made again", "bucket/a/b/key", "bucket/a/b", "bucket/a", "bucket")
	c.upload(s, "bucket", "big", [][]byte{make([]byte, 5<<20), []byte("x")}, "")
	if got := l.take(); !slices.Equal(got[len(got)-2:], []string{"bucket/big", "bucket"}) {
		t.Errorf("complete upload forced %q last", got)
	}
	for _, key := range []string{"a/b/key", "copy", "big"} {
		check(c.Delete(t.Context(), "bucket", key))
	}
	l.take()
	_, err = s.DeleteBucket(t.Context(), &s3.DeleteBucketInput{Bucket: bucket})
	check(err)
	want("delete bucket", ".")
}

// A full disk is an S3 error, and what was there stays.
func TestDiskFails(t *testing.T) {
	dir := t.TempDir()
	c := start(t, dir)
	c.bucket(c.anna(), "bucket")
	c.store.disk.fsync = func(*os.File) error { return fmt.Errorf("no more: %w", os.ErrInvalid) }
	_, err := c.anna().PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: aws.String("key"), Body: strings.NewReader("x")})
	wantCode(t, err, "InternalError")
	if !strings.Contains(c.log.String(), "PutObject") {
		t.Errorf("the log doesn't say what failed: %q", c.log)
	}
}

// What a crash leaves staged is gone after the next start; an upload that was
// being completed can be completed.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	c := start(t, dir)
	s, bucket, key := c.anna(), aws.String("bucket"), aws.String("key")
	c.bucket(s, "bucket")
	up, err := s.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: bucket, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	part, err := s.UploadPart(t.Context(), &s3.UploadPartInput{Bucket: bucket, Key: key, UploadId: up.UploadId, PartNumber: aws.Int32(1), Body: strings.NewReader("body")})
	if err != nil {
		t.Fatal(err)
	}
	c.stop()
	upload := filepath.Join(dir, "bucket", uploadFolder("key", *up.UploadId))
	for _, staged := range []string{filepath.Join(dir, "bucket/.sgwtmp/abc.123"), filepath.Dir(upload) + "/def.456"} {
		if err := os.WriteFile(staged, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(upload, upload+".0123-1"+inProgress); err != nil {
		t.Fatal(err)
	}
	c = start(t, dir)
	c.wantOnly(dir, strings.TrimPrefix(upload, dir+"/")+"/1")
	_, err = c.anna().CompleteMultipartUpload(t.Context(), &s3.CompleteMultipartUploadInput{
		Bucket: bucket, Key: key, UploadId: up.UploadId,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: []types.CompletedPart{{PartNumber: aws.Int32(1), ETag: part.ETag}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.get(c.anna(), "bucket", "key")
	wantBody(t, got, err, "body")
	c.wantOnly(dir, "bucket/key")
}

// childDir tells the test binary to be a Walrus on a port of its own.
const childDir = "MALLEE_TEST_WALRUS_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := serveChild(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func serveChild(dir string) error {
	w, err := Open(Options{Dir: dir, Identity: testKeys()})
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(ln.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // the parent is gone
		os.Exit(1)
	}()
	return w.Serve(ln)
}

// child starts a Walrus in a process of its own, perhaps under another command.
func child(t *testing.T, dir string, under ...string) (*exec.Cmd, string) {
	t.Helper()
	argv := append(under, os.Args[0])
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	cmd.Stderr = os.Stderr
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the child didn't start: %v", err)
	}
	return cmd, "http://" + strings.TrimSpace(line)
}

// After kill -9 in the middle of writing, every acknowledged object is whole
// and nothing else is visible.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	cmd, url := child(t, dir)
	s := clientAt(url, "AKIANNA", "anna-secret")
	if _, err := s.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("bucket")}); err != nil {
		t.Fatal(err)
	}
	body := strings.Repeat("0123456789", 20_000)
	acknowledged := make(chan string, 1024)
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := 0; ; i++ {
				key := fmt.Sprintf("%d/%d", w, i)
				_, err := s.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: &key, Body: strings.NewReader(key + body)})
				if err != nil {
					return
				}
				acknowledged <- key
			}
		})
	}
	var keys []string
	for range 40 {
		keys = append(keys, <-acknowledged)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	go func() { writers.Wait(); close(acknowledged) }()
	for key := range acknowledged {
		keys = append(keys, key)
	}
	c := start(t, dir)
	for _, key := range keys {
		got, err := c.get(c.anna(), "bucket", key)
		wantBody(t, got, err, key+body)
	}
	list, err := c.anna().ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String("bucket")})
	if err != nil || len(list.Contents) > len(keys)+4 {
		t.Errorf("%d objects are visible, %v; %d were acknowledged", len(list.Contents), err, len(keys))
	}
	for _, o := range list.Contents {
		got, err := c.get(c.anna(), "bucket", *o.Key)
		wantBody(t, got, err, *o.Key+body)
	}
}

// The kernel's own view: between the rename that publishes an object and the
// answer, the file and its folder are forced.
func TestSystemCalls(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("no strace here")
	}
	dir, log := t.TempDir(), filepath.Join(t.TempDir(), "log")
	if out, err := exec.Command(strace, "-o", os.DevNull, "true").CombinedOutput(); err != nil {
		t.Skipf("strace can't trace here: %s", out)
	}
	cmd, url := child(t, dir, strace, "-f", "-y", "-s", "64", "-o", log, "-e", "trace=renameat,renameat2,rename,fsync,sync_file_range,write,sendto")
	s := clientAt(url, "AKIANNA", "anna-secret")
	if _, err := s.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("bucket")}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("bucket"), Key: aws.String("a/key"), Body: strings.NewReader("body")}); err != nil {
		t.Fatal(err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	calls, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	rest := string(calls)
	for _, step := range []string{
		"sync_file_range(", "bucket/a/key\"", "fsync(", "/bucket/a/key>", "fsync(", "/bucket/a>", "HTTP/1.1 200 OK",
	} {
		before, after, found := strings.Cut(rest, step)
		if !found {
			t.Fatalf("no %q after the steps before it in\n%s", step, calls)
		}
		_, rest = before, after
	}
}
