package test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"mallee/test/cloud"
)

// TestSecurityGroups: what no rule lets in stays out, from the host and from
// another instance, and a running guest's rules and groups change at once.
func TestSecurityGroups(t *testing.T) {
	w, g := theGuests(t)
	to, client := g.pv[0], w.ec2(t)
	from := login(t, w.Cloud, g.hvm[0], g.key)
	login(t, w.Cloud, to, g.key) // it listens
	standard := aws.ToString(to.SecurityGroups[0].GroupId)
	closed := newGroup(t, w, "closed")
	enter(t, w, to, closed)
	t.Cleanup(func() { enter(t, w, to, standard) })

	comes(t, "nothing in a group that lets nobody in", func() error { return told(to, "") })
	neighbour := "timeout 5 nc " + *to.PrivateIpAddress + " 22 </dev/null | head -c 4"
	ping := "ping -c 1 -W 2 " + *to.PrivateIpAddress + " >/dev/null && echo answered || true"
	if out := in(t, from, neighbour) + in(t, from, ping); out != "" {
		t.Errorf("another instance is told %q", out)
	}

	ssh := &ec2.AuthorizeSecurityGroupIngressInput{GroupId: &closed, IpProtocol: aws.String("tcp"), FromPort: aws.Int32(22), ToPort: aws.Int32(22), CidrIp: aws.String("127.0.0.0/8")}
	if _, err := client.AuthorizeSecurityGroupIngress(within(t, soon), ssh); err != nil {
		t.Fatal(err)
	}
	comes(t, "SSH from the host", func() error { return told(to, "SSH-") })
	if out := in(t, from, neighbour); out != "" {
		t.Errorf("SSH is allowed to the host, and another instance is told %q", out)
	}

	_, err := client.AuthorizeSecurityGroupIngress(within(t, soon), &ec2.AuthorizeSecurityGroupIngressInput{GroupId: &closed, IpPermissions: []types.IpPermission{
		{IpProtocol: aws.String("icmp"), FromPort: aws.Int32(8), ToPort: aws.Int32(-1), UserIdGroupPairs: []types.UserIdGroupPair{{GroupId: &standard}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	comes(t, "an echo to a member of the group that the rule names", func() error {
		if out := in(t, from, ping); out != "answered\n" {
			return fmt.Errorf("the other instance is told %q", out)
		}
		return nil
	})
	if out := in(t, from, neighbour); out != "" {
		t.Errorf("echoes are allowed, and SSH says %q", out)
	}

	_, err = client.RevokeSecurityGroupIngress(within(t, soon), &ec2.RevokeSecurityGroupIngressInput{GroupId: &closed, IpProtocol: ssh.IpProtocol, FromPort: ssh.FromPort, ToPort: ssh.ToPort, CidrIp: ssh.CidrIp})
	if err != nil {
		t.Fatal(err)
	}
	comes(t, "nothing once SSH was revoked", func() error { return told(to, "") })
	enter(t, w, to, standard)
	comes(t, "SSH in the group that allows it", func() error { return told(to, "SSH-") })
}

// newGroup goes with the test.
func newGroup(t *testing.T, w *world, name string) string {
	t.Helper()
	out, err := w.ec2(t).CreateSecurityGroup(within(t, soon), &ec2.CreateSecurityGroupInput{GroupName: &name, Description: &name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := w.ec2(t).DeleteSecurityGroup(within(t, soon), &ec2.DeleteSecurityGroupInput{GroupId: out.GroupId}); err != nil {
			t.Error(err)
		}
	})
	return *out.GroupId
}

// enter puts an instance into a group, and into no other.
func enter(t *testing.T, w *world, i types.Instance, group string) {
	t.Helper()
	if _, err := w.ec2(t).ModifyInstanceAttribute(within(t, soon), &ec2.ModifyInstanceAttributeInput{InstanceId: i.InstanceId, Groups: []string{group}}); err != nil {
		t.Error(err)
	}
}

// comes true soon, and says when.
func comes(t *testing.T, what string, true func() error) {
	t.Helper()
	began := time.Now()
	if err := cloud.Poll(within(t, soon), what, true); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: after %s", what, time.Since(began).Round(time.Millisecond))
}

// told compares what an instance's port 22 says to the host at once with what it
// should; "" is that it isn't reached.
func told(i types.Instance, want string) error {
	got := ""
	for _, port := range cloud.Ports {
		conn, err := net.DialTimeout("tcp", net.JoinHostPort(*i.PublicIpAddress, port), soon)
		if err != nil {
			continue
		}
		conn.SetDeadline(time.Now().Add(soon))
		words := make([]byte, 4)
		n, _ := io.ReadFull(conn, words)
		conn.Close()
		if got = string(words[:n]); strings.HasPrefix(got, "SSH") {
			break
		}
	}
	if got != want {
		return fmt.Errorf("%s says %q, want %q", *i.InstanceId, got, want)
	}
	return nil
}
