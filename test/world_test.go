package test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"mallee/test/cloud"
)

// Deadlines are for emulated guests on a busy host, not what is promised.
const (
	soon      = 30 * time.Second // for what takes the cloud a moment
	bootTime  = 3 * time.Minute  // for a guest until it can be logged into
	buildTime = 5 * time.Minute  // for an image to be built of packages that are downloaded
)

// world is the cloud that the suites share.
type world struct {
	*cloud.Cloud
	hvm     string // machine images of the catalogue
	pv      string
	kernel  string
	ramdisk string
	hello   string // a machine image that only says helloLine
	guests  *guests
}

const (
	helloLine = "hello from the bundle"
	keyName   = "world"
)

// guests are two instances of each image, of one key pair, for whoever leaves
// them as they are.
type guests struct {
	key     string // private, PEM
	hvm, pv []types.Instance
}

func (g *guests) all() []types.Instance { return append(slices.Clone(g.hvm), g.pv...) }

var (
	sharedWorld = sync.OnceValues(newWorld)
	started     *world // what newWorld made, also where it failed later
)

func theWorld(t *testing.T) *world {
	t.Helper()
	w, err := sharedWorld()
	if err != nil {
		t.Fatalf("the shared cloud: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the cloud's log ends with:\n%s", w.LogTail(30))
		}
	})
	return w
}

func newWorld() (*world, error) {
	c, err := cloud.New()
	if err != nil {
		return nil, err
	}
	w := &world{Cloud: c}
	c.Env = append(c.Env, "PASSWORD="+secret)
	started = w
	ctx, cancel := context.WithTimeout(context.Background(), buildTime)
	defer cancel()
	if err := shareCatalog(c); err != nil {
		return w, err
	}
	if _, err := c.Up(ctx); err != nil {
		return w, err
	}
	if err := c.AllowSSH(ctx); err != nil {
		return w, err
	}
	ids, err := c.Install(ctx, "tiny")
	if err != nil {
		return w, err
	}
	w.hvm = ids[0]
	if ids, err = c.Install(ctx, "tiny-pv"); err != nil {
		return w, err
	}
	if len(ids) != 3 {
		return w, fmt.Errorf("installing tiny-pv printed %q, want a kernel, a ramdisk and a machine image", ids)
	}
	w.kernel, w.ramdisk, w.pv = ids[0], ids[1], ids[2]
	if w.hello, err = installHello(ctx, c); err != nil {
		return w, err
	}
	w.guests, err = w.newGuests(ctx) // they boot while the first tests run
	return w, err
}

// shareCatalog lets clouds of these tests, and of later runs, build an image once.
func shareCatalog(c *cloud.Cloud) error {
	dir, err := catalogDir()
	if err != nil {
		return err
	}
	return os.Symlink(dir, c.Path("catalog"))
}

func catalogDir() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	dir := filepath.Join(cache, "mallee-test", "catalog")
	return dir, os.MkdirAll(dir, 0o700)
}

func TestMain(m *testing.M) {
	status := m.Run()
	if err := destroyWorld(); err != nil {
		fmt.Fprintln(os.Stderr, "the shared cloud can't be destroyed:", err)
		status = 1
	}
	os.Exit(status)
}

// destroyWorld ends the shared cloud, if a test started it, with all that is left.
func destroyWorld() error {
	w := started
	if w == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := w.Destroy(ctx); err != nil {
		return err
	}
	if qemus, err := w.QEMUs(); err != nil || len(qemus) > 0 {
		return errors.Join(err, fmt.Errorf("mallee down --destroy left %v", qemus))
	}
	if _, err := os.Stat(w.Dir); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("mallee down --destroy left %s", w.Dir)
	}
	return nil
}

// theGuests that are shared. They run, and may be booting.
func theGuests(t *testing.T) (*world, *guests) {
	t.Helper()
	w := theWorld(t)
	await(t, w.Cloud, types.InstanceStateNameRunning, idsOf(w.guests.all())...)
	return w, w.guests
}

// userData is what the shared guests were given: not text, so that nothing on
// the way can take it for text.
var userData = []byte("user data\x00\xff of the guests\n")

func (w *world) newGuests(ctx context.Context) (*guests, error) {
	client, err := w.EC2()
	if err != nil {
		return nil, err
	}
	key, err := client.CreateKeyPair(ctx, &ec2.CreateKeyPairInput{KeyName: aws.String(keyName), KeyType: types.KeyTypeEd25519})
	if err != nil {
		return nil, err
	}
	g := &guests{key: *key.KeyMaterial}
	for image, into := range map[string]*[]types.Instance{w.hvm: &g.hvm, w.pv: &g.pv} {
		r, err := client.RunInstances(ctx, &ec2.RunInstancesInput{
			ImageId: aws.String(image), MinCount: aws.Int32(2), MaxCount: aws.Int32(2), KeyName: aws.String(keyName),
			InstanceType: "m1.small", UserData: aws.String(base64.StdEncoding.EncodeToString(userData)),
		})
		if err != nil {
			return nil, err
		}
		*into = r.Instances
	}
	return g, nil
}

// ec2 is a client of the program that runs now.
func (w *world) ec2(t *testing.T) *ec2.Client { return ec2Of(t, w.Cloud) }

func ec2Of(t *testing.T, c *cloud.Cloud) *ec2.Client {
	t.Helper()
	client, err := c.EC2()
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// within gives a context that ends then.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), d) // clean-ups use it too
	t.Cleanup(cancel)
	return ctx
}

// run instances that end with the test.
func run(t *testing.T, c *cloud.Cloud, in *ec2.RunInstancesInput) *ec2.RunInstancesOutput {
	t.Helper()
	if in.MinCount == nil {
		in.MinCount, in.MaxCount = aws.Int32(1), aws.Int32(1)
	}
	out, err := ec2Of(t, c).RunInstances(within(t, soon), in)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminate(t, c, idsOf(out.Instances)...) })
	return out
}

func idsOf(instances []types.Instance) (ids []string) {
	for _, i := range instances {
		ids = append(ids, *i.InstanceId)
	}
	return ids
}

// describe one instance.
func describe(ctx context.Context, c *cloud.Cloud, id string) (types.Instance, error) {
	client, err := c.EC2()
	if err != nil {
		return types.Instance{}, err
	}
	out, err := client.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: []string{id}})
	if err != nil {
		return types.Instance{}, err
	}
	if len(out.Reservations) != 1 || len(out.Reservations[0].Instances) != 1 {
		return types.Instance{}, fmt.Errorf("DescribeInstances of %s has %d reservations", id, len(out.Reservations))
	}
	return out.Reservations[0].Instances[0], nil
}

// await a state of instances; one that ends instead will never have another.
func await(t *testing.T, c *cloud.Cloud, state types.InstanceStateName, ids ...string) []types.Instance {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	var all []types.Instance
	for _, id := range ids {
		var i types.Instance
		err := cloud.Poll(ctx, id+" to be "+string(state), func() (err error) {
			if i, err = describe(ctx, c, id); err != nil {
				return err
			}
			switch now := i.State.Name; {
			case now == state:
				return nil
			case now == types.InstanceStateNameTerminated:
				return cloud.Never(fmt.Errorf("%s has ended: %s", id, reason(i)))
			default:
				return fmt.Errorf("%s is %s", id, now)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, i)
	}
	return all
}

func reason(i types.Instance) string {
	if i.StateReason == nil {
		return "no StateReason"
	}
	return aws.ToString(i.StateReason.Code) + ": " + aws.ToString(i.StateReason.Message)
}

// terminate instances, and see to it that nothing of them is left.
func terminate(t *testing.T, c *cloud.Cloud, ids ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	if _, err := ec2Of(t, c).TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: ids}); err != nil {
		t.Fatal(err)
	}
	await(t, c, types.InstanceStateNameTerminated, ids...)
	if err := c.Left(ids...); err != nil {
		t.Errorf("after termination: %v", err)
	}
}

// login to an instance as soon as it lets us in.
func login(t *testing.T, c *cloud.Cloud, i types.Instance, key string) *cloud.Guest {
	t.Helper()
	ctx := within(t, bootTime)
	if err := c.AllowSSH(ctx); err != nil {
		t.Fatal(err)
	}
	var g *cloud.Guest
	err := cloud.Poll(ctx, "a login to "+*i.InstanceId, func() (err error) {
		g, err = cloud.Login(ctx, *i.PublicIpAddress, key)
		if now, seen := describe(ctx, c, *i.InstanceId); seen == nil && now.State.Name == types.InstanceStateNameTerminated {
			return cloud.Never(fmt.Errorf("%s has ended: %s", *i.InstanceId, reason(now)))
		}
		return err
	})
	if err != nil {
		t.Fatalf("%v\nits console: %s", err, console(t, c, *i.InstanceId))
	}
	t.Cleanup(func() { g.Close() })
	return g
}

// newKey is the private half of a key pair that goes with the test.
func newKey(t *testing.T, c *cloud.Cloud, name string, kind types.KeyType) string {
	t.Helper()
	key, err := ec2Of(t, c).CreateKeyPair(within(t, soon), &ec2.CreateKeyPairInput{KeyName: &name, KeyType: kind})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := ec2Of(t, c).DeleteKeyPair(within(t, soon), &ec2.DeleteKeyPairInput{KeyName: &name}); err != nil {
			t.Error(err)
		}
	})
	return *key.KeyMaterial
}

// in the guest, a command that must succeed.
func in(t *testing.T, g *cloud.Guest, command string) string {
	t.Helper()
	out, err := g.Run(within(t, soon), command)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// console of an instance, decoded.
func console(t *testing.T, c *cloud.Cloud, id string) string {
	t.Helper()
	out, err := ec2Of(t, c).GetConsoleOutput(within(t, soon), &ec2.GetConsoleOutputInput{InstanceId: aws.String(id)})
	if err != nil {
		t.Fatal(err)
	}
	text, err := base64.StdEncoding.DecodeString(aws.ToString(out.Output))
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(text), "\r", "")
}
