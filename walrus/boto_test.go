package walrus

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// S3's answers as boto3 sees them; testdata/s3.py has what is asked.
func TestBoto(t *testing.T) {
	if out, err := exec.CommandContext(t.Context(), "python3", "-c", "import boto3").CombinedOutput(); err != nil {
		t.Skipf("python3 with boto3 is not there (Debian: python3-boto3): %s", out)
	}
	script, err := filepath.Abs("testdata/s3.py") // the working directory is the store's from start on
	if err != nil {
		t.Fatal(err)
	}
	c := start(t, t.TempDir())
	out, err := exec.CommandContext(t.Context(), "python3", script, c.url).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s\n%s", err, out, c.log)
	}
}
