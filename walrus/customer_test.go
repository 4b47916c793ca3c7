package walrus

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"os"
	"path/filepath"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// What is put with a key of the customer's own doesn't lie on the disk as it came, and
// neither does the key.
func TestCustomerKeyAtRest(t *testing.T) {
	dir := t.TempDir()
	c := start(t, dir)
	c.bucket(c.anna(), "bucket")
	key, body := "0123456789abcdef0123456789abcdef", bytes.Repeat([]byte("plain as can be "), 64<<10)
	_, err := c.anna().PutObject(t.Context(), &s3.PutObjectInput{
		Bucket: aws.String("bucket"), Key: aws.String("key"), Body: bytes.NewReader(body),
		SSECustomerAlgorithm: aws.String("AES256"), SSECustomerKey: aws.String("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="),
		SSECustomerKeyMD5: aws.String(md5Of(key)),
	})
	if err != nil {
		t.Fatal(err)
	}
	stored, err := os.ReadFile(filepath.Join(dir, "bucket", "key"))
	if err != nil || len(stored) != len(body) || bytes.Contains(stored, []byte("plain as can be")) {
		t.Errorf("stored %d bytes, %.32q…, %v; want %d that tell nothing", len(stored), stored, err, len(body))
	}
	if _, _, err := c.Open(t.Context(), "bucket", "key"); err == nil {
		t.Error("the cloud reads the object without its key")
	}
}

// The stream from the middle is the middle of the stream, over the carry too.
func TestStreamFromTheMiddle(t *testing.T) {
	k := customerKey{key: bytes.Repeat([]byte{7}, 32)}
	nonce := bytes.Repeat([]byte{0xff}, nonceSize)
	whole := make([]byte, 1000)
	stream, err := k.stream(nonce, 0)
	if err != nil {
		t.Fatal(err)
	}
	stream.XORKeyStream(whole, whole)
	for _, offset := range []int64{0, 1, 15, 16, 17, 500} {
		part := make([]byte, 100)
		stream, err := k.stream(nonce, offset)
		if err != nil {
			t.Fatal(err)
		}
		stream.XORKeyStream(part, part)
		if !bytes.Equal(part, whole[offset:offset+100]) {
			t.Errorf("the stream from %d on differs", offset)
		}
	}
}

func md5Of(key string) string {
	sum := md5.Sum([]byte(key))
	return base64.StdEncoding.EncodeToString(sum[:])
}
