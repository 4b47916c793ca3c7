package sigv4

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"mallee/wire"
)

// The files are what botocore 1.43 sent over a socket, byte by byte, with testKey and
// the session that keys knows: the AWS CLI and boto3 sign so.
func TestVerifyWhatBotocoreSent(t *testing.T) {
	for file, action := range map[string]string{
		"botocore-run-instances":      "RunInstances",
		"botocore-describe-instances": "DescribeInstances", // of a session, and a path that ends in a slash
		"botocore-create-user":        "CreateUser",
		"botocore-presigned":          "DescribeImages",
	} {
		text, err := os.ReadFile(filepath.Join("testdata", file+".http"))
		if err != nil {
			t.Fatal(err)
		}
		r, body, err := read(text)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		id, err := Verify(r, body, keys, time.Date(2026, 11, 22, 6, 49, 0, 0, time.UTC), allow)
		if err != nil || id.Region != "mallee" {
			t.Errorf("%s: %+v, %v", file, id, err)
		}
		form, err := wire.Parse(r, body)
		if err != nil || form.Get("Action") != action {
			t.Errorf("%s: %q, %v", file, form, err)
		}
	}
}
