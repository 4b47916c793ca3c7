package test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"mallee/test/stamp"
)

// acts are all that is done while something dies.
func acts() []act {
	return []act{
		{name: "nothing"},
		attaching(),
		detaching(),
		snapshotting("of an attached volume", func(r *rig) string { return r.plain }),
		snapshotting("of an encrypted volume", func(r *rig) string { return r.secret }),
		{name: "snapshot of a free volume", prepare: detached, wish: keptSnapshot.wish, finish: keptSnapshot.finish},
		restoring(),
		reading(),
		growing(),
		stopping(),
		starting(),
	}
}

const spareDevice = "/dev/sdh"

func attaching() act {
	return act{
		name:    "attach",
		prepare: detached,
		wish:    attach,
		finish: func(r *rig) {
			since := r.ledger.look(serialOf(r.spare))
			r.until(r.spare+" to be attached", func(ctx context.Context) error { return r.volumeIs(ctx, r.spare, types.VolumeStateInUse) })
			r.attached = true
			if since.wrote == 0 || since.scanned == 0 {
				r.until("the guest to read "+r.spare, func(context.Context) error {
					if r.ledger.look(serialOf(r.spare)).scanned == 0 {
						return errors.New("it has not")
					}
					return nil
				})
			}
			r.writes(r.spare)
		},
	}
}

func attach(ctx context.Context, api *ec2.Client, r *rig) error {
	_, err := api.AttachVolume(ctx, &ec2.AttachVolumeInput{VolumeId: &r.spare, InstanceId: &r.instance, Device: aws.String(spareDevice)})
	return err
}

func detaching() act {
	return act{
		name:    "detach",
		prepare: attached,
		wish:    detach,
		finish: func(r *rig) {
			r.available(r.spare)
			r.attached = false
		},
	}
}

func detach(ctx context.Context, api *ec2.Client, r *rig) error {
	_, err := api.DetachVolume(ctx, &ec2.DetachVolumeInput{VolumeId: &r.spare})
	return err
}

// calmly does an act without a kill.
func (r *rig) calmly(a act) {
	r.t.Helper()
	if err := a.wish(within(r.t, endureTime), r.client(), r); err != nil {
		r.t.Fatalf("%s: %v", a.name, err)
	}
	a.finish(r)
}

// detached has a spare volume that is in no machine.
func detached(r *rig) {
	if r.spare == "" {
		var err error
		if r.spare, err = create(within(r.t, soon), r.client(), "", rand.Text()); err != nil {
			r.t.Fatal(err)
		}
		r.available(r.spare)
	}
	if r.attached {
		r.calmly(detaching())
	}
}

func attached(r *rig) {
	if !r.attached {
		detached(r)
		r.calmly(attaching())
	}
}

// create a volume, empty or from a snapshot.
func create(ctx context.Context, api *ec2.Client, snapshot, token string) (string, error) {
	in := &ec2.CreateVolumeInput{AvailabilityZone: aws.String("mallee-1a"), ClientToken: &token}
	if in.SnapshotId = &snapshot; snapshot == "" {
		in.SnapshotId, in.Size = nil, aws.Int32(1)
	}
	out, err := api.CreateVolume(ctx, in)
	if err != nil {
		return "", err
	}
	return *out.VolumeId, nil
}

// available waits until a volume is.
func (r *rig) available(id string) {
	r.t.Helper()
	r.until(id+" to be available", func(ctx context.Context) error { return r.volumeIs(ctx, id, types.VolumeStateAvailable) })
}

// volumeIs nil where the volume is in that state, and its attachment has come to
// an end.
func (r *rig) volumeIs(ctx context.Context, id string, want types.VolumeState) error {
	out, err := r.client().DescribeVolumes(ctx, &ec2.DescribeVolumesInput{VolumeIds: []string{id}})
	if err != nil {
		return err
	}
	v := out.Volumes[0]
	for _, a := range v.Attachments {
		if want == types.VolumeStateInUse && a.State != types.VolumeAttachmentStateAttached {
			return fmt.Errorf("%s is %s", id, a.State)
		}
	}
	if v.State != want {
		return fmt.Errorf("%s is %s", id, v.State)
	}
	return nil
}

// snapshot that is being taken.
type snapshotWish struct {
	of     string
	before floors
}

// snapshotting a volume. The guest knows of each write before the call that it is in
// the snapshot, if that is completed; one that a death has cut off may fail, and in
// words.
func snapshotting(name string, of func(r *rig) string) act {
	w := &snapshotWish{}
	return act{
		name: "snapshot " + name,
		wish: func(ctx context.Context, api *ec2.Client, r *rig) error {
			w.of = of(r)
			r.listener.hear()
			w.before = r.ledger.look(serialOf(w.of)).floors
			_, err := api.CreateSnapshot(ctx, &ec2.CreateSnapshotInput{VolumeId: &w.of})
			return err
		},
		finish: func(r *rig) {
			for _, s := range r.ended(w.of) {
				r.judge(*s.SnapshotId, w.of, w.before)
			}
		},
	}
}

var keptSnapshot = snapshotting("of the spare", func(r *rig) string { return r.spare })

// ended waits until no snapshot of the volume is pending, and lists those that are
// new and completed. What failed is deleted.
func (r *rig) ended(volume string) (completed []types.Snapshot) {
	r.t.Helper()
	r.until("the snapshots of "+volume+" to end", func(ctx context.Context) error {
		out, err := r.client().DescribeSnapshots(ctx, &ec2.DescribeSnapshotsInput{Filters: []types.Filter{{Name: aws.String("volume-id"), Values: []string{volume}}}})
		if err != nil {
			return err
		}
		completed = nil
		for _, s := range out.Snapshots {
			known := slices.ContainsFunc(r.taken, func(t taken) bool { return t.id == *s.SnapshotId })
			switch {
			case s.State == types.SnapshotStatePending:
				return fmt.Errorf("%s is pending at %s", *s.SnapshotId, aws.ToString(s.Progress))
			case s.State == types.SnapshotStateError:
				r.t.Logf("%s of %s has failed: %s", *s.SnapshotId, volume, aws.ToString(s.StateMessage))
				if _, err := r.client().DeleteSnapshot(ctx, &ec2.DeleteSnapshotInput{SnapshotId: s.SnapshotId}); err != nil {
					return err
				}
			case !known:
				completed = append(completed, s)
			}
		}
		return nil
	})
	return completed
}

// judge a completed snapshot by all of its bytes. The two last ones are kept.
func (r *rig) judge(id, of string, before floors) {
	r.t.Helper()
	blocks := blocksOf(r.t, r.Cloud, id)
	held, err := r.ledger.judgeAll(serialOf(of), before, func(offset int64) []byte {
		if b := blocks[int32(offset/blockSize)]; b != nil {
			return b[offset%blockSize:][:stamp.Size]
		}
		return make([]byte, stamp.Size)
	})
	if err != nil {
		r.t.Fatalf("snapshot %s: %v", id, err)
	}
	r.taken = append(r.taken, taken{id, of, held})
	for len(r.taken) > 2 {
		if _, err := r.client().DeleteSnapshot(within(r.t, soon), &ec2.DeleteSnapshotInput{SnapshotId: &r.taken[0].id}); err != nil {
			r.t.Fatal(err)
		}
		r.taken = r.taken[1:]
	}
}

// restoring makes a volume of the last snapshot, which takes the spare's place.
func restoring() act {
	var made, token string
	var from taken
	return act{
		name: "volume from a snapshot",
		prepare: func(r *rig) {
			if len(r.taken) == 0 {
				r.calmly(snapshotting("for a volume", func(r *rig) string { return r.plain }))
			}
			detached(r)
			token, from = rand.Text(), r.taken[len(r.taken)-1]
		},
		wish: func(ctx context.Context, api *ec2.Client, r *rig) (err error) {
			made, err = create(ctx, api, from.id, token)
			return err
		},
		finish: func(r *rig) {
			r.available(made)
			r.ledger.from(serialOf(made), from.held)
			if _, err := r.client().DeleteVolume(within(r.t, soon), &ec2.DeleteVolumeInput{VolumeId: &r.spare}); err != nil {
				r.t.Fatal(err)
			}
			r.spare = made
		},
	}
}

// reading gives the guest a volume that is just made of a snapshot: it reads from it,
// and writes to it, while it is filled.
func reading() act {
	a := attaching()
	a.name = "attach a volume from a snapshot"
	a.prepare = func(r *rig) {
		a := restoring()
		a.prepare(r)
		r.calmly(a)
	}
	return a
}

func growing() act {
	return act{
		name: "grow",
		wish: func(ctx context.Context, api *ec2.Client, r *rig) error {
			size, err := sizeOf(ctx, api, r.plain)
			if err != nil {
				return err
			}
			_, err = r.client().ModifyVolume(ctx, &ec2.ModifyVolumeInput{VolumeId: &r.plain, Size: aws.Int32(size + 1)})
			return err
		},
		finish: func(r *rig) {
			r.until(r.plain+" to grow", func(ctx context.Context) error {
				out, err := r.client().DescribeVolumesModifications(ctx, &ec2.DescribeVolumesModificationsInput{VolumeIds: []string{r.plain}})
				if err != nil {
					return err
				}
				if m := out.VolumesModifications[0]; m.ModificationState != types.VolumeModificationStateCompleted {
					return fmt.Errorf("it is %s", m.ModificationState)
				}
				return nil
			})
		},
	}
}

func sizeOf(ctx context.Context, api *ec2.Client, id string) (int32, error) {
	out, err := api.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{VolumeIds: []string{id}})
	if err != nil {
		return 0, err
	}
	return *out.Volumes[0].Size, nil
}

func stopping() act {
	return act{
		name: "stop",
		wish: func(ctx context.Context, api *ec2.Client, r *rig) error {
			_, err := api.StopInstances(ctx, &ec2.StopInstancesInput{InstanceIds: []string{r.instance}})
			return err
		},
		finish: func(r *rig) {
			r.awaitState(types.InstanceStateNameStopped)
			since := r.books(r.mounted())
			r.calmly(act{name: "start", wish: starting().wish, finish: starting().finish})
			r.rereads(since)
		},
	}
}

func starting() act {
	return act{
		name: "start",
		prepare: func(r *rig) {
			if err := stopping().wish(within(r.t, soon), r.client(), r); err != nil {
				r.t.Fatal(err)
			}
			r.awaitState(types.InstanceStateNameStopped)
		},
		wish: func(ctx context.Context, api *ec2.Client, r *rig) error {
			_, err := api.StartInstances(ctx, &ec2.StartInstancesInput{InstanceIds: []string{r.instance}})
			return err
		},
		finish: func(r *rig) { r.awaitState(types.InstanceStateNameRunning) },
	}
}

func (r *rig) awaitState(want types.InstanceStateName) {
	r.t.Helper()
	r.until(r.instance+" to be "+string(want), func(ctx context.Context) error {
		i, err := describe(ctx, r.Cloud, r.instance)
		if err != nil {
			return err
		}
		if i.State.Name != want {
			return fmt.Errorf("it is %s: %s", i.State.Name, reason(i))
		}
		return nil
	})
}

// owned waits until everything on the disk belongs to something that the cloud knows.
func (r *rig) owned() {
	r.t.Helper()
	r.until("everything on the disk to be somebody's", func(ctx context.Context) error {
		volumes, err := r.client().DescribeVolumes(ctx, &ec2.DescribeVolumesInput{})
		if err != nil {
			return err
		}
		want := map[string][]string{"machines": {r.instance}, "disks": nil, "snapshots": nil, "journals": nil}
		for _, v := range volumes.Volumes {
			want["volumes"] = append(want["volumes"], *v.VolumeId+".qcow2")
		}
		for dir, names := range want {
			there, err := namesIn(r.Path("node", dir))
			if err != nil {
				return err
			}
			if !sameStrings(there, names) {
				return fmt.Errorf("node/%s holds %v, want %v", dir, there, names)
			}
		}
		return nil
	})
}

func namesIn(dir string) (names []string, err error) {
	found, err := filepath.Glob(dir + "/*")
	for _, path := range found {
		names = append(names, filepath.Base(path))
	}
	hidden, _ := filepath.Glob(dir + "/.[a-z]*")
	for _, path := range hidden {
		names = append(names, filepath.Base(path))
	}
	return names, err
}

// conclude judges all volumes once more without a guest, by snapshots of them; then
// deletes everything, after which nothing is left.
func (r *rig) conclude() {
	r.t.Helper()
	attached(r)
	volumes := []string{r.plain, r.secret, r.spare}
	if err := stopping().wish(within(r.t, soon), r.client(), r); err != nil {
		r.t.Fatal(err)
	}
	r.awaitState(types.InstanceStateNameStopped)
	r.listener.hear()
	for _, v := range volumes {
		a := snapshotting("at the end", func(*rig) string { return v })
		r.calmly(a)
		if r.taken[len(r.taken)-1].of != v {
			r.t.Fatalf("the last snapshot of %s has failed", v)
		}
	}
	r.empty()
}

func (r *rig) empty() {
	r.t.Helper()
	ctx := within(r.t, endureTime)
	detached(r)
	terminate(r.t, r.Cloud, r.instance)
	_, err := r.client().DeleteVolume(ctx, &ec2.DeleteVolumeInput{VolumeId: &r.spare})
	for _, s := range r.taken {
		_, gone := r.client().DeleteSnapshot(ctx, &ec2.DeleteSnapshotInput{SnapshotId: &s.id})
		err = errors.Join(err, gone)
	}
	images, listed := r.client().DescribeImages(ctx, &ec2.DescribeImagesInput{Owners: []string{"self"}})
	if err = errors.Join(err, listed); err != nil {
		r.t.Fatal(err)
	}
	for _, i := range images.Images {
		if _, err := r.client().DeregisterImage(ctx, &ec2.DeregisterImageInput{ImageId: i.ImageId, DeleteAssociatedSnapshots: aws.Bool(true)}); err != nil {
			r.t.Fatal(err)
		}
	}
	r.until("nothing to be left on the disk", func(context.Context) error {
		var left []string
		for _, dir := range []string{"node/machines", "node/volumes", "node/keepers", "node/snapshots", "node/journals", "node/disks", "node/tasks", "snapshots"} {
			if err := filepath.WalkDir(r.Path(dir), func(path string, d fs.DirEntry, err error) error {
				if err == nil && !d.IsDir() {
					left = append(left, path)
				}
				return err
			}); err != nil {
				return err
			}
		}
		if len(left) > 0 {
			return fmt.Errorf("there are %d files, of which the first is %s", len(left), left[0])
		}
		return nil
	})
}
