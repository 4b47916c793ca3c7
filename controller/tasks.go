package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"mallee/cloud"
	"mallee/link"
	"mallee/state"
)

// A task's end becomes part of the state in one transaction: what it made is
// there, and the task is finished, or neither.

// keepTasks is how long a finished task is shown.
const keepTasks = 7 * 24 * time.Hour

// taskNews are the tasks of which the report says what isn't known yet.
func (c *Controller) taskNews(view *state.View, r link.Report) (news []link.Task) {
	for _, said := range r.Tasks {
		t, _, ok := state.Tasks.Get(view, said.Task)
		if !ok || t.Node != r.Node || !t.FinishedAt.IsZero() {
			continue
		}
		if o, _, ok := state.TaskObservations.Get(view, said.Task); !ok || said.Phase != cloud.TaskActive || o.Progress != said.Progress || o.Message != said.Message {
			news = append(news, said)
		}
	}
	return news
}

// takeInTasks one by one: what a user asked for, and can't be had, is no reason to
// miss anything else that the report says.
func (c *Controller) takeInTasks(ctx context.Context, r link.Report) error {
	for _, said := range c.taskNews(c.Store.View(), r) {
		err := c.Store.Update(ctx, func(tx *state.Tx) error { return c.observeTask(tx, r, said) })
		var unusable *unusableError
		if errors.As(err, &unusable) {
			c.Log.Warn("what a task made can't be used", "task", said.Task, "err", err)
			said.Phase, said.Reason = cloud.TaskFailed, unusable.reason()
			err = c.Store.Update(ctx, func(tx *state.Tx) error { return c.observeTask(tx, r, said) })
		}
		if err != nil {
			return fmt.Errorf("take in what node %s says of task %s: %w", r.Node, said.Task, err)
		}
	}
	return nil
}

// unusableError tells that what a task made has no place in the state, which
// another attempt won't change.
type unusableError struct{ err error }

func (e *unusableError) Error() string { return e.err.Error() }
func (e *unusableError) Unwrap() error { return e.err }

// reason of the failure, for the user: a name that he has given to another image
// is for him to change.
func (e *unusableError) reason() cloud.Reason {
	var taken *state.TakenError
	if errors.As(e.err, &taken) {
		return cloud.Reason{Code: "ClientError", Message: fmt.Sprintf("ClientError: the image's name is in use by %s; deregister that, and import again", taken.Owner)}
	}
	return cloud.Reason{Code: "ServerError", Message: "ServerError: " + e.err.Error()}
}

// observeTask writes how far a task is, and its end where it has come.
func (c *Controller) observeTask(tx *state.Tx, r link.Report, said link.Task) error {
	t, _, ok := state.Tasks.Get(tx, said.Task)
	if !ok || t.Node != r.Node || !t.FinishedAt.IsZero() {
		return nil
	}
	switch said.Phase {
	case cloud.TaskDone:
		return c.finish(tx, *t, said.Result)
	case cloud.TaskFailed:
		return c.failTask(tx, *t, said.Reason)
	}
	state.TaskObservations.Put(tx, cloud.TaskObservation{
		Task: t.ID, Phase: said.Phase, Progress: said.Progress, Message: said.Message, At: c.Now(),
	})
	return nil
}

// finish a task with what it made. What can't be used any more, because the user
// has cancelled or removed what it was for, fails it.
func (c *Controller) finish(tx *state.Tx, t cloud.Task, made cloud.TaskResult) error {
	if why := hopeless(tx, &t); why != (cloud.Reason{}) {
		return c.failTask(tx, t, why)
	}
	t.Made = map[string]string{}
	if t.Kind == cloud.ImportImage {
		t.Sources = withAllDisks(t.Sources, len(made.Contents))
	}
	for n, size := range made.Sizes {
		if n < len(t.Sources) {
			t.Sources = slices.Clone(t.Sources)
			t.Sources[n].Size = size
		}
	}
	var err error
	switch t.Kind {
	case cloud.ImportSnapshot:
		err = c.madeSnapshots(tx, &t, made)
		t.Made["snapshot"] = t.Made["snapshot0"]
	case cloud.ImportImage:
		if err = c.madeSnapshots(tx, &t, made); err == nil {
			err = c.madeImage(tx, &t, made)
		}
	case cloud.ImportVolume, cloud.ImportInstance:
		err = c.madeVolumes(tx, &t, made)
	case cloud.CopyImage:
		err = c.madeCopy(tx, &t, made)
	default:
		t.Made["manifest"] = made.Manifest
	}
	if err != nil {
		return &unusableError{fmt.Errorf("finish task %s: %w", t.ID, err)}
	}
	state.FinishTask(tx, t, c.Now())
	c.Log.Info("task done", "task", t.ID)
	return nil
}

// withAllDisks adds the disks that a single source, an OVA, turned out to have
// beside its first.
func withAllDisks(sources []cloud.DiskFile, n int) []cloud.DiskFile {
	sources = slices.Clone(sources)
	for letter := 'b'; len(sources) < n; letter++ {
		device := fmt.Sprintf("/dev/sd%c", letter)
		if !slices.ContainsFunc(sources, func(f cloud.DiskFile) bool { return f.Device == device }) {
			sources = append(sources, cloud.DiskFile{Device: device})
		}
	}
	return sources
}

// hopeless says why what a task made can't be used any more.
func hopeless(tx *state.Tx, t *cloud.Task) cloud.Reason {
	if !t.CancelledAt.IsZero() && t.Kind != cloud.ExportImage && t.Kind != cloud.BundleInstance {
		return cloud.Reason{Code: "Cancelled", Message: "Cancelled by the user"}
	}
	for _, f := range t.Sources {
		if _, _, there := state.Snapshots.Get(tx, f.Snapshot); f.Snapshot != "" && !there {
			return cloud.Reason{Code: "ClientError", Message: "ClientError: the snapshot " + string(f.Snapshot) + " is gone"}
		}
	}
	if i, _, there := state.Instances.Get(tx, t.Instance); t.Kind == cloud.ImportInstance && (!there || i.Wish == cloud.WishTerminated) {
		return cloud.Reason{Code: "ClientError", Message: "ClientError: the instance " + string(t.Instance) + " was terminated"}
	}
	return cloud.Reason{}
}

// failTask with a reason, and let what waited for it know.
func (c *Controller) failTask(tx *state.Tx, t cloud.Task, why cloud.Reason) error {
	t.Failed = why
	switch t.Kind {
	case cloud.CopyImage:
		state.Images.Edit(tx, t.Image, func(i *cloud.Image) { i.Copying, i.CopyFailed = "", why })
		for _, f := range t.Sources {
			if s, _, ok := state.Snapshots.Get(tx, f.Snapshot); ok && s.State() == cloud.SnapshotPending {
				state.FailSnapshot(tx, *s, why)
			}
		}
	case cloud.ImportInstance:
		if i, _, ok := state.Instances.Get(tx, t.Instance); ok {
			state.Want(tx, *i, cloud.WishTerminated, why, c.Now())
		}
	}
	state.FinishTask(tx, t, c.Now())
	c.Log.Info("task failed", "task", t.ID, "reason", why.Message)
	return nil
}

// madeCopy: the bundle of the image is there, or its snapshots are complete.
func (c *Controller) madeCopy(tx *state.Tx, t *cloud.Task, made cloud.TaskResult) error {
	if len(made.Contents) != len(t.Sources) {
		return fmt.Errorf("%d contents of %d snapshots", len(made.Contents), len(t.Sources))
	}
	for n, content := range made.Contents {
		if s, _, ok := state.Snapshots.Get(tx, t.Sources[n].Snapshot); ok && s.State() == cloud.SnapshotPending {
			state.CompleteSnapshot(tx, *s, content, c.Now())
		}
	}
	state.Images.Edit(tx, t.Image, func(i *cloud.Image) { i.Copying = "" })
	return nil
}

// madeSnapshots of the task's sources; one that was a snapshot before stays it.
func (c *Controller) madeSnapshots(tx *state.Tx, t *cloud.Task, made cloud.TaskResult) error {
	if len(made.Contents) != len(t.Sources) {
		return fmt.Errorf("%d contents of %d sources", len(made.Contents), len(t.Sources))
	}
	for n, content := range made.Contents {
		name := "snapshot" + strconv.Itoa(n)
		if t.Sources[n].Snapshot != "" {
			t.Made[name] = string(t.Sources[n].Snapshot)
			continue
		}
		id, err := c.newID(cloud.PrefixSnapshot, func(id string) bool {
			_, _, taken := state.Snapshots.Get(tx, cloud.SnapshotID(id))
			return taken
		})
		if err != nil {
			return err
		}
		state.Snapshots.Put(tx, cloud.Snapshot{
			ID: cloud.SnapshotID(id), Account: t.Account, SizeGiB: gibibytes(content.Size),
			StartedAt: t.CreatedAt, CompletedAt: c.Now(), Content: &content, Description: describe(t),
		})
		t.Made[name] = id
	}
	return nil
}

func describe(t *cloud.Task) string {
	if t.Description != "" {
		return t.Description
	}
	return "Created by AWS-VMImport service for " + string(t.ID)
}

// madeImage registers the image of an import, by EC2 named after its task.
func (c *Controller) madeImage(tx *state.Tx, t *cloud.Task, made cloud.TaskResult) error {
	id, err := c.newID(cloud.PrefixMachineImage, func(id string) bool {
		_, _, taken := state.Images.Get(tx, cloud.ImageID(id))
		return taken
	})
	if err != nil {
		return err
	}
	i := cloud.Image{
		ID: cloud.ImageID(id), Account: t.Account, Kind: cloud.MachineImage, Name: string(t.ID), Description: describe(t),
		Location: string(t.Account) + "/" + string(t.ID), Architecture: cmp.Or(t.Params[cloud.ParamArchitecture], made.Architecture, "x86_64"),
		Virtualization: cloud.HVM, Platform: cmp.Or(t.Params[cloud.ParamPlatform], made.Platform),
		BootMode: cloud.BootMode(cmp.Or(t.Params[cloud.ParamBootMode], made.BootMode)), CreatedAt: c.Now(),
	}
	for n, f := range t.Sources {
		device := f.Device
		if n == 0 {
			i.RootDevice = device
		}
		s, _, ok := state.Snapshots.Get(tx, cloud.SnapshotID(t.Made["snapshot"+strconv.Itoa(n)]))
		if !ok {
			return fmt.Errorf("its snapshot %d is gone", n) // hopeless looked before
		}
		if n == 0 {
			i.Size = int64(s.SizeGiB) << 30
		}
		i.Mappings = append(i.Mappings, cloud.Mapping{Device: device, EBS: &cloud.EBSMapping{
			Snapshot: s.ID, SizeGiB: s.SizeGiB, DeleteOnTermination: true, VolumeType: cloud.DefaultVolumeType,
		}})
	}
	t.Made["image"] = id
	return state.Enroll(tx, &i)
}

// madeVolumes of the task's sources, attached to its instance if it has one.
func (c *Controller) madeVolumes(tx *state.Tx, t *cloud.Task, made cloud.TaskResult) error {
	if len(made.Contents) != len(t.Sources) {
		return fmt.Errorf("%d contents of %d sources", len(made.Contents), len(t.Sources))
	}
	for n, content := range made.Contents {
		id, err := c.newID(cloud.PrefixVolume, func(id string) bool {
			_, _, taken := state.Volumes.Get(tx, cloud.VolumeID(id))
			return taken
		})
		if err != nil {
			return err
		}
		v := cloud.Volume{
			ID: cloud.VolumeID(id), Account: t.Account, Zone: t.Params[cloud.ParamZone], Node: t.Node, CreatedAt: c.Now(),
			Source: &content, SizeGiB: max(t.Sources[n].VolumeGiB, gibibytes(content.Size)), Type: cloud.DefaultVolumeType,
		}
		if t.Instance != "" {
			v.Attachment = &cloud.Attachment{Instance: t.Instance, Device: t.Sources[n].Device, DeleteOnTermination: true, At: c.Now()}
		}
		if _, err := state.MakeVolume(tx, v); err != nil {
			return err
		}
		t.Made["volume"+strconv.Itoa(n)] = id
	}
	return nil
}

// expireTasks forgets what was finished long ago.
func (c *Controller) expireTasks(ctx context.Context) error {
	for t := range state.Tasks.All(c.Store.View()) {
		if t.FinishedAt.IsZero() || c.Now().Sub(t.FinishedAt) < keepTasks {
			continue
		}
		err := c.Store.Update(ctx, func(tx *state.Tx) error {
			state.Tasks.Delete(tx, t.ID)
			state.TagSets.Delete(tx, string(t.ID))
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// newID draws an id that nothing has.
func (c *Controller) newID(prefix string, taken func(string) bool) (string, error) {
	for range 100 {
		id, err := cloud.NewID(c.Rand, prefix)
		if err != nil {
			return "", err
		}
		if !taken(id) {
			return id, nil
		}
	}
	return "", fmt.Errorf("a hundred ids with %s drawn, all of them taken", prefix)
}

func gibibytes(size int64) int { return int((size + 1<<30 - 1) >> 30) }
