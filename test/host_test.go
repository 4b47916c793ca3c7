package test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"
	"golang.org/x/sys/unix"

	"mallee/test/cloud"
	"mallee/test/emi"
)

// Hosts that can't do what is asked of them. A launch there ends in words that
// say what is wrong, leaves nothing, and the cloud goes on: when the host is
// mended, the next launch works. Each test has a cloud of its own, and so they
// run at once, after all others.

// TestBrokenQEMU: it is missing, dies at once, or is killed as it starts.
func TestBrokenQEMU(t *testing.T) {
	t.Parallel()
	c := cloudOfOwn(t)
	whole := c.Env
	if _, err := c.Up(within(t, soon)); err != nil {
		t.Fatal(err)
	}
	image, err := installHello(within(t, soon), c)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, path string
		says       []string
	}{
		{"missing", withoutQEMU(t), []string{"QEMU", "apt-get install qemu-system-x86"}},
		{"dying", fakeQEMU(t, "echo 'the moon is in the way' >&2; exit 1") + ":" + os.Getenv("PATH"), []string{"the moon is in the way"}},
		{"killed", fakeQEMU(t, "kill -9 $$") + ":" + os.Getenv("PATH"), []string{"killed"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := c.Stop(within(t, soon)); err != nil {
				t.Fatal(err)
			}
			c.Env = append(withoutPath(whole), "PATH="+test.path)
			if _, err := c.Up(within(t, soon)); err != nil {
				t.Fatal(err)
			}
			launchFails(t, c, image, test.says...)
			if _, err := ec2Of(t, c).DescribeRegions(within(t, soon), &ec2.DescribeRegionsInput{}); err != nil {
				t.Errorf("the cloud after it: %v", err)
			}
		})
	}
	if err := c.Stop(within(t, soon)); err != nil {
		t.Fatal(err)
	}
	c.Env = whole
	if _, err := c.Up(within(t, soon)); err != nil {
		t.Fatal(err)
	}
	out := run(t, c, &ec2.RunInstancesInput{ImageId: &image})
	await(t, c, types.InstanceStateNameRunning, idsOf(out.Instances)...)
}

func withoutPath(env []string) (kept []string) {
	for _, v := range env {
		if !strings.HasPrefix(v, "PATH=") {
			kept = append(kept, v)
		}
	}
	return kept
}

// withoutQEMU is a folder of all programs that a cloud could want but QEMU.
func withoutQEMU(t *testing.T) string {
	dir := t.TempDir()
	for _, name := range []string{"mke2fs", "/usr/sbin/mke2fs", "/sbin/mke2fs"} {
		if path, err := exec.LookPath(name); err == nil {
			if err := os.Symlink(path, filepath.Join(dir, "mke2fs")); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	return dir
}

// fakeQEMU is a folder with a QEMU that does that.
func fakeQEMU(t *testing.T, script string) string {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "qemu-system-x86_64"), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestFullDisk in the middle of a launch: the image has no room to be unpacked.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	c := smallDiskCloud(t, "512m")
	if _, err := c.Up(within(t, soon)); err != nil {
		t.Fatal(err)
	}
	hello, err := installHello(within(t, soon), c)
	if err != nil {
		t.Fatal(err)
	}
	_, location := bundled(t, c, append(emi.Hello(helloLine, 64<<10), someBytes(64<<20)...), emi.Options{})
	large := registered(t, c, location)
	ballast(t, c, 40<<20)
	launchFails(t, c, large, "space")
	if err := c.HalfMade(); err != nil {
		t.Error(err)
	}
	if now := free(t, c); now < 30<<20 {
		t.Errorf("the failed launch keeps the disk full: %d bytes are free", now)
	}
	small := run(t, c, &ec2.RunInstancesInput{ImageId: &hello})
	await(t, c, types.InstanceStateNameRunning, idsOf(small.Instances)...)

	if err := os.Remove(c.Path("ballast")); err != nil {
		t.Fatal(err)
	}
	out := run(t, c, &ec2.RunInstancesInput{ImageId: &large})
	await(t, c, types.InstanceStateNameRunning, idsOf(out.Instances)...)
}

// TestNoSpaceAtAll: with not a byte left the cloud still answers, and with space
// again everything that it acknowledged meanwhile runs, or has ended in words.
func TestNoSpaceAtAll(t *testing.T) {
	t.Parallel()
	c := smallDiskCloud(t, "512m")
	if _, err := c.Up(within(t, soon)); err != nil {
		t.Fatal(err)
	}
	hello, err := installHello(within(t, soon), c)
	if err != nil {
		t.Fatal(err)
	}
	before := run(t, c, &ec2.RunInstancesInput{ImageId: &hello})
	await(t, c, types.InstanceStateNameRunning, idsOf(before.Instances)...)
	ballast(t, c, 0)
	ids := idsOf(before.Instances)
	for range 10 {
		out, err := ec2Of(t, c).RunInstances(within(t, soon), &ec2.RunInstancesInput{ImageId: &hello, MinCount: aws.Int32(1), MaxCount: aws.Int32(1)})
		var refusal smithy.APIError
		switch {
		case err == nil:
			ids = append(ids, idsOf(out.Instances)...)
		case !errors.As(err, &refusal):
			t.Fatalf("without space: %v", err)
		}
	}
	await(t, c, types.InstanceStateNameRunning, ids[0]) // as before
	if err := os.Remove(c.Path("ballast")); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		err := cloud.Poll(within(t, soon), id+" to run, or to have ended for a reason", func() error {
			now, err := describe(within(t, soon), c, id)
			switch {
			case err != nil:
				return err
			case now.State.Name == types.InstanceStateNameRunning, now.State.Name == types.InstanceStateNameTerminated && strings.Contains(reason(now), "space"):
				return nil
			}
			return fmt.Errorf("it is %s: %s", now.State.Name, reason(now))
		})
		if err != nil {
			t.Error(err)
		}
	}
	terminate(t, c, ids...)
}

// smallDiskCloud has a folder on a disk of that size. It is mounted in a
// namespace that goes with the processes in it, so that nothing is left however
// the test ends; in a user namespace where this isn't root.
func smallDiskCloud(t *testing.T, size string) *cloud.Cloud {
	t.Helper()
	c, err := cloud.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(c.Dir) })
	unshare, enter := []string{"unshare", "--mount"}, []string{"nsenter", "--mount"}
	if os.Geteuid() != 0 {
		unshare, enter = append(unshare, "--user", "--map-root-user"), append(enter, "--user", "--preserve-credentials")
	}
	holder := exec.Command(unshare[0], append(unshare[1:], "sh", "-c", "mount -t tmpfs -o mode=700,size="+size+" small "+c.Dir+" && echo mounted && exec cat")...)
	keep, err := holder.StdinPipe() // until this is closed
	if err != nil {
		t.Fatal(err)
	}
	said, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Skipf("a small disk needs unshare: %v", err)
	}
	t.Cleanup(func() { keep.Close(); holder.Wait() })
	if line, err := bufio.NewReader(said).ReadString('\n'); line != "mounted\n" {
		t.Skipf("a small disk needs root, or user namespaces: %q, %v", line, err)
	}
	pid := fmt.Sprint(holder.Process.Pid)
	c.Flags = []string{"--disk", "100"} // what is offered, however much there is
	c.Wrap = append(enter, "--target", pid, "--")
	c.SeenAt = "/proc/" + pid + "/root" + c.Dir
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the cloud's log ends with:\n%s", c.LogTail(30))
		}
		if _, err := c.Succeed(within(t, soon), "down"); err != nil {
			t.Error(err)
		}
		if left := qemus(t, c); len(left) > 0 {
			t.Errorf("mallee down left the machines %v", left)
		}
	})
	return c
}

// ballast leaves so many bytes free.
func ballast(t *testing.T, c *cloud.Cloud, leave int64) {
	t.Helper()
	f, err := os.Create(c.Path("ballast"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size := int64(0)
	for room := free(t, c) - leave; room > 0; room = free(t, c) - leave {
		switch err := unix.Fallocate(int(f.Fd()), 0, size, room); {
		case err == nil:
			size += room
		case !errors.Is(err, unix.ENOSPC): // else the cloud has taken some meanwhile
			t.Fatal(err)
		}
	}
}

func free(t *testing.T, c *cloud.Cloud) int64 {
	t.Helper()
	var fs unix.Statfs_t
	if err := unix.Statfs(c.Path(), &fs); err != nil {
		t.Fatal(err)
	}
	return int64(fs.Bavail) * fs.Bsize
}
