package euca

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"

	"mallee/blob/mem"
	"mallee/cloud"
	"mallee/ebs"
	"mallee/iam"
	"mallee/peer"
	"mallee/snapshot"
	"mallee/state"
	"mallee/wire"
	"mallee/wire/sigv4"
)

// shore is one end of a migration: the real EBS direct API, and an EC2 that
// answers what a migration asks.
type shore struct {
	*testing.T
	store    *state.Store
	contents *snapshot.Store
	api      *ebs.EBS
	url      string
	image    string // DescribeImages's item

	puts  atomic.Int32 // blocks that were put
	until atomic.Int32 // the put from which on all are refused; 0: never
	deaf  atomic.Bool  // who completes a snapshot gets no answer

	mu         sync.Mutex // guards registered
	registered []wire.Form
}

const traveller cloud.AccountID = "123456789012"

func newShore(t *testing.T, seed byte) *shore {
	s := &shore{T: t}
	var err error
	if s.store, err = state.OpenMemory(t.Context(), state.NewMemory(), slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.store.Close() })
	if s.contents, err = snapshot.Open(mem.New(), t.TempDir(), snapshot.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.contents.Close() })
	s.api = ebs.New(ebs.Options{
		Store: s.store, IAM: &iam.IAM{Options: iam.Options{Store: s.store}}, Contents: s.contents, Secret: []byte("secret"), Region: "here",
		Now: time.Now, Rand: rand.NewChaCha8([32]byte{seed}), Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	server := httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

func (s *shore) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return // whoever asked was interrupted
	}
	if sigv4.ServiceOf(r) == "ebs" {
		if until := s.until.Load(); r.Method == http.MethodPut && s.puts.Add(1) >= until && until > 0 {
			http.Error(w, "{}", http.StatusBadRequest)
			return
		}
		if strings.HasPrefix(r.URL.Path, "/snapshots/completion/") && s.deaf.Load() {
			w = lost{w}
		}
		s.api.Handle(w, r, body, iam.Principal{Account: traveller, User: iam.AdminUser}, "request-1")
		return
	}
	form, err := wire.Parse(r, body)
	if err != nil {
		s.Error(err)
	}
	s.answer(w, form)
}

// lost is an answer that doesn't arrive.
type lost struct{ http.ResponseWriter }

func (l lost) WriteHeader(int) { l.ResponseWriter.WriteHeader(http.StatusBadRequest) }

func (s *shore) answer(w http.ResponseWriter, form wire.Form) {
	switch form.Get("Action") {
	case "DescribeImages":
		fmt.Fprintf(w, "<DescribeImagesResponse><imagesSet>%s</imagesSet></DescribeImagesResponse>", s.image)
	case "DescribeSnapshots":
		one, _, ok := state.Snapshots.Get(s.store.View(), cloud.SnapshotID(form.Get("SnapshotId.1")))
		if !ok {
			wire.WriteEC2Error(w, "request-1", wire.Errorf("InvalidSnapshot.NotFound", "The snapshot does not exist."))
			return
		}
		fmt.Fprintf(w, "<DescribeSnapshotsResponse><snapshotSet><item><status>%s</status></item></snapshotSet></DescribeSnapshotsResponse>", one.State())
	case "RegisterImage":
		s.mu.Lock()
		defer s.mu.Unlock()
		s.registered = append(s.registered, form)
		io.WriteString(w, "<RegisterImageResponse><imageId>ami-0000beef</imageId></RegisterImageResponse>")
	default:
		s.Errorf("asked for %s", form.Get("Action"))
	}
}

func (s *shore) place(name string) *place {
	who := credentials.NewStaticCredentialsProvider("AKID", "secret", "")
	return &place{
		name: name, ebs: ebsClient(name, s.url, who),
		ec2: &Client{Credentials: sigv4.Credentials{AccessKey: "AKID", Secret: "secret"}, Region: name, EC2: s.url},
	}
}

// holds a completed snapshot with the blocks.
func (s *shore) holds(id cloud.SnapshotID, gib int, blocks map[int64]byte) {
	s.Helper()
	w, err := s.contents.Write(s.Context(), string(id), int64(gib)<<30, nil)
	if err != nil {
		s.Fatal(err)
	}
	for index, fill := range blocks {
		if err := w.WriteAt(s.Context(), bytes.Repeat([]byte{fill}, peer.BlockSize), index*peer.BlockSize); err != nil {
			s.Fatal(err)
		}
	}
	content, err := w.Commit(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	s.change(func(tx *state.Tx) {
		state.Snapshots.Put(tx, cloud.Snapshot{ID: id, Account: traveller, SizeGiB: gib, Content: &content})
	})
}

func (s *shore) change(f func(tx *state.Tx)) {
	s.Helper()
	if err := s.store.Update(context.Background(), func(tx *state.Tx) error { f(tx); return nil }); err != nil {
		s.Fatal(err)
	}
}

// digest of all that a snapshot holds.
func (s *shore) digest(id cloud.SnapshotID) [32]byte {
	s.Helper()
	one, _, ok := state.Snapshots.Get(s.store.View(), id)
	if !ok || one.Content == nil {
		s.Fatalf("snapshot %s: %+v", id, one)
	}
	r, err := s.contents.Read(s.Context(), *one.Content)
	if err != nil {
		s.Fatal(err)
	}
	sum := sha256.New()
	for b, err := range r.Blocks(s.Context(), 0) {
		if err != nil {
			s.Fatal(err)
		}
		fmt.Fprintln(sum, b.Index, b.Digest)
	}
	return [32]byte(sum.Sum(nil))
}

const backedImage = `<item><imageId>ami-1</imageId><imageState>available</imageState><name>debian</name><architecture>arm64</architecture>
<bootMode>uefi</bootMode><rootDeviceType>ebs</rootDeviceType><rootDeviceName>/dev/xvda</rootDeviceName><virtualizationType>hvm</virtualizationType>
<enaSupport>true</enaSupport><blockDeviceMapping>
<item><deviceName>/dev/xvda</deviceName><ebs><snapshotId>snap-00000001</snapshotId><volumeSize>2</volumeSize><volumeType>gp2</volumeType><iops>100</iops><deleteOnTermination>true</deleteOnTermination></ebs></item>
<item><deviceName>/dev/sdf</deviceName><ebs><snapshotId>snap-00000002</snapshotId><volumeSize>5</volumeSize><volumeType>gp3</volumeType><iops>4000</iops></ebs></item>
<item><deviceName>/dev/sdg</deviceName><ebs><volumeSize>7</volumeSize></ebs></item>
<item><deviceName>/dev/sdb</deviceName><virtualName>ephemeral0</virtualName></item>
</blockDeviceMapping></item>`

func crossing(t *testing.T) (from, to *shore, m *migration) {
	from, to = newShore(t, 1), newShore(t, 2)
	from.image = backedImage
	blocks := map[int64]byte{}
	for i := range int64(60) {
		blocks[i*7] = byte(i + 1)
	}
	from.holds("snap-00000001", 2, blocks)
	from.holds("snap-00000002", 1, map[int64]byte{0: 9, 2047: 8})
	return from, to, &migration{dir: filepath.Join(t.TempDir(), "migrations"), from: from.place("aws-1"), to: to.place("mallee-1"), show: newProgress(io.Discard)}
}

// arrived checks what the last registration there was told.
func arrived(t *testing.T, from, to *shore, m *migration) {
	t.Helper()
	form := to.registered[len(to.registered)-1]
	for name, want := range map[string]string{
		"Name": "debian", "Architecture": "arm64", "BootMode": "uefi", "RootDeviceName": "/dev/xvda", "EnaSupport": "true", "VirtualizationType": "hvm",
		"BlockDeviceMapping.1.DeviceName": "/dev/xvda", "BlockDeviceMapping.1.Ebs.VolumeSize": "2", "BlockDeviceMapping.1.Ebs.VolumeType": "gp2", "BlockDeviceMapping.1.Ebs.Iops": "",
		"BlockDeviceMapping.1.Ebs.DeleteOnTermination": "true", "BlockDeviceMapping.2.Ebs.Iops": "4000", "BlockDeviceMapping.3.Ebs.VolumeSize": "7",
		"BlockDeviceMapping.3.Ebs.SnapshotId": "", "BlockDeviceMapping.4.VirtualName": "ephemeral0",
	} {
		if got := form.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	for n, source := range []cloud.SnapshotID{"snap-00000001", "snap-00000002"} {
		target := cloud.SnapshotID(form.Get(fmt.Sprintf("BlockDeviceMapping.%d.Ebs.SnapshotId", n+1)))
		if from.digest(source) != to.digest(target) {
			t.Errorf("%s is not what %s is", target, source)
		}
	}
	if left, _ := os.ReadDir(m.dir); len(left) != 0 {
		t.Errorf("journals are left: %v", left)
	}
}

func TestMigration(t *testing.T) {
	from, to, m := crossing(t)
	id, err := m.image(t.Context(), "ami-1", "")
	if err != nil || id != "ami-0000beef" {
		t.Fatalf("%q, %v", id, err)
	}
	arrived(t, from, to, m)
	if n := to.puts.Load(); n != 62 {
		t.Errorf("%d blocks were put", n)
	}
}

// TestMigrationGoesOn where it was interrupted.
func TestMigrationGoesOn(t *testing.T) {
	from, to, m := crossing(t)
	to.until.Store(30)
	if _, err := m.image(t.Context(), "ami-1", ""); err == nil {
		t.Fatal("it was not interrupted")
	}
	to.until.Store(0)
	put := to.puts.Swap(0)
	if _, err := m.image(t.Context(), "ami-1", ""); err != nil {
		t.Fatal(err)
	}
	arrived(t, from, to, m)
	if again := to.puts.Load(); again > 62-29+migrating { // those on their way may have arrived unnoticed
		t.Errorf("after %d puts %d more were made", put, again)
	}
}

// TestMigrationBeginsAnew where the half that was there was given up.
func TestMigrationBeginsAnew(t *testing.T) {
	from, to, m := crossing(t)
	to.until.Store(30)
	if _, err := m.image(t.Context(), "ami-1", ""); err == nil {
		t.Fatal("it was not interrupted")
	}
	to.until.Store(0)
	var half []cloud.SnapshotID
	for s := range state.Snapshots.All(to.store.View()) {
		half = append(half, s.ID)
	}
	to.change(func(tx *state.Tx) {
		for _, id := range half {
			state.Snapshots.Delete(tx, id)
		}
	})
	if _, err := m.image(t.Context(), "ami-1", ""); err != nil {
		t.Fatal(err)
	}
	arrived(t, from, to, m)
}

// TestMigrationThatDidNotHear of what became of its snapshot there goes on: it was
// completed, or has failed, or is gone.
func TestMigrationThatDidNotHear(t *testing.T) {
	for name, then := range map[string]func(tx *state.Tx, s cloud.Snapshot){
		"completed": func(*state.Tx, cloud.Snapshot) {},
		"failed": func(tx *state.Tx, s cloud.Snapshot) {
			s.Content = nil
			state.FailSnapshot(tx, s, cloud.Reason{Message: "no"})
		},
		"gone": func(tx *state.Tx, s cloud.Snapshot) { state.Snapshots.Delete(tx, s.ID) },
	} {
		t.Run(name, func(t *testing.T) {
			from, to, m := crossing(t)
			to.deaf.Store(true)
			if _, err := m.image(t.Context(), "ami-1", ""); err == nil {
				t.Fatal("it heard")
			}
			to.deaf.Store(false)
			to.puts.Store(0)
			half := slices.Collect(keys(to))
			to.change(func(tx *state.Tx) {
				s, _, _ := state.Snapshots.Get(tx, half[0])
				if s.State() != cloud.SnapshotCompleted {
					t.Errorf("it is %s there", s.State())
				}
				then(tx, *s)
			})
			if _, err := m.image(t.Context(), "ami-1", ""); err != nil {
				t.Fatal(err)
			}
			arrived(t, from, to, m)
			if again := to.puts.Load(); (again > 2) == (name == "completed") {
				t.Errorf("%d blocks were put again", again)
			}
		})
	}
}

// TestMigrationElsewhere: another cloud of the same region's name has nothing of
// what was begun in the first.
func TestMigrationElsewhere(t *testing.T) {
	from, to, m := crossing(t)
	to.until.Store(61) // the second snapshot's
	if _, err := m.image(t.Context(), "ami-1", ""); err == nil {
		t.Fatal("it was not interrupted")
	}
	other := newShore(t, 3)
	m.to = other.place("mallee-1")
	if _, err := m.image(t.Context(), "ami-1", ""); err != nil {
		t.Fatal(err)
	}
	form := other.registered[0]
	for n, source := range []cloud.SnapshotID{"snap-00000001", "snap-00000002"} {
		if from.digest(source) != other.digest(cloud.SnapshotID(form.Get(fmt.Sprintf("BlockDeviceMapping.%d.Ebs.SnapshotId", n+1)))) {
			t.Errorf("of %s there is something else", source)
		}
	}
}

// TestMigrationRefuses what can't be taken along, and takes nothing.
func TestMigrationRefuses(t *testing.T) {
	for name, test := range map[string]struct{ image, says string }{
		"an instance-store image": {strings.Replace(backedImage, "<rootDeviceType>ebs", "<rootDeviceType>instance-store", 1), "instance-store"},
		"a pending image":         {strings.Replace(backedImage, "available", "pending", 1), "pending"},
		"no image":                {"", "no image"},
		"a path for a snapshot":   {strings.Replace(backedImage, "snap-00000001", "../../snap-1", 1), "not a snapshot's id"},
		"no snapshot":             {strings.Replace(backedImage, "snap-00000001", "snap-99999999", 1), "snap-99999999"},
	} {
		t.Run(name, func(t *testing.T) {
			from, to, m := crossing(t)
			from.image = test.image
			if id, err := m.image(t.Context(), "ami-1", ""); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%q, %v", id, err)
			}
			if len(to.registered) > 0 {
				t.Error("it was registered")
			}
			if made := slices.Collect(keys(to)); len(made) > 0 {
				t.Errorf("there are %v", made)
			}
		})
	}
}

func keys(s *shore) func(func(cloud.SnapshotID) bool) {
	return func(yield func(cloud.SnapshotID) bool) {
		for one := range state.Snapshots.All(s.store.View()) {
			if !yield(one.ID) {
				return
			}
		}
	}
}
