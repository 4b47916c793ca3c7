package image

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// inside runs a shell script in a sandbox with a file to read and one to write.
func inside(t *testing.T, limits Limits, plain bool, script string) (string, error) {
	t.Helper()
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	for _, name := range []string{in, out} {
		if err := os.WriteFile(name, []byte("content\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s := sandbox{tool: "/bin/sh", args: []string{"-c", script, "sh", inName, outName, dir}, in: in, out: out, limits: limits, stdout: &stdout, plain: plain}
	err := s.run(ctx)
	if data, readErr := os.ReadFile(in); readErr != nil || string(data) != "content\n" {
		t.Errorf("the input became %q, %v", data, readErr)
	}
	return stdout.String(), err
}

// each runs the test in a full sandbox, and in what is left of it where the host forbids namespaces.
func each(t *testing.T, f func(t *testing.T, plain bool)) {
	t.Run("namespaces", func(t *testing.T) {
		if !namespaces(t.Context()) {
			t.Skip("this host has no user namespaces for us")
		}
		f(t, false)
	})
	t.Run("landlock", func(t *testing.T) {
		if landlockVersion() == 0 {
			t.Skip("this kernel has no Landlock")
		}
		f(t, true)
	})
}

func TestSandboxDoesTheJob(t *testing.T) {
	t.Setenv("MALLEE_SECRET", "x")
	each(t, func(t *testing.T, plain bool) {
		out, err := inside(t, small, plain, `read a < "$1" && echo "$a $a" > "$2" && read b < "$2" && echo "$b"; env`)
		if err != nil || !strings.HasPrefix(out, "content content\n") {
			t.Fatalf("%q, %v", out, err)
		}
		if strings.Contains(out, "\nMALLEE_SECRET") {
			t.Errorf("the environment came along: %q", out)
		}
	})
}

// A program that was taken over by the image that it reads finds nothing and changes nothing.
func TestSandboxHidesTheHost(t *testing.T) {
	attempts := map[string]string{
		"/etc/passwd":       `read a < /etc/passwd`,
		"a neighbour":       `read a < "$3/secret"`,
		"writing its input": `echo x > "$1"`,
		"a new file":        `echo x > /tmp/mallee-sandbox-test`,
		"a new file beside": `echo x > "$3/new"`,
		"/usr":              `echo x > /usr/mallee-sandbox-test`,
		"our memory":        `read a < /proc/$PPID/environ`,
		"a folder's names":  `ls "$3"/*`,
	}
	each(t, func(t *testing.T, plain bool) {
		for what, script := range attempts {
			if out, err := inside(t, small, plain, script); err == nil {
				t.Errorf("%s was reached: %q", what, out)
			}
		}
	})
}

func TestSandboxLimits(t *testing.T) {
	limits := Limits{VirtualSize: 1 << 20, Memory: 64 << 20, CPU: time.Second}
	tests := []struct{ name, script, want string }{
		{"processor time", `while :; do :; done`, "processor time"},
		{"file size", `exec dd if="$1" of="$2" bs=1M seek=200`, "file"},
		{"memory", `exec dd if="$1" bs=512M count=1`, "memory"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := inside(t, limits, false, test.script)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want a word about %s", err, test.want)
			}
		})
	}
}

func TestSandboxIsCancelledWithItsChildren(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	started := make(chan struct{})
	w := writerFunc(func(b []byte) (int, error) {
		close(started)
		return len(b), nil
	})
	go func() {
		<-started
		cancel(errors.New("nobody wants it any more"))
	}()
	s := sandbox{tool: "/bin/sh", args: []string{"-c", "echo; sleep 100 & wait"}, limits: small, stdout: w}
	begun := time.Now()
	err := s.run(ctx)
	if err == nil || !strings.Contains(err.Error(), "nobody wants it") || time.Since(begun) > 4*time.Second {
		t.Errorf("%v after %s", err, time.Since(begun)) // a child that lives on would keep the pipe open
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func TestSandboxOfAMissingTool(t *testing.T) {
	err := sandbox{tool: "/usr/bin/no-such-tool", limits: small}.run(t.Context())
	var said *toolError
	if !errors.As(err, &said) || said.exit() != 126 || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("%v", err)
	}
}

func TestConfinement(t *testing.T) {
	if got := Confinement(t.Context()); !strings.HasSuffix(got, "resource limits") || namespaces(t.Context()) != strings.Contains(got, "namespaces") {
		t.Errorf("%q", got)
	}
}

// A crash is the image's doing; being killed isn't.
func TestSandboxSaysWhatFellOver(t *testing.T) {
	_, err := inside(t, small, false, `kill -SEGV $$`)
	refused(t, err, "fell over it")
	_, err = inside(t, small, false, `kill -KILL $$`)
	var bad *BadImageError
	if err == nil || errors.As(err, &bad) {
		t.Errorf("killed from outside: %v", err)
	}
}
