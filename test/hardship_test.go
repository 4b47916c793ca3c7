package test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// TestEndureTheStore: the bytes that a guest's volume was made from are away for a
// while, and are damaged for a while. Something dies meanwhile. The guest waits, its
// owner is told why, and with the bytes back everything goes on; nothing is wrong.
func TestEndureTheStore(t *testing.T) {
	inEarnest(t)
	t.Parallel()
	r := newRig(t, cloudOfOwn(t))
	n := r.noise.IntN(len(kinds))
	for _, misery := range []struct {
		name        string
		begin, end  func() error
		event       string
		alsoOnStart string // a program that begins without the store makes an empty one
	}{
		{"away", func() error { return os.Rename(r.Path("snapshots"), r.Path("away")) },
			func() error {
				return errors.Join(os.RemoveAll(r.Path("snapshots")), os.Rename(r.Path("away"), r.Path("snapshots")))
			},
			"io-performance:stalled", "potential-data-inconsistency"},
		{"damaged", r.flip, r.flip, "potential-data-inconsistency", ""},
	} {
		n++
		r.during(misery.name, kinds[n%len(kinds)], misery.begin, misery.end, misery.event, misery.alsoOnStart)
	}
	r.conclude()
	t.Logf("kills: %v", r.kills)
}

// inEarnest skips what takes some minutes of processors.
func inEarnest(t *testing.T) {
	t.Helper()
	if os.Getenv("MALLEE_KILLS") == "" {
		t.Skip("takes some minutes: set MALLEE_KILLS, or make endure")
	}
}

// during a misery of the store, the guest gets a volume that needs it, and something
// is killed.
func (r *rig) during(name string, k kill, begin, end func() error, events ...string) {
	r.t.Helper()
	a := reading()
	a.prepare(r)
	r.strike(kill{mallee: true}) // the next one has read nothing
	r.up()
	since := r.books(r.mounted())
	if err := begin(); err != nil {
		r.t.Fatal(err)
	}
	if err := a.wish(within(r.t, soon), r.client(), r); err != nil {
		r.t.Fatal(err)
	}
	r.impaired(events...)
	r.strike(k)
	if k.mallee {
		r.up()
		r.impaired(events...)
	}
	if err := end(); err != nil {
		r.t.Fatal(err)
	}
	a.finish(r)
	if k.qemu {
		r.rereads(since)
	}
	r.writes(r.mounted()...)
	r.until("the volume to be well", func(ctx context.Context) error {
		s, err := r.status(ctx)
		if err == nil && (s.VolumeStatus.Status != types.VolumeStatusInfoStatusOk || len(s.Events) > 0) {
			err = fmt.Errorf("it is %s, with %d events", s.VolumeStatus.Status, len(s.Events))
		}
		return err
	})
	r.owned()
	r.t.Logf("%s, %s killed", name, k)
}

func (r *rig) status(ctx context.Context) (types.VolumeStatusItem, error) {
	out, err := r.client().DescribeVolumeStatus(ctx, &ec2.DescribeVolumeStatusInput{VolumeIds: []string{r.spare}})
	if err != nil {
		return types.VolumeStatusItem{}, err
	}
	return out.VolumeStatuses[0], nil
}

// impaired waits until the spare volume's owner is told that it is, by one of these
// events.
func (r *rig) impaired(events ...string) {
	r.t.Helper()
	r.until("the volume to be impaired", func(ctx context.Context) error {
		s, err := r.status(ctx)
		if err != nil {
			return err
		}
		for _, e := range s.Events {
			for _, want := range events {
				if aws.ToString(e.EventType) == want && s.VolumeStatus.Status == types.VolumeStatusInfoStatusImpaired {
					return nil
				}
			}
		}
		return fmt.Errorf("it is %s, with %d events", s.VolumeStatus.Status, len(s.Events))
	})
}

// flip a bit of each block in the store; the next time it is flipped back.
func (r *rig) flip() error {
	return filepath.WalkDir(r.Path("snapshots", "blocks"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		b := make([]byte, 1)
		if _, err := f.ReadAt(b, 100); err != nil {
			return err
		}
		b[0] ^= 1
		_, err = f.WriteAt(b, 100)
		return err
	})
}

// TestEndureFullDisk: the disk is full while a guest writes where nothing was written
// before, and something dies. With space again everything goes on.
func TestEndureFullDisk(t *testing.T) {
	inEarnest(t)
	t.Parallel()
	c := smallDiskCloud(t, "1g")
	c.Flags = []string{"--disk", "20"} // tasks leave a part of that free
	r := newRig(t, c)
	n := r.noise.IntN(len(kinds))
	for range kinds {
		n++
		k := kinds[n%len(kinds)]
		r.renew()
		since := r.books(r.mounted())
		ballast(t, r.Cloud, 1<<20+r.noise.Int64N(1<<20)) // some for what attaching takes
		if err := attach(within(t, soon), r.client(), r); err != nil {
			t.Fatal(err)
		}
		r.full()
		r.strike(k)
		var down error
		if k.mallee {
			if _, down = r.Up(within(t, soon)); down != nil {
				t.Log("mallee does not start on a full disk, and starts when there is space")
			}
		}
		if err := os.Remove(r.Path("ballast")); err != nil {
			t.Fatal(err)
		}
		if down != nil {
			r.up()
		}
		attaching().finish(r)
		if k.qemu {
			r.rereads(since)
		}
		r.writes(r.mounted()...)
		r.owned()
		t.Logf("full, %s killed", k)
	}
	r.conclude()
	t.Logf("kills: %v", r.kills)
}

// renew the spare: an empty volume that no machine has.
func (r *rig) renew() {
	r.t.Helper()
	detached(r)
	made, err := create(within(r.t, soon), r.client(), "", rand.Text())
	if err == nil {
		r.available(made)
		_, err = r.client().DeleteVolume(within(r.t, soon), &ec2.DeleteVolumeInput{VolumeId: &r.spare})
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.spare = made
}

// full waits until the disk is.
func (r *rig) full() {
	r.t.Helper()
	r.until("the guest to fill the disk", func(context.Context) error {
		if room := free(r.t, r.Cloud); room > 256<<10 {
			return fmt.Errorf("%d bytes are free", room)
		}
		return nil
	})
}
