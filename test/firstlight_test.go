package test

import (
	"bytes"
	"fmt"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"golang.org/x/crypto/ssh"

	"errors"

	"mallee/test/cloud"
)

// TestReservations: one call, one reservation, indices from 0 on, pending first
// and then running.
func TestReservations(t *testing.T) {
	w, g := theGuests(t)
	for image, pair := range map[string][]types.Instance{w.hvm: g.hvm, w.pv: g.pv} {
		reservations := map[string][]int32{}
		for _, i := range pair {
			if i.State.Name != types.InstanceStateNamePending {
				t.Errorf("RunInstances replied %s of %s, want pending", i.State.Name, *i.InstanceId)
			}
			out, err := w.ec2(t).DescribeInstances(within(t, soon), &ec2.DescribeInstancesInput{InstanceIds: []string{*i.InstanceId}})
			if err != nil {
				t.Fatal(err)
			}
			r := out.Reservations[0]
			reservations[*r.ReservationId] = append(reservations[*r.ReservationId], *r.Instances[0].AmiLaunchIndex)
		}
		if len(reservations) != 1 {
			t.Errorf("two instances of %s are in the reservations %v, want one", image, reservations)
		}
		for r, indices := range reservations {
			if !slices.Equal(indices, []int32{0, 1}) {
				t.Errorf("%s has the launch indices %v, want 0 and 1", r, indices)
			}
		}
		await(t, w.Cloud, types.InstanceStateNameRunning, idsOf(pair)...)
	}
}

// metadataKeys are those that the issue lists, and what DescribeInstances says
// of each; an empty answer is of a key that must not be there.
func metadataOf(i types.Instance, reservation string) map[string]string {
	var groups []string
	for _, g := range i.SecurityGroups {
		groups = append(groups, *g.GroupName)
	}
	return map[string]string{
		"instance-id":                 *i.InstanceId,
		"ami-id":                      *i.ImageId,
		"ami-launch-index":            fmt.Sprint(*i.AmiLaunchIndex),
		"local-ipv4":                  *i.PrivateIpAddress,
		"public-ipv4":                 *i.PublicIpAddress,
		"hostname":                    *i.PrivateDnsName,
		"placement/availability-zone": *i.Placement.AvailabilityZone,
		"reservation-id":              reservation,
		"instance-type":               string(i.InstanceType),
		"kernel-id":                   aws.ToString(i.KernelId),
		"ramdisk-id":                  aws.ToString(i.RamdiskId),
		"security-groups":             strings.Join(groups, "\n"),
		"public-keys/":                "0=" + *i.KeyName,
	}
}

const metadata = "http://169.254.169.254/latest/"

// TestMetadata holds what a guest is told against what its owner is told.
func TestMetadata(t *testing.T) {
	w, g := theGuests(t)
	for _, i := range []types.Instance{g.hvm[1], g.pv[0]} {
		out, err := w.ec2(t).DescribeInstances(within(t, soon), &ec2.DescribeInstancesInput{InstanceIds: []string{*i.InstanceId}})
		if err != nil {
			t.Fatal(err)
		}
		r := out.Reservations[0]
		guest := login(t, w.Cloud, i, g.key)
		want := metadataOf(r.Instances[0], *r.ReservationId)
		for key, want := range want {
			got := in(t, guest, "wget -q -O - "+metadata+"meta-data/"+key+" || true")
			if got != want {
				t.Errorf("%s of %s is %q, and DescribeInstances says %q", key, *i.InstanceId, got, want)
			}
		}
		if got, want := in(t, guest, "wget -q -O - "+metadata+"meta-data/mac"), in(t, guest, "cat /sys/class/net/eth0/address"); got != strings.TrimSpace(want) {
			t.Errorf("the MAC of %s is %s, and its metadata says %q", *i.InstanceId, want, got)
		}
		if got := in(t, guest, "wget -q -O - "+metadata+"user-data"); got != string(userData) {
			t.Errorf("the user data of %s is %q, want %q", *i.InstanceId, got, userData)
		}
		key := in(t, guest, "wget -q -O - "+metadata+"meta-data/public-keys/0/openssh-key")
		signer, err := ssh.ParsePrivateKey([]byte(g.key))
		if err != nil {
			t.Fatal(err)
		}
		public, _, _, _, err := ssh.ParseAuthorizedKey([]byte(key))
		if err != nil || !bytes.Equal(public.Marshal(), signer.PublicKey().Marshal()) {
			t.Errorf("the public key of %s is %q (%v), not the key pair's", *i.InstanceId, key, err)
		}
		if name := strings.TrimSpace(in(t, guest, "hostname")); name != *r.Instances[0].PrivateDnsName {
			t.Errorf("%s calls itself %s, and DescribeInstances says %s", *i.InstanceId, name, *r.Instances[0].PrivateDnsName)
		}
	}
}

// TestMetadataTokens goes the way of IMDSv2: a token by PUT, then questions with it.
func TestMetadataTokens(t *testing.T) {
	w, g := theGuests(t)
	guest := login(t, w.Cloud, g.pv[0], g.key)
	ask := func(request string) (status, body string) {
		t.Helper()
		reply := in(t, guest, fmt.Sprintf(`printf '%s' | timeout 10 nc 169.254.169.254 80`, request))
		head, body, _ := strings.Cut(strings.ReplaceAll(reply, "\r", ""), "\n\n")
		first, _, _ := strings.Cut(head, "\n")
		_, status, _ = strings.Cut(first, " ")
		return status, body
	}
	const host = `Host: 169.254.169.254\r\nConnection: close\r\n`
	status, token := ask(`PUT /latest/api/token HTTP/1.1\r\n` + host + `Content-Length: 0\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\n`)
	if status != "200 OK" || len(token) < 16 {
		t.Fatalf("PUT of a token answered %q with %q", status, token)
	}
	for _, test := range []struct{ header, status, body string }{
		{"", "200 OK", *g.pv[0].InstanceId}, // version 1 is on, as DescribeInstances says
		{`X-aws-ec2-metadata-token: ` + token + `\r\n`, "200 OK", *g.pv[0].InstanceId},
		{`X-aws-ec2-metadata-token: ` + token[:len(token)-2] + `\r\n`, "401 Unauthorized", ""},
	} {
		status, body := ask(`GET /latest/meta-data/instance-id HTTP/1.1\r\n` + host + test.header + `\r\n`)
		if status != test.status || test.body != "" && strings.TrimSpace(body) != test.body {
			t.Errorf("with %q: %s, %q; want %s, %q", test.header, status, body, test.status, test.body)
		}
	}
	if status, _ := ask(`PUT /latest/api/token HTTP/1.1\r\n` + host + `Content-Length: 0\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n`); status != "403 Forbidden" {
		t.Errorf("a token was asked for through a proxy, and the answer is %s", status)
	}
}

// TestNetwork: instances of one account reach each other, by address and by name,
// whichever image they are of, and don't reach the host.
func TestNetwork(t *testing.T) {
	w, g := theGuests(t)
	guest := login(t, w.Cloud, g.hvm[0], g.key)
	login(t, w.Cloud, g.pv[1], g.key) // it is there
	to := g.pv[1]
	in(t, guest, "ping -c 1 -W 10 "+*to.PrivateIpAddress)
	banner := in(t, guest, "timeout 10 nc "+*to.PrivateIpAddress+" 22 </dev/null | head -c 4")
	if banner != "SSH-" {
		t.Errorf("port 22 of another instance says %q", banner)
	}
	name := "ip-" + strings.ReplaceAll(*to.PrivateIpAddress, ".", "-") + ".ec2.internal"
	if out := in(t, guest, "nslookup "+name); !strings.Contains(out, *to.PrivateIpAddress) {
		t.Errorf("%s is looked up as %s", name, out)
	}
	endpoint, err := w.Endpoint()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(endpoint, "http://"))
	gateway := strings.TrimSpace(in(t, guest, "ip route | sed -n 's/^default via \\([0-9.]*\\).*/\\1/p'"))
	for _, host := range []string{gateway, "127.0.0.1", *to.PublicIpAddress} {
		if out := in(t, guest, "timeout 5 nc "+host+" "+port+" </dev/null && echo reached || true"); strings.Contains(out, "reached") {
			t.Errorf("a guest reaches the cloud's own port at %s", host)
		}
	}
}

// TestConsole shows what the guest said, among it the host key that SSH shows:
// who reads the console can tell that he talks to his instance.
func TestConsole(t *testing.T) {
	w, g := theGuests(t)
	for _, i := range g.all() {
		guest := login(t, w.Cloud, i, g.key)
		text := console(t, w.Cloud, *i.InstanceId)
		if !strings.Contains(text, "ready instance-id="+*i.InstanceId) {
			t.Errorf("the console of %s does not say that it is ready:\n%s", *i.InstanceId, text)
		}
		if key := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(guest.HostKey))); !strings.Contains(text, key) {
			t.Errorf("the console of %s does not show its host key %s:\n%s", *i.InstanceId, key, text)
		}
	}
}

// TestIsolation: what one instance writes, no other sees, nor does the next one
// of the same image.
func TestIsolation(t *testing.T) {
	w, g := theGuests(t)
	pairs := map[string][]types.Instance{w.hvm: g.hvm, w.pv: g.pv}
	for image, pair := range pairs {
		in(t, login(t, w.Cloud, pair[0], g.key), "echo mine >/root/mine; echo mine >/mnt/mine; sync")
		pairs[image] = append(slices.Clone(pair), run(t, w.Cloud, &ec2.RunInstancesInput{ImageId: &image, KeyName: aws.String(keyName)}).Instances...)
	}
	for _, instances := range pairs {
		for _, other := range instances[1:] {
			if out := in(t, login(t, w.Cloud, other, g.key), "ls /root/mine /mnt/mine 2>/dev/null || true"); out != "" {
				t.Errorf("%s sees what %s wrote: %s", *other.InstanceId, *instances[0].InstanceId, out)
			}
		}
	}
}

// TestReboot: the guest begins anew with the disk it had.
func TestReboot(t *testing.T) {
	w, g := theGuests(t)
	i := g.pv[1]
	guest := login(t, w.Cloud, i, g.key)
	before := in(t, guest, "echo kept >/root/kept; sync; cat /proc/sys/kernel/random/boot_id")
	if _, err := w.ec2(t).RebootInstances(within(t, soon), &ec2.RebootInstancesInput{InstanceIds: idsOf([]types.Instance{i})}); err != nil {
		t.Fatal(err)
	}
	ctx := within(t, bootTime)
	err := cloud.Poll(ctx, "the guest to boot again", func() error {
		g, err := cloud.Login(ctx, *i.PublicIpAddress, g.key)
		if err != nil {
			return err
		}
		defer g.Close()
		out, err := g.Run(ctx, "cat /proc/sys/kernel/random/boot_id /root/kept")
		switch {
		case err != nil:
			return err
		case strings.HasPrefix(out, before):
			return errors.New("it has not rebooted yet")
		case !strings.HasSuffix(out, "kept\n"):
			return cloud.Never(fmt.Errorf("after the reboot its disk has %q", out))
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if now, err := describe(within(t, soon), w.Cloud, *i.InstanceId); err != nil || now.State.Name != types.InstanceStateNameRunning {
		t.Errorf("after the reboot it is %v (%v)", now.State, err)
	}
}

// TestPowerOff from within ends an instance-store instance, and says who did it.
// On the way it logs in with an RSA key pair.
func TestPowerOff(t *testing.T) {
	w := theWorld(t)
	key := newKey(t, w.Cloud, "old", types.KeyTypeRsa)
	i := run(t, w.Cloud, &ec2.RunInstancesInput{ImageId: aws.String(w.pv), KeyName: aws.String("old")}).Instances[0]
	guest := login(t, w.Cloud, i, key)
	guest.Run(within(t, soon), "poweroff") // the guest may be gone before it answers
	now := await(t, w.Cloud, types.InstanceStateNameTerminated, *i.InstanceId)[0]
	if got := aws.ToString(now.StateReason.Code); got != "Client.InstanceInitiatedShutdown" {
		t.Errorf("the StateReason is %s", reason(now))
	}
	if err := w.Left(*i.InstanceId); err != nil {
		t.Error(err)
	}
}

// TestTerminate gives everything back: process, disks, addresses. (That no
// process or file is left, terminate looks after everywhere.)
func TestTerminate(t *testing.T) {
	w := theWorld(t)
	out := run(t, w.Cloud, &ec2.RunInstancesInput{ImageId: aws.String(w.hello), MinCount: aws.Int32(2), MaxCount: aws.Int32(2)})
	ids := idsOf(out.Instances)
	running := await(t, w.Cloud, types.InstanceStateNameRunning, ids...)
	for _, i := range running {
		dial(t, i, true)
		ctx := within(t, soon)
		err := cloud.Poll(ctx, "the guest's first words", func() error {
			if text := console(t, w.Cloud, *i.InstanceId); !strings.Contains(text, helloLine) {
				return fmt.Errorf("the console has %q", text)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	terminate(t, w.Cloud, ids...)
	for _, i := range running {
		dial(t, i, false)
		now, err := describe(within(t, soon), w.Cloud, *i.InstanceId)
		if err != nil {
			t.Fatal(err)
		}
		if got := aws.ToString(now.StateReason.Code); got != "Client.UserInitiatedShutdown" {
			t.Errorf("the StateReason is %s", reason(now))
		}
		if now.PublicIpAddress != nil || now.PrivateIpAddress != nil {
			t.Errorf("a terminated instance still has the addresses %s and %s", aws.ToString(now.PublicIpAddress), aws.ToString(now.PrivateIpAddress))
		}
	}
	again, err := w.ec2(t).TerminateInstances(within(t, soon), &ec2.TerminateInstancesInput{InstanceIds: ids})
	if err != nil || again.TerminatingInstances[0].CurrentState.Name != types.InstanceStateNameTerminated {
		t.Errorf("terminating again: %v, %v", again, err)
	}
}

// dial finds out whether anybody listens at an instance's public address: to
// refuse who comes, for no rule lets anybody in at that port.
func dial(t *testing.T, i types.Instance, listening bool) {
	t.Helper()
	for _, port := range []string{"80", "10080"} {
		conn, err := net.DialTimeout("tcp", net.JoinHostPort(*i.PublicIpAddress, port), soon)
		if err == nil || errors.Is(err, syscall.ECONNRESET) {
			if err == nil {
				conn.Close()
			}
			if !listening {
				t.Errorf("somebody listens at %s:%s after the termination of %s", *i.PublicIpAddress, port, *i.InstanceId)
			}
			return
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("port %s of %s: %v", port, *i.InstanceId, err)
		}
	}
	if listening {
		t.Errorf("nobody listens at the public address of %s", *i.InstanceId)
	}
}
