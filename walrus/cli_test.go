package walrus

import (
	"bytes"
	"context"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The AWS CLI as it comes, with one endpoint for all services and with
// Eucalyptus's path.
func TestAWSCommand(t *testing.T) {
	for _, c := range []struct{ program, prefix string }{
		{"/usr/bin/aws", ""}, // Debian's, where it is installed
		{"aws", "/services/objectstorage"},
	} {
		t.Run(c.program, func(t *testing.T) {
			if testing.Short() {
				t.Skip("seconds of Python")
			}
			program, err := exec.LookPath(c.program)
			if err != nil {
				t.Skipf("no %s here", c.program)
			}
			awsRoundTrip(t, program, c.prefix)
		})
	}
}

// commandLine runs the AWS CLI with anna's keys.
type commandLine struct {
	t                  *testing.T
	program, home, url string
}

func (c commandLine) run(args ...string) string {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.program, append([]string{"--endpoint-url", c.url}, args...)...)
	cmd.Dir = c.home
	cmd.Env = append(os.Environ(), "HOME="+c.home, "AWS_ACCESS_KEY_ID=AKIANNA", "AWS_SECRET_ACCESS_KEY=anna-secret",
		"AWS_DEFAULT_REGION=us-east-1", "AWS_EC2_METADATA_DISABLED=true", "AWS_MAX_ATTEMPTS=1", "AWS_PAGER=")
	out, err := cmd.CombinedOutput()
	if strings.Contains(string(out), "command not found") {
		c.t.Skipf("%s doesn't run here: %s", c.program, out)
	}
	if err != nil {
		c.t.Fatalf("aws %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func awsRoundTrip(t *testing.T, program, prefix string) {
	c := start(t, t.TempDir())
	home := t.TempDir()
	cli := commandLine{t, program, home, c.url + prefix}
	body := make([]byte, 20<<20) // more than one part
	rand.New(rand.NewSource(1)).Read(body)
	if err := os.WriteFile(filepath.Join(home, "big"), body, 0o600); err != nil {
		t.Fatal(err)
	}
	cli.run("s3", "mb", "s3://bucket")
	cli.run("s3", "cp", "--acl", "aws-exec-read", "big", "s3://bucket/images/big")
	cli.run("s3", "cp", "s3://bucket/images/big", "back")
	got, err := os.ReadFile(filepath.Join(home, "back"))
	if err != nil || !bytes.Equal(got, body) {
		t.Errorf("got %d other bytes back, %v", len(got), err)
	}
	if out := cli.run("s3", "ls", "--recursive", "s3://bucket"); !strings.Contains(out, "images/big") {
		t.Errorf("ls: %s", out)
	}
	if ok, err := c.Readable(t.Context(), bertID, "bucket", "images/big"); !ok || err != nil {
		t.Errorf("with aws-exec-read: readable %v, %v", ok, err)
	}
	cli.run("s3", "rb", "--force", "s3://bucket")
}
