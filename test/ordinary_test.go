package test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"mallee/test/cloud"
)

// TestOrdinaryUser has a cloud without privilege, from up to destroy: where the
// tests run as root it is nobody's.
func TestOrdinaryUser(t *testing.T) {
	t.Parallel()
	c := ordinaryCloud(t)
	if _, err := c.Up(within(t, soon)); err != nil {
		t.Fatal(err)
	}
	ids, err := c.Install(within(t, buildTime), "tiny-pv")
	if err != nil {
		t.Fatal(err)
	}
	key, err := ec2Of(t, c).CreateKeyPair(within(t, soon), &ec2.CreateKeyPairInput{KeyName: aws.String("mine"), KeyType: types.KeyTypeEd25519})
	if err != nil {
		t.Fatal(err)
	}
	out, err := ec2Of(t, c).RunInstances(within(t, soon), &ec2.RunInstancesInput{
		ImageId: &ids[2], KeyName: aws.String("mine"), MinCount: aws.Int32(1), MaxCount: aws.Int32(1),
	})
	if err != nil {
		t.Fatal(err)
	}
	i := out.Instances[0]
	guest := login(t, c, i, *key.KeyMaterial)
	if start, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); err == nil && strings.TrimSpace(string(start)) > "22" && guest.Port != "10022" {
		t.Errorf("without privilege SSH is at port %s, want 10022", guest.Port)
	}
	if id := in(t, guest, "wget -q -O - "+metadata+"meta-data/instance-id"); id != *i.InstanceId {
		t.Errorf("the guest is told that it is %q, not %s", id, *i.InstanceId)
	}
	pid := qemus(t, c)[*i.InstanceId]
	if info, err := os.Stat(filepath.Join("/proc", strconv.Itoa(pid))); err != nil || c.As != nil && info.Sys().(*syscall.Stat_t).Uid != c.As.Uid {
		t.Errorf("its QEMU runs as somebody else: %v, %v", info, err)
	}

	r, err := c.Succeed(within(t, soon), "down", "--destroy", "--yes")
	if err != nil {
		t.Fatal(r, err)
	}
	if err := c.Ended(within(t, soon)); err != nil {
		t.Error(err)
	}
	if left := qemus(t, c); len(left) > 0 {
		t.Errorf("mallee down --destroy --yes left the machines %v", left)
	}
	if _, err := os.Stat(c.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("mallee down --destroy --yes left %s (%v)", c.Dir, err)
	}
}

// ordinaryCloud is a cloud of nobody, or of who runs the tests if not root. It
// goes with the test, whatever becomes of it.
func ordinaryCloud(t *testing.T) *cloud.Cloud {
	t.Helper()
	if os.Geteuid() != 0 {
		c := cloudOfOwn(t)
		if err := shareCatalog(c); err != nil {
			t.Fatal(err)
		}
		return c
	}
	who, err := user.Lookup("nobody")
	if err != nil {
		t.Skipf("this is root, and there is no ordinary user to be: %v", err)
	}
	uid, _ := strconv.Atoi(who.Uid)
	gid, _ := strconv.Atoi(who.Gid)
	c := cloudOfOwn(t)
	home := c.Dir
	c.Dir = filepath.Join(home, "data")
	c.As = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	c.Env = append(c.Env, "HOME="+home, "XDG_DATA_HOME=", "XDG_CACHE_HOME=", "TMPDIR="+home)
	catalog, err := catalogDir()
	if err != nil {
		t.Fatal(err)
	}
	// The program and the catalogue may be where only root can look.
	binary := filepath.Join(home, "mallee")
	for _, args := range [][]string{
		{"mkdir", c.Dir}, {"cp", c.Binary, binary}, {"cp", "-a", catalog, filepath.Join(c.Dir, "catalog")},
		{"chown", "-R", who.Uid + ":" + who.Gid, home},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	c.Binary = binary
	look := exec.Command("test", "-x", c.Dir)
	look.SysProcAttr = &syscall.SysProcAttr{Credential: c.As}
	if err := look.Run(); err != nil {
		t.Skipf("an ordinary user can't get into %s: %v", c.Dir, err)
	}
	return c
}

// cloudOfOwn is a cloud that goes with the test.
func cloudOfOwn(t *testing.T) *cloud.Cloud {
	t.Helper()
	c, err := cloud.New()
	if err != nil {
		t.Fatal(err)
	}
	dir := c.Dir
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the cloud's log ends with:\n%s", c.LogTail(30))
		}
		if err := errors.Join(c.Destroy(within(t, soon)), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	return c
}
