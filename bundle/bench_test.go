package bundle

import (
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const benchSize = 256 << 20

// benchImage is much like a disk: a third programs and texts, the rest empty. What Go is installed from serves as the content.
func benchImage(b *testing.B, dir string) string {
	b.Helper()
	path := filepath.Join(dir, "image")
	image, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer image.Close()
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		b.Skip("no go command to find some files with")
	}
	full := int64(0)
	for _, sub := range []string{"bin", "src"} {
		err := filepath.WalkDir(filepath.Join(strings.TrimSpace(string(goroot)), sub), func(name string, entry fs.DirEntry, err error) error {
			if err != nil || full > benchSize/3 || !entry.Type().IsRegular() {
				return err
			}
			file, err := os.Open(name)
			if err != nil {
				return err
			}
			defer file.Close()
			n, err := io.Copy(image, io.LimitReader(file, benchSize/3))
			full += n
			return err
		})
		if err != nil {
			b.Skipf("no content for an image: %v", err)
		}
	}
	if err := image.Truncate(benchSize); err != nil {
		b.Fatal(err)
	}
	return path
}

func seconds(b *testing.B, do func() error) float64 {
	b.Helper()
	start := time.Now()
	if err := do(); err != nil {
		b.Fatal(err)
	}
	return time.Since(start).Seconds()
}

func shell(script, dir string) func() error {
	return func() error {
		cmd := exec.Command("sh", "-c", script)
		cmd.Dir = dir
		return cmd.Run()
	}
}

// BenchmarkBundle compares Write to the shell's pipeline that does the same, each to and from files, by turns. The figure is
// xshell: how many times as fast as the shell; the goal is 0.9.
func BenchmarkBundle(b *testing.B) {
	tools(b, "tar", "gzip", "openssl", "tee", "sha1sum", "split")
	dir := b.TempDir()
	path := benchImage(b, dir)
	b.SetBytes(benchSize)
	var ours, theirs float64
	for b.Loop() {
		ours += seconds(b, func() error {
			image, err := os.Open(path)
			if err != nil {
				return err
			}
			defer image.Close()
			_, _, err = WriteDir(b.Context(), filepath.Join(dir, "ours"), image, benchSize, testOptionsOf(DefaultPartSize))
			return err
		})
		b.StopTimer()
		theirs += seconds(b, shell(`mkdir -p theirs; tar -cf - image | gzip -1 |
openssl enc -aes-128-cbc -K 30313233343536373839616263646566 -iv 66656463626139383736353433323130 |
tee theirs/encrypted | sha1sum >theirs/sum`, dir))
		b.StartTimer()
	}
	b.ReportMetric(theirs/ours, "xshell")
}

// BenchmarkUnpack compares Unpack to openssl | gzip | tar.
func BenchmarkUnpack(b *testing.B) {
	tools(b, "tar", "gzip", "openssl")
	dir := b.TempDir()
	image, err := os.Open(benchImage(b, dir))
	if err != nil {
		b.Fatal(err)
	}
	defer image.Close()
	m, _, err := WriteDir(b.Context(), filepath.Join(dir, "bundle"), image, benchSize, testOptionsOf(DefaultPartSize))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(benchSize)
	var ours, theirs float64
	for b.Loop() {
		ours += seconds(b, func() error {
			dst, err := os.Create(filepath.Join(dir, "unpacked"))
			if err != nil {
				return err
			}
			defer dst.Close()
			return UnpackDir(b.Context(), m, filepath.Join(dir, "bundle"), testKey, testIV, dst, nil)
		})
		b.StopTimer()
		theirs += seconds(b, shell(`cat bundle/img.part.* |
openssl enc -d -aes-128-cbc -K 30313233343536373839616263646566 -iv 66656463626139383736353433323130 |
gzip -dc | tar -xOf - >unpacked`, dir))
		b.StartTimer()
	}
	b.ReportMetric(theirs/ours, "xshell")
}

func testOptionsOf(partSize int64) Options {
	options := testOptions()
	options.PartSize = partSize
	return options
}
