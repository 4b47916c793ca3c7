package test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net/http/httptrace"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"mallee/test/cloud"
)

// bootID changes with each boot of a guest.
const bootID = "cat /proc/sys/kernel/random/boot_id"

// upAgain starts the program on a folder that has been used.
func upAgain(t *testing.T, c *cloud.Cloud) {
	t.Helper()
	took, err := c.Up(within(t, soon))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("healthy again after %d ms", took.Milliseconds())
	if took > 10*time.Second { // well under a second on a machine that is not busy: the bench measures it
		t.Errorf("the program took %s to be up again", took)
	}
}

// TestRestart ends the program and starts it again: nothing happens to guests,
// to what they say to each other, and to what leads to them.
func TestRestart(t *testing.T) {
	w, g := theGuests(t)
	boots := map[string]string{}
	for _, i := range g.all() {
		boots[*i.InstanceId] = in(t, login(t, w.Cloud, i, g.key), bootID)
	}
	before := qemus(t, w.Cloud)

	// A conversation between two guests is under way all the time.
	listener, speaker := login(t, w.Cloud, g.pv[0], g.key), login(t, w.Cloud, g.hvm[1], g.key)
	in(t, listener, "rm -f /tmp/heard; tail -f /dev/null 2>/dev/null | nc -l -p 7000 >/tmp/heard 2>/dev/null &")
	in(t, speaker, "rm -f /tmp/go; (echo before; while [ ! -e /tmp/go ]; do sleep 1; done; echo after) | nc "+*g.pv[0].PrivateIpAddress+" 7000 >/dev/null 2>&1 &")
	heard(t, listener, "before\n")

	if err := w.Stop(within(t, soon)); err != nil {
		t.Fatal(err)
	}
	if now := qemus(t, w.Cloud); !maps.Equal(now, before) {
		t.Fatalf("SIGTERM made of the QEMUs %v these: %v", before, now)
	}
	upAgain(t, w.Cloud)

	for _, i := range g.all() {
		now, err := describe(within(t, soon), w.Cloud, *i.InstanceId)
		if err != nil {
			t.Fatal(err)
		}
		if now.State.Name != types.InstanceStateNameRunning || *now.PublicIpAddress != *i.PublicIpAddress || *now.PrivateIpAddress != *i.PrivateIpAddress {
			t.Errorf("%s is %s at %s and %s after the restart", *i.InstanceId, now.State.Name, *now.PublicIpAddress, *now.PrivateIpAddress)
		}
		guest := login(t, w.Cloud, i, g.key)
		if boot := in(t, guest, bootID); boot != boots[*i.InstanceId] {
			t.Errorf("%s has booted again", *i.InstanceId)
		}
		if id := in(t, guest, "wget -q -O - "+metadata+"meta-data/instance-id"); id != *i.InstanceId {
			t.Errorf("%s is told after the restart that it is %q", *i.InstanceId, id)
		}
	}
	in(t, login(t, w.Cloud, g.hvm[1], g.key), "touch /tmp/go")
	heard(t, login(t, w.Cloud, g.pv[0], g.key), "before\nafter\n")
	if now := qemus(t, w.Cloud); !maps.Equal(now, before) {
		t.Errorf("the restart made of the QEMUs %v these: %v", before, now)
	}
}

// heard waits until a guest has heard all of it.
func heard(t *testing.T, g *cloud.Guest, want string) {
	t.Helper()
	ctx := within(t, soon)
	err := cloud.Poll(ctx, "a guest to hear the other", func() error {
		if out, err := g.Run(ctx, "cat /tmp/heard"); err != nil || out != want {
			return fmt.Errorf("it has heard %q (%v), not %q", out, err, want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// qemus are the process of each instance; more than one is a fatal error.
func qemus(t *testing.T, c *cloud.Cloud) map[string]int {
	t.Helper()
	found, err := c.QEMUs()
	if err != nil {
		t.Fatal(err)
	}
	pids := map[string]int{}
	for id, processes := range found {
		if len(processes) != 1 {
			t.Fatalf("%s runs %d times: %v", id, len(processes), processes)
		}
		pids[id] = processes[0].PID
	}
	return pids
}

// TestKilledWhileLaunching kills the program at several moments of a launch.
// What was acknowledged is there afterwards, nothing is there twice, and the
// same call again completes what was not.
func TestKilledWhileLaunching(t *testing.T) {
	w := theWorld(t)
	others := qemus(t, w.Cloud)
	for _, test := range []struct {
		name string
		kill func(t *testing.T, l *launch)
	}{
		{"when the request is sent", func(t *testing.T, l *launch) {
			<-l.sent
		}},
		{"when the reply is there", func(t *testing.T, l *launch) {
			<-l.done
		}},
		{"when the first machine runs", func(t *testing.T, l *launch) {
			err := cloud.PollEvery(within(t, soon), time.Millisecond, "a machine", func() error {
				if len(qemus(t, w.Cloud)) == len(others) {
					return errors.New("there is none")
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			token := rand.Text()
			l := begin(t, w, token)
			test.kill(t, l)
			if err := w.Kill(within(t, soon)); err != nil {
				t.Fatal(err)
			}
			<-l.done
			upAgain(t, w.Cloud)
			again := begin(t, w, token)
			<-again.done
			if again.err != nil {
				t.Fatalf("the same call again: %v", again.err)
			}
			ids := idsOf(again.out.Instances)
			t.Cleanup(func() { terminate(t, w.Cloud, ids...) })
			if l.err == nil && !slices.Equal(ids, idsOf(l.out.Instances)) {
				t.Errorf("%v were acknowledged, and the same call again made %v", idsOf(l.out.Instances), ids)
			}
			await(t, w.Cloud, types.InstanceStateNameRunning, ids...)
			checkLaunched(t, w, token, ids, others)
		})
	}
}

// launch is a call for four instances that may be cut off.
type launch struct {
	sent chan struct{} // closed when the request is on its way
	done chan struct{} // closed when there is a reply or an error
	out  *ec2.RunInstancesOutput
	err  error
}

func begin(t *testing.T, w *world, token string) *launch {
	client := w.ec2(t)
	l := &launch{sent: make(chan struct{}), done: make(chan struct{})}
	sent := sync.OnceFunc(func() { close(l.sent) })
	ctx := httptrace.WithClientTrace(within(t, soon), &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { sent() }})
	go func() {
		defer close(l.done)
		defer sent()
		l.out, l.err = client.RunInstances(ctx, &ec2.RunInstancesInput{
			ImageId: aws.String(w.hello), MinCount: aws.Int32(4), MaxCount: aws.Int32(4), InstanceType: "t1.micro", ClientToken: &token,
		})
	}()
	return l
}

// checkLaunched: exactly those of that token, in one reservation, each once.
func checkLaunched(t *testing.T, w *world, token string, ids []string, others map[string]int) {
	t.Helper()
	out, err := w.ec2(t).DescribeInstances(within(t, soon), &ec2.DescribeInstancesInput{
		Filters: []types.Filter{{Name: aws.String("client-token"), Values: []string{token}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Reservations) != 1 || !sameStrings(idsOf(out.Reservations[0].Instances), ids) || len(ids) != 4 {
		t.Errorf("one call for 4 made %d reservations, the first with %v; the reply says %v", len(out.Reservations), idsOf(out.Reservations[0].Instances), ids)
	}
	now := qemus(t, w.Cloud)
	want := append(slices.Collect(maps.Keys(others)), ids...)
	if !sameStrings(slices.Collect(maps.Keys(now)), want) {
		t.Errorf("there are the machines %v, want %v", slices.Sorted(maps.Keys(now)), want)
	}
}

func sameStrings(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// TestQEMUKilled: a machine that dies under its guest is started again, with the
// disk it had, and its owner sees it running all along.
func TestQEMUKilled(t *testing.T) {
	w, g := theGuests(t)
	i := g.pv[0]
	before := in(t, login(t, w.Cloud, i, g.key), "echo precious >/root/precious; sync; "+bootID)
	if err := syscall.Kill(qemus(t, w.Cloud)[*i.InstanceId], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ctx := within(t, bootTime)
	err := cloud.Poll(ctx, "the guest to be back", func() error {
		now, err := describe(ctx, w.Cloud, *i.InstanceId)
		if err == nil && now.State.Name != types.InstanceStateNameRunning {
			return cloud.Never(fmt.Errorf("its state is %s: %s", now.State.Name, reason(now)))
		}
		return bootedAgain(ctx, i, g.key, before)
	})
	if err != nil {
		t.Fatal(err)
	}
	if out := in(t, login(t, w.Cloud, i, g.key), "cat /root/precious"); out != "precious\n" {
		t.Errorf("its disk has %q", out)
	}
}

// bootedAgain is nil when the guest can be logged into and has another boot id.
func bootedAgain(ctx context.Context, i types.Instance, key, before string) error {
	g, err := cloud.Login(ctx, *i.PublicIpAddress, key)
	if err != nil {
		return err
	}
	defer g.Close()
	boot, err := g.Run(ctx, bootID)
	if err == nil && boot == before {
		err = errors.New("it has not booted again yet")
	}
	return err
}

// TestSecondUp on a folder says who holds it, and leaves him alone.
func TestSecondUp(t *testing.T) {
	w := theWorld(t)
	endpoint, err := w.Endpoint()
	if err != nil {
		t.Fatal(err)
	}
	r, err := w.Run(within(t, soon), "", "up", "--listen", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if r.Status == 0 || !strings.Contains(r.Err, fmt.Sprint(w.PID())) || !strings.Contains(r.Err, endpoint) {
		t.Errorf("a second mallee up ended with %d and said %q, without process %d or %s", r.Status, r.Err, w.PID(), endpoint)
	}
	if _, err := w.ec2(t).DescribeRegions(within(t, soon), &ec2.DescribeRegionsInput{}); err != nil {
		t.Errorf("the first one, after it: %v", err)
	}
}

// TestDestroyAsks, and does nothing for any other answer than yes.
func TestDestroyAsks(t *testing.T) {
	w := theWorld(t)
	before := qemus(t, w.Cloud)
	for _, answer := range []string{"no\n", "", "y\n", "yes please\n"} {
		r, err := w.Run(within(t, soon), answer, "down", "--destroy")
		if err != nil {
			t.Fatal(err)
		}
		if r.Status == 0 || !strings.Contains(r.Err, w.Dir) {
			t.Errorf("mallee down --destroy with %q ended with %d and said %q, which should name the folder", answer, r.Status, r.Err)
		}
	}
	if _, err := os.Stat(w.Path("state")); err != nil {
		t.Error(err)
	}
	if now := qemus(t, w.Cloud); !maps.Equal(now, before) {
		t.Errorf("the machines %v became %v", before, now)
	}
	if _, err := w.ec2(t).DescribeRegions(within(t, soon), &ec2.DescribeRegionsInput{}); err != nil {
		t.Errorf("the cloud is not up any more: %v", err)
	}
}

// TestDown powers guests off properly; the next start brings them back with
// their disks.
func TestDown(t *testing.T) {
	w, g := theGuests(t)
	boots := map[string]string{}
	for _, i := range g.all() {
		boots[*i.InstanceId] = in(t, login(t, w.Cloud, i, g.key), "echo still >/root/still; "+bootID)
	}
	began := time.Now()
	if _, err := w.Succeed(within(t, 2*time.Minute), "down"); err != nil {
		t.Fatal(err)
	}
	t.Logf("the guests of 4 were off after %.1f s", time.Since(began).Seconds())
	if err := w.Ended(within(t, soon)); err != nil {
		t.Fatal(err)
	}
	if left := qemus(t, w.Cloud); len(left) > 0 {
		t.Errorf("mallee down left the machines %v", left)
	}
	upAgain(t, w.Cloud)
	for _, i := range g.all() {
		ctx := within(t, bootTime)
		if err := cloud.Poll(ctx, "the guest to be back", func() error { return bootedAgain(ctx, i, g.key, boots[*i.InstanceId]) }); err != nil {
			t.Fatal(err)
		}
		if out := in(t, login(t, w.Cloud, i, g.key), "cat /root/still"); out != "still\n" {
			t.Errorf("the disk of %s has %q", *i.InstanceId, out)
		}
		if text := console(t, w.Cloud, *i.InstanceId); !strings.Contains(text, "mallee-tiny: shutting down") {
			t.Errorf("%s was not shut down, but cut off", *i.InstanceId)
		}
		if now, err := describe(within(t, soon), w.Cloud, *i.InstanceId); err != nil || now.State.Name != types.InstanceStateNameRunning {
			t.Errorf("%s is %v (%v)", *i.InstanceId, now.State, err)
		}
	}
}
