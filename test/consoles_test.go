package test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"image/png"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"mallee/test/cloud"
)

// TestScreenshot: the screen is a picture, and shows what the guest writes to it.
func TestScreenshot(t *testing.T) {
	w, g := theGuests(t)
	guest := login(t, w.Cloud, g.pv[0], g.key)
	lit := func() (n int) {
		t.Helper()
		out, err := w.ec2(t).GetConsoleScreenshot(within(t, soon), &ec2.GetConsoleScreenshotInput{InstanceId: g.pv[0].InstanceId, WakeUp: aws.Bool(true)})
		if err != nil {
			t.Fatal(err)
		}
		picture, err := png.Decode(base64.NewDecoder(base64.StdEncoding, strings.NewReader(aws.ToString(out.ImageData))))
		if err != nil {
			t.Fatalf("the screen is no picture: %v", err)
		}
		for y := range picture.Bounds().Dy() {
			for x := range picture.Bounds().Dx() {
				if r, g, b, _ := picture.At(x, y).RGBA(); r+g+b > 0 {
					n++
				}
			}
		}
		return n
	}
	dark := lit()
	in(t, guest, "for n in 1 2 3 4 5 6 7 8; do echo MMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMM; done >/dev/tty0")
	err := cloud.Poll(within(t, soon), "the text to be on the screen", func() error {
		if now := lit(); now <= dark+1000 {
			return fmt.Errorf("%d points of the screen are lit, and %d were", now, dark)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestPassword of an instance that does what Windows does.
func TestPassword(t *testing.T) {
	w := theWorld(t)
	images, err := w.ec2(t).DescribeImages(within(t, soon), &ec2.DescribeImagesInput{ImageIds: []string{w.hvm}})
	if err != nil {
		t.Fatal(err)
	}
	e := eucaOf(t, w.Cloud)
	image := one(t, e.records(t, "euca-register", *images.Images[0].ImageLocation, "--name", "windows-test", "--platform", "windows"), "IMAGE")[1]
	t.Cleanup(func() { e.records(t, "euca-deregister", image) })
	key := newKey(t, w.Cloud, "windows-test", types.KeyTypeRsa)
	i := run(t, w.Cloud, &ec2.RunInstancesInput{ImageId: &image, KeyName: aws.String("windows-test")}).Instances[0]
	guest := login(t, w.Cloud, await(t, w.Cloud, types.InstanceStateNameRunning, *i.InstanceId)[0], key)
	keyFile := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(keyFile, []byte(key), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, said, status := e.run(t, "euca-get-password", *i.InstanceId, "-k", keyFile); status != 1 || !strings.Contains(said, "no password yet") {
		t.Errorf("before there is one: %d, %s", status, said)
	}
	const password = "correct horse, battery & staple"
	runAgent(t, guest, password)
	err = cloud.Poll(within(t, soon), "the password", func() error {
		out, said, _ := e.run(t, "euca-get-password", *i.InstanceId, "-k", keyFile)
		if out != password+"\n" {
			return fmt.Errorf("euca-get-password says %q, %s", out, said)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	out, err := w.ec2(t).GetPasswordData(within(t, soon), &ec2.GetPasswordDataInput{InstanceId: i.InstanceId})
	if err != nil {
		t.Fatal(err)
	}
	if data, _, _ := e.run(t, "euca-get-password-data", *i.InstanceId); data != aws.ToString(out.PasswordData)+"\n" || len(data) < 300 {
		t.Errorf("the password's data is %q, and euca-get-password-data says %q", aws.ToString(out.PasswordData), data)
	}
}

// runAgent in the guest, which has nothing that encrypts.
func runAgent(t *testing.T, guest *cloud.Guest, password string) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "agent")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "./agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the agent: %v: %s", err, out)
	}
	binary, err := os.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer binary.Close()
	s, err := guest.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.Stdin = binary
	if out, err := s.CombinedOutput("cat >/tmp/agent && chmod 755 /tmp/agent && /tmp/agent '" + password + "'"); err != nil {
		t.Fatalf("run the agent: %v: %s", err, out)
	}
}

// TestMetadataOptions are heard of by a guest that runs.
func TestMetadataOptions(t *testing.T) {
	w, g := theGuests(t)
	i := g.hvm[1]
	guest := login(t, w.Cloud, i, g.key)
	change := func(in ec2.ModifyInstanceMetadataOptionsInput) {
		t.Helper()
		in.InstanceId = i.InstanceId
		if _, err := w.ec2(t).ModifyInstanceMetadataOptions(within(t, soon), &in); err != nil {
			t.Fatal(err)
		}
	}
	told := func(path, want string) {
		t.Helper()
		err := cloud.Poll(within(t, soon), path, func() error {
			got, err := guest.Run(within(t, soon), "wget -q -O - "+metadata+path+" || echo nothing")
			if err == nil && strings.TrimSpace(got) != want {
				err = fmt.Errorf("%s is %q, want %q", path, got, want)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	change(ec2.ModifyInstanceMetadataOptionsInput{HttpEndpoint: types.InstanceMetadataEndpointStateDisabled})
	told("meta-data/instance-id", "nothing")
	change(ec2.ModifyInstanceMetadataOptionsInput{HttpEndpoint: types.InstanceMetadataEndpointStateEnabled, InstanceMetadataTags: types.InstanceMetadataTagsStateEnabled})
	told("meta-data/instance-id", *i.InstanceId)
	if _, err := w.ec2(t).CreateTags(within(t, soon), &ec2.CreateTagsInput{Resources: []string{*i.InstanceId}, Tags: []types.Tag{{Key: aws.String("told"), Value: aws.String("yes")}}}); err != nil {
		t.Fatal(err)
	}
	told("meta-data/tags/instance/told", "yes")
	change(ec2.ModifyInstanceMetadataOptionsInput{InstanceMetadataTags: types.InstanceMetadataTagsStateDisabled})
	told("meta-data/tags/instance", "nothing")
}

// TestMalleeSSH runs a command in an instance that is named by its id alone.
func TestMalleeSSH(t *testing.T) {
	w, g := theGuests(t)
	if _, err := exec.LookPath("ssh"); err != nil {
		t.Skip("ssh is not here (apt-get install openssh-client)")
	}
	id := *g.pv[0].InstanceId
	login(t, w.Cloud, g.pv[0], g.key)
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte(g.key), 0o600); err != nil {
		t.Fatal(err)
	}
	ssh := func(command string) (string, error) {
		cmd := exec.CommandContext(within(t, time.Minute), w.Binary, "ssh", "--data", w.Dir, "-i", key, id, "--", command)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := ssh("wget -q -O - " + metadata + "meta-data/instance-id"); err != nil || strings.TrimSpace(out) != id {
		t.Errorf("mallee ssh says %q, %v", out, err)
	}
	known, err := os.ReadFile(w.Path("known_hosts", id))
	if err != nil || !strings.HasPrefix(string(known), id+" ") {
		t.Errorf("of its host keys is known: %q, %v", known, err)
	}
	if err := os.WriteFile(w.Path("known_hosts", id), []byte(id+" ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.WriteFile(w.Path("known_hosts", id), known, 0o600)
	if out, err := ssh("true"); err == nil || !strings.Contains(out, "verification failed") {
		t.Errorf("a host with another key is let pass: %q, %v", out, err)
	}
}

// TestMalleeConsole: several sit at a console, and see what the guest says; it hears
// what one of them types.
func TestMalleeConsole(t *testing.T) {
	w, g := theGuests(t)
	guest := login(t, w.Cloud, g.pv[1], g.key)
	one, two := sitAt(t, w.Cloud, *g.pv[1].InstanceId), sitAt(t, w.Cloud, *g.pv[1].InstanceId)
	in(t, guest, "echo said to all >/dev/ttyS0")
	one.sees(t, "said to all")
	two.sees(t, "said to all")
	in(t, guest, "(head -n 1 /dev/ttyS0 >/tmp/typed 2>&1 </dev/null &) >/dev/null 2>&1")
	io.WriteString(one.keys, "typed by one\r")
	two.sees(t, "typed by one") // the line's echo
	err := cloud.Poll(within(t, soon), "the guest to hear", func() error {
		if heard := in(t, guest, "cat /tmp/typed"); !strings.Contains(heard, "typed by one") {
			return fmt.Errorf("the guest has heard %q", heard)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	for _, s := range []*sitting{one, two} {
		io.WriteString(s.keys, "\x1d")
		if err := <-s.ended; err != nil {
			t.Errorf("mallee console ends with %v", err)
		}
	}
}

// sitting is a mallee console that runs.
type sitting struct {
	keys  io.WriteCloser
	ended chan error

	mu    sync.Mutex
	shown bytes.Buffer // guarded by mu
}

func (s *sitting) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shown.Write(p)
}

func (s *sitting) sees(t *testing.T, text string) {
	t.Helper()
	err := cloud.Poll(within(t, soon), "the console to show "+text, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !strings.Contains(s.shown.String(), text) {
			return errors.New("it shows " + s.shown.String())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func sitAt(t *testing.T, c *cloud.Cloud, id string) *sitting {
	t.Helper()
	s := &sitting{ended: make(chan error, 1)}
	cmd := exec.CommandContext(within(t, 2*time.Minute), c.Binary, "console", "--data", c.Dir, id)
	cmd.Stdout, cmd.Stderr = s, s
	var err error
	if s.keys, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.ended <- cmd.Wait() }()
	return s
}
