package test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"

	"mallee/test/cloud"
	"mallee/test/stamp"
)

// TestEndure and its like kill what runs a guest, at instants that a seed decides,
// while the guest writes to its volumes and something is done to them; and compare
// all that the guest was told afterwards (ledger_test.go). A kill is of QEMU, of
// mallee or of both, as kill -9 does it.
//
// MALLEE_SEED repeats a run, as far as the host's own timing lets it. MALLEE_KILLS
// is how many kills there are (make endure KILLS=300).

// endureTime is how long the cloud has for what was begun, on a busy host, with the
// pauses that a node makes when machines die young.
const endureTime = 4 * time.Minute

// longestWait of a kill for its instant, from when something was begun. What is
// begun is mostly over sooner: half of the kills come within 33 ms.
const longestWait = 2500 * time.Millisecond

// instant of a kill.
func (r *rig) instant() time.Duration {
	return time.Duration(math.Pow(float64(longestWait), 0.6+0.4*r.noise.Float64())) // nanoseconds; half a millisecond at least
}

// rig is a cloud, a guest that writes, and all that it was told.
type rig struct {
	*cloud.Cloud
	t        *testing.T
	noise    *rand.Rand
	ledger   *ledger
	listener *listener
	instance string
	root     string // volumes
	plain    string
	secret   string // encrypted
	spare    string // comes and goes
	attached bool   // the spare is
	taken    []taken
	kills    map[string]int
}

// taken is a snapshot that was completed.
type taken struct {
	id   string
	of   string // volume
	held map[int]stamp.Stamp
}

// seeded is the run's chance. The seed is in the log.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("MALLEE_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("MALLEE_SEED=%s: %v", text, err)
		}
	}
	t.Logf("MALLEE_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// newRig launches the guest and has it write.
func newRig(t *testing.T, c *cloud.Cloud) *rig {
	t.Helper()
	r := &rig{Cloud: c, t: t, noise: seeded(t), ledger: newLedger(), kills: map[string]int{}}
	if err := shareCatalog(c); err != nil {
		t.Fatal(err)
	}
	r.up()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the cloud's log ends with:\n%s", c.LogTail(60))
		}
	})
	installed, err := c.Succeed(within(t, buildTime), "image", "install", "tiny", "--ebs")
	if err != nil {
		t.Fatal(err)
	}
	image := strings.TrimPrefix(strings.TrimSpace(installed.Out), "IMAGE\t")
	key, err := ec2Of(t, c).CreateKeyPair(within(t, soon), &ec2.CreateKeyPairInput{KeyName: aws.String(keyName), KeyType: types.KeyTypeEd25519})
	if err != nil {
		t.Fatal(err)
	}
	r.launch(image)
	r.install(*key.KeyMaterial)
	r.writes(r.root, r.plain, r.secret)
	return r
}

func (r *rig) launch(image string) {
	r.t.Helper()
	gone := aws.Bool(true)
	out, err := r.client().RunInstances(within(r.t, soon), &ec2.RunInstancesInput{
		ImageId: &image, MinCount: aws.Int32(1), MaxCount: aws.Int32(1), KeyName: aws.String(keyName), InstanceType: "m1.small",
		BlockDeviceMappings: []types.BlockDeviceMapping{
			{DeviceName: aws.String("/dev/sdf"), Ebs: &types.EbsBlockDevice{VolumeSize: aws.Int32(1), DeleteOnTermination: gone}},
			{DeviceName: aws.String("/dev/sdg"), Ebs: &types.EbsBlockDevice{VolumeSize: aws.Int32(1), DeleteOnTermination: gone, Encrypted: gone}},
		}})
	if err != nil {
		r.t.Fatal(err)
	}
	r.instance = *out.Instances[0].InstanceId
	i := await(r.t, r.Cloud, types.InstanceStateNameRunning, r.instance)[0]
	for _, m := range i.BlockDeviceMappings {
		switch *m.DeviceName {
		case "/dev/sdf":
			r.plain = *m.Ebs.VolumeId
		case "/dev/sdg":
			r.secret = *m.Ebs.VolumeId
		default:
			r.root = *m.Ebs.VolumeId
		}
	}
	r.listener = &listener{path: r.Path("node", "machines", r.instance, "console.log"), ledger: r.ledger}
	stop := make(chan struct{})
	go r.listener.listen(stop)
	r.t.Cleanup(func() { close(stop) })
}

// install the writer in the guest, where every boot starts it.
func (r *rig) install(key string) {
	r.t.Helper()
	program := filepath.Join(r.t.TempDir(), "writer")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "./writer")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		r.t.Fatalf("build the writer: %v: %s", err, out)
	}
	data, err := os.ReadFile(program)
	if err != nil {
		r.t.Fatal(err)
	}
	i, err := describe(within(r.t, soon), r.Cloud, r.instance)
	if err != nil {
		r.t.Fatal(err)
	}
	guest := login(r.t, r.Cloud, i, key)
	s, err := guest.NewSession()
	if err != nil {
		r.t.Fatal(err)
	}
	defer s.Close()
	s.Stdin = bytes.NewReader(data)
	if out, err := s.CombinedOutput("cat >/root/writer && chmod 755 /root/writer && echo ::respawn:/root/writer >>/etc/inittab && sync && kill -HUP 1"); err != nil {
		r.t.Fatalf("install the writer: %v: %s", err, out)
	}
}

func (r *rig) client() *ec2.Client { return ec2Of(r.t, r.Cloud) }

func (r *rig) up() {
	r.t.Helper()
	if _, err := r.Up(within(r.t, upTime)); err != nil {
		r.t.Fatal(err)
	}
}

// upTime is how long mallee may take to be there again where processors are few.
const upTime = time.Minute

// serialOf a volume in the guest.
func serialOf(volume string) string { return strings.Replace(volume, "-", "", 1) }

// mounted are the volumes that the guest should be writing to.
func (r *rig) mounted() []string {
	list := []string{r.root, r.plain, r.secret}
	if r.attached {
		list = append(list, r.spare)
	}
	return list
}

// until polls, and fails the test where that takes too long.
func (r *rig) until(what string, done func(ctx context.Context) error) {
	r.t.Helper()
	ctx := within(r.t, endureTime)
	err := cloud.Poll(ctx, what, func() error {
		r.listener.hear()
		if err := r.ledger.verdict(); err != nil {
			return cloud.Never(err)
		}
		return done(ctx)
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// writes waits for more writes to each of the volumes.
func (r *rig) writes(volumes ...string) {
	r.t.Helper()
	for _, v := range volumes {
		was := r.ledger.look(serialOf(v))
		r.until("writes to "+v, func(context.Context) error {
			if now := r.ledger.look(serialOf(v)); now.wrote < was.wrote+5 {
				return fmt.Errorf("it was scanned %d times and written to %d times, of which %d are new; %d writers gave up", now.scanned, now.wrote, now.wrote-was.wrote, now.failed)
			}
			return nil
		})
	}
}

// books of the volumes as they are now.
func (r *rig) books(volumes []string) map[string]book {
	r.listener.hear()
	all := map[string]book{}
	for _, v := range volumes {
		all[v] = r.ledger.look(serialOf(v))
	}
	return all
}

// rereads waits until each of the volumes was read in full since then, and is
// written to.
func (r *rig) rereads(since map[string]book) {
	r.t.Helper()
	for v, was := range since {
		r.until("the guest to read "+v+" again", func(context.Context) error {
			if now := r.ledger.look(serialOf(v)); now.scanned <= was.scanned {
				return fmt.Errorf("it was read %d times before and %d times now", was.scanned, now.scanned)
			}
			return nil
		})
		r.writes(v)
	}
}

// kill is what dies.
type kill struct {
	qemu, mallee bool
}

func (k kill) String() string {
	switch {
	case k.qemu && k.mallee:
		return "both"
	case k.qemu:
		return "QEMU"
	}
	return "mallee"
}

var kinds = []kill{{qemu: true, mallee: true}, {mallee: true}, {qemu: true}}

// strike kills. Whether QEMU or mallee goes first, chance decides.
func (r *rig) strike(k kill) {
	r.t.Helper()
	r.kills[k.String()]++
	first := r.noise.IntN(2) == 0
	if k.qemu && first {
		r.killQEMUs()
	}
	if k.mallee {
		if err := r.Kill(within(r.t, soon)); err != nil {
			r.t.Fatal(err)
		}
	}
	if k.qemu && !first {
		r.killQEMUs()
	}
}

// killQEMUs of this cloud, guests' and keepers'. Each runs in its folder; that its
// command line names the cloud's is so only where disks are files.
func (r *rig) killQEMUs() {
	r.t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		r.t.Fatal(err)
	}
	for _, name := range names {
		line, err := os.ReadFile(name)
		program, _, _ := strings.Cut(string(line), "\x00")
		if err != nil || !strings.HasPrefix(filepath.Base(program), "qemu-") {
			continue
		}
		dir, err := os.Readlink(filepath.Join(filepath.Dir(name), "cwd"))
		if err != nil || !strings.HasPrefix(dir, r.Dir+"/node/") {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if err != nil {
			r.t.Fatal(err)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			r.t.Fatal(err)
		}
	}
}

// act is something that is done to the guest or its volumes while it writes.
type act struct {
	name    string
	prepare func(r *rig) // without kills
	// The call, which is made again where it was cut off.
	wish   func(ctx context.Context, api *ec2.Client, r *rig) error
	finish func(r *rig) // waits until it is done, and looks at what came of it
}

// round kills in the middle of an act.
func (r *rig) round(a act, k kill) {
	r.t.Helper()
	if a.prepare != nil {
		a.prepare(r)
	}
	since := r.books(r.mounted())
	ctx := within(r.t, endureTime)
	done := make(chan error, 1)
	began, wait := time.Now(), r.instant()
	if a.wish == nil {
		done <- nil
	} else {
		api := r.client()
		go func() { done <- a.wish(ctx, api, r) }()
	}
	instant := time.NewTimer(wait) // not for anything to happen: it is the seed's instant
	<-instant.C
	r.strike(k)
	err := <-done
	if k.mallee {
		r.up()
	}
	if err != nil && k.mallee {
		err = r.again(ctx, a)
	}
	if err != nil {
		r.t.Fatalf("%s: %v", a.name, err)
	}
	if a.finish != nil {
		a.finish(r)
	}
	maps.DeleteFunc(since, func(v string, _ book) bool { return !slices.Contains(r.mounted(), v) })
	if k.qemu {
		r.rereads(since)
	} else {
		r.writes(r.mounted()...)
	}
	r.owned()
	r.t.Logf("%s, %s killed after %s; all well after %.1f s", a.name, k, wait.Round(time.Microsecond), time.Since(began).Seconds())
}

// again makes a call that was cut off. That it is refused because the first one was
// heard is no error.
func (r *rig) again(ctx context.Context, a act) error {
	err := a.wish(ctx, r.client(), r)
	var refusal smithy.APIError
	if errors.As(err, &refusal) && slices.Contains([]string{"VolumeInUse", "IncorrectState", "IncorrectModificationState", "IncorrectInstanceState"}, refusal.ErrorCode()) {
		return nil
	}
	return err
}

// killsWanted is how many, from MALLEE_KILLS.
func killsWanted(t *testing.T, least int) int {
	text := os.Getenv("MALLEE_KILLS")
	if text == "" {
		return least
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("MALLEE_KILLS=%s: want a number above 0", text)
	}
	return n
}

// TestEndure kills in the middle of each act, by each kind of kill in turn.
func TestEndure(t *testing.T) {
	t.Parallel()
	r := newRig(t, cloudOfOwn(t))
	list := acts()
	for n := range killsWanted(t, 2*len(kinds)) {
		if n%len(list) == 0 {
			r.noise.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		}
		r.round(list[n%len(list)], kinds[(n+n/len(list))%len(kinds)])
	}
	r.conclude()
	wrote, scanned := r.ledger.total()
	t.Logf("kills: %v; %d acknowledged writes, %d readings of whole volumes, %d spoiled lines", r.kills, wrote, scanned, r.ledger.garbled)
}
