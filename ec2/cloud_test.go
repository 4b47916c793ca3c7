package ec2

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"mallee/bundle"
	"mallee/cloud"
	"mallee/iam"
	"mallee/state"
	"mallee/wire"
)

var update = flag.Bool("update", false, "write the transcripts in testdata anew")

// keysDir holds the cloud's and its admin's keys, which all tests share because
// they take long to make.
var keysDir string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(withKeys(m.Run))
}

func withKeys(run func() int) int {
	var err error
	if keysDir, err = os.MkdirTemp("", "ec2-keys-"); err != nil {
		panic(err)
	}
	defer os.RemoveAll(keysDir)
	store, err := state.OpenMemory(context.Background(), state.NewMemory(), slog.New(slog.DiscardHandler))
	if err == nil {
		_, err = iam.Open(context.Background(), iamOptions(store))
	}
	if err != nil {
		panic(err)
	}
	return run()
}

func iamOptions(store *state.Store) iam.Options {
	return iam.Options{Store: store, Dir: filepath.Join(keysDir, "keys"), Now: startTime, Rand: seeded(), Log: slog.New(slog.DiscardHandler)}
}

func startTime() time.Time { return time.Date(2026, 11, 22, 3, 4, 5, 0, time.UTC) }

// seeded randomness, safe for many.
func seeded() io.Reader { return &lockedReader{r: rand.NewChaCha8([32]byte{1})} }

type lockedReader struct {
	mu sync.Mutex // guards r
	r  io.Reader
}

func (l *lockedReader) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.r.Read(p)
}

// aCloud is an EC2 on a state in memory, and what stands around it.
type aCloud struct {
	*EC2
	tb      testing.TB
	admin   iam.Principal // of the system account
	user    iam.Principal // admin of an ordinary account
	objects objects
	console consoles
	log     bytes.Buffer
	now     time.Time
}

// ordinary is the account number of aCloud's user.
const ordinary cloud.AccountID = "111122223333"

func newCloud(tb testing.TB) *aCloud {
	tb.Helper()
	ctx := context.Background()
	c := &aCloud{tb: tb, objects: objects{}, console: consoles{}, now: startTime()}
	store, err := state.OpenMemory(ctx, state.NewMemory(), slog.New(slog.DiscardHandler))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { store.Close() })
	who, err := iam.Open(ctx, iamOptions(store))
	if err != nil {
		tb.Fatal(err)
	}
	admin, err := who.SystemAdmin()
	if err != nil {
		tb.Fatal(err)
	}
	c.admin, _, _ = who.Principal(admin.AccessKey)
	c.user = iam.Principal{Account: ordinary, User: iam.AdminUser}
	c.EC2, err = New(Options{
		Store: store, IAM: who, Objects: c.objects, Console: c.console, Region: "mallee", Endpoint: "http://127.0.0.1:8773",
		Pools: state.Pools{Public: netip.MustParsePrefix("127.31.0.0/16")}, TakeWithin: time.Millisecond,
		Now: func() time.Time { return c.now }, Rand: seeded(), Log: slog.New(slog.NewTextHandler(&c.log, nil)),
	})
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// withNodes adds nodes to a zone.
func (c *aCloud) withNodes(zone string, n int, size cloud.Size) *aCloud {
	c.write(func(tx *state.Tx) {
		for i := range n {
			state.Nodes.Put(tx, cloud.Node{ID: cloud.NodeID(fmt.Sprintf("%s-%d", zone, i)), Zone: zone, Capacity: size, JoinedAt: c.now})
		}
	})
	return c
}

// Images that withImages puts into the state.
const (
	hvmImage     = "emi-00000001"
	pvImage      = "emi-00000002"
	privateImage = "emi-00000003" // the user's own
	hugeImage    = "emi-00000004"
	goneImage    = "emi-00000005"
	kernelImage  = "eki-00000001"
	ramdiskImage = "eri-00000001"
)

func (c *aCloud) withImages() *aCloud {
	image := func(id cloud.ImageID, kind cloud.ImageKind, v cloud.Virtualization) cloud.Image {
		return cloud.Image{
			ID: id, Account: c.admin.Account, Kind: kind, Name: "image " + string(id), Location: "images/" + string(id) + ".manifest.xml",
			ManifestDigest: "pin", Digest: "d1", Size: 32 << 20, Architecture: "x86_64", Virtualization: v, Public: true, CreatedAt: c.now,
			RootDevice: "/dev/sda1",
		}
	}
	hvm, pv := image(hvmImage, cloud.MachineImage, cloud.HVM), image(pvImage, cloud.MachineImage, cloud.Paravirtual)
	pv.Kernel, pv.Ramdisk = kernelImage, ramdiskImage
	private, huge, gone := hvm, hvm, hvm
	private.ID, private.Account, private.Public = privateImage, ordinary, false
	huge.ID, huge.Size = hugeImage, 40<<30
	gone.ID, gone.Deregistered = goneImage, c.now
	c.write(func(tx *state.Tx) {
		for _, i := range []cloud.Image{hvm, pv, private, huge, gone, image(kernelImage, cloud.KernelImage, ""), image(ramdiskImage, cloud.RamdiskImage, "")} {
			state.Images.Put(tx, i)
		}
	})
	return c
}

// Snapshots that withSnapshots puts into the state.
const (
	completeSnapshot = "snap-00000001" // the user's own, of 8 GiB
	pendingSnapshot  = "snap-00000002" // the user's own
	publicSnapshot   = "snap-00000003" // the system account's, encrypted, of 2 GiB
	secretSnapshot   = "snap-00000004" // the system account's own, of 4 GiB
	errorSnapshot    = "snap-00000005" // the user's own
)

func (c *aCloud) withSnapshots() *aCloud {
	content := func(gib int64) *cloud.Content {
		return &cloud.Content{Manifest: fmt.Sprintf("%064x", gib), Size: gib << 30}
	}
	c.write(func(tx *state.Tx) {
		for _, s := range []cloud.Snapshot{
			{ID: completeSnapshot, Account: ordinary, SizeGiB: 8, Content: content(8)},
			{ID: pendingSnapshot, Account: ordinary, SizeGiB: 8},
			{ID: publicSnapshot, Account: c.admin.Account, SizeGiB: 2, Public: true, Encrypted: true, Content: content(2)},
			{ID: secretSnapshot, Account: c.admin.Account, SizeGiB: 4, Content: content(4)},
			{ID: errorSnapshot, Account: ordinary, SizeGiB: 8, Failed: cloud.Reason{Code: "Server.InternalError", Message: "the disk is on fire"}},
		} {
			s.StartedAt = c.now
			state.Snapshots.Put(tx, s)
		}
	})
	return c
}

// ready has room for many instances, and images.
func ready(tb testing.TB) *aCloud {
	return newCloud(tb).withNodes("one", 2, cloud.Size{VCPUs: 1000, MemoryMiB: 1 << 20, DiskGiB: 100_000}).withImages()
}

func (c *aCloud) write(f func(tx *state.Tx)) {
	c.tb.Helper()
	if err := c.Store.Update(context.Background(), func(tx *state.Tx) error { f(tx); return nil }); err != nil {
		c.tb.Fatal(err)
	}
}

// seen up, as a node's report would make it.
func (c *aCloud) seenUp(ids ...string) {
	c.write(func(tx *state.Tx) {
		for _, id := range ids {
			state.Observations.Put(tx, cloud.Observation{Instance: cloud.InstanceID(id), Phase: cloud.PhaseUp, UpWish: 1, At: c.now})
		}
	})
}

// send a request, as the parameters name=value, through the front way in.
func (c *aCloud) send(who iam.Principal, action string, parameters ...string) (int, string) {
	c.tb.Helper()
	form := wire.Form{"Action": action, "Version": "2016-11-15"}
	for _, p := range parameters {
		name, value, _ := strings.Cut(p, "=")
		if name == "" {
			continue
		}
		form[name] = value
	}
	w := httptest.NewRecorder()
	c.Handle(w, httptest.NewRequest("POST", "/", nil), form, who, "11111111-2222-4333-8444-555555555555")
	return w.Code, w.Body.String()
}

// get what a reply that succeeds says.
func get[T any](c *aCloud, who iam.Principal, action string, parameters ...string) T {
	c.tb.Helper()
	status, body := c.send(who, action, parameters...)
	if status != http.StatusOK {
		c.tb.Fatalf("%s %v: status %d: %s", action, parameters, status, body)
	}
	var out T
	if err := xml.Unmarshal([]byte(body), &out); err != nil {
		c.tb.Fatalf("%s: %v in %s", action, err, body)
	}
	return out
}

// refusal is what an error's reply says.
type refusal struct {
	Code    string `xml:"Errors>Error>Code"`
	Message string `xml:"Errors>Error>Message"`
}

func (c *aCloud) refused(who iam.Principal, action string, parameters ...string) refusal {
	c.tb.Helper()
	status, body := c.send(who, action, parameters...)
	var r refusal
	if err := xml.Unmarshal([]byte(body), &r); err != nil {
		c.tb.Fatalf("%s: %v in %s", action, err, body)
	}
	if status == http.StatusOK || r.Code == "" {
		c.tb.Fatalf("%s %v succeeded: %s", action, parameters, body)
	}
	if r.Code == "InternalError" {
		c.tb.Fatalf("%s %v: status %d: %s", action, parameters, status, c.log.String())
	}
	return r
}

// run instances and return their ids.
func (c *aCloud) run(who iam.Principal, parameters ...string) []string {
	c.tb.Helper()
	r := get[reservationReply](c, who, "RunInstances", append([]string{"ImageId=" + hvmImage}, parameters...)...)
	var ids []string
	for _, i := range r.Instances {
		ids = append(ids, i.ID)
	}
	return ids
}

// objects is a Walrus in which everybody may read all but keys under secret/.
type objects map[string][]byte

func (o objects) ReadObject(_ context.Context, _ iam.Principal, bucket, key string, limit int64) ([]byte, error) {
	data, ok := o[bucket+"/"+key]
	switch {
	case strings.HasPrefix(key, "secret/"):
		return nil, fmt.Errorf("read %s: %w", key, fs.ErrPermission)
	case strings.HasPrefix(key, "broken/"):
		return nil, errors.New("the disk is on fire")
	case !ok:
		return nil, fmt.Errorf("read %s: %w", key, fs.ErrNotExist)
	case int64(len(data)) > limit:
		return nil, fmt.Errorf("read %s: %w", key, ErrObjectTooLarge)
	}
	return data, nil
}

func (o objects) StatObject(ctx context.Context, p iam.Principal, bucket, key string) (int64, error) {
	data, err := o.ReadObject(ctx, p, bucket, key, 1<<62)
	return int64(len(data)), err
}

// KeysOf: buckets named others belong to somebody else, those named missing aren't there.
func (o objects) KeysOf(_ context.Context, _ iam.Principal, bucket, prefix string, create bool) (keys []string, err error) {
	switch {
	case bucket == "others":
		return nil, fmt.Errorf("write into %s: %w", bucket, fs.ErrPermission)
	case bucket == "missing" && !create:
		return nil, fmt.Errorf("write into %s: %w", bucket, fs.ErrNotExist)
	}
	for key := range o {
		if strings.HasPrefix(key, bucket+"/"+prefix) {
			keys = append(keys, strings.TrimPrefix(key, bucket+"/"))
		}
	}
	return keys, nil
}

// OwnBucket is others' where somebody has put the key taken into it.
func (o objects) OwnBucket(_ context.Context, _ iam.Principal, bucket string) error {
	if _, taken := o[bucket+"/taken"]; taken {
		return fmt.Errorf("bucket %s: %w", bucket, fs.ErrPermission)
	}
	return nil
}

// consoles by instance.
type consoles map[cloud.InstanceID]string

func (c consoles) Console(_ context.Context, id cloud.InstanceID) (io.ReadSeekCloser, error) {
	text, ok := c[id]
	if !ok {
		return nil, fmt.Errorf("console of %s: %w", id, fs.ErrNotExist)
	}
	return console{strings.NewReader(text)}, nil
}

// Screenshot is of whoever has a console.
func (c consoles) Screenshot(_ context.Context, id cloud.InstanceID, wake bool) ([]byte, error) {
	if _, ok := c[id]; !ok {
		return nil, fmt.Errorf("screenshot of %s: %w", id, fs.ErrNotExist)
	}
	return fmt.Appendf(nil, "a picture of %s, woken %t", id, wake), nil
}

type console struct{ *strings.Reader }

func (console) Close() error { return nil }

// bundled puts the manifest of a small bundle into objects at the location.
func (c *aCloud) bundled(location string, change func(*bundle.Options)) {
	c.tb.Helper()
	key, cert := c.signer()
	o := bundle.Options{
		Prefix: "tiny", Account: string(c.admin.Account), Kind: bundle.Machine, Architecture: "x86_64",
		CloudCert: c.IAM.CloudCertificate(), UserCert: cert, UserKey: key,
	}
	if change != nil {
		change(&o)
	}
	_, text, err := bundle.Write(context.Background(), strings.NewReader("an image, small"), 15, o, discarding)
	if err != nil {
		c.tb.Fatal(err)
	}
	c.objects[location] = text
}

// signer is the key and certificate of the system account's admin.
func (c *aCloud) signer() (*rsa.PrivateKey, *x509.Certificate) {
	c.tb.Helper()
	certificates, err := c.IAM.SigningCertificates(c.admin.Account)
	if err != nil {
		c.tb.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(keysDir, "keys", "admin-pk.pem"))
	if err != nil {
		c.tb.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key, certificates[0]
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		c.tb.Fatal(err)
	}
	return key.(*rsa.PrivateKey), certificates[0]
}

func discarding(context.Context, string) (bundle.PartWriter, error) { return discard{}, nil }

// discard takes parts and forgets them.
type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) Close() error                { return nil }
func (discard) CloseWithError(error) error  { return nil }
