package controller

import (
	"strings"
	"testing"
	"time"

	"mallee/cloud"
	"mallee/link"
	"mallee/state"
)

func gib(n int64) cloud.Content { return cloud.Content{Manifest: "m", Size: n << 30} }

// TestTaskEnds: what a task has made is in the state together with its end, once,
// whatever reports come late or again.
func TestTaskEnds(t *testing.T) {
	for _, test := range []struct {
		name  string
		task  cloud.Task
		said  link.Task
		check func(*testing.T, state.Reader, *cloud.Task)
	}{
		{
			name: "a snapshot", task: cloud.Task{Kind: cloud.ImportSnapshot, Sources: []cloud.DiskFile{{URL: "u"}}},
			said: link.Task{Phase: cloud.TaskDone, Result: cloud.TaskResult{Contents: []cloud.Content{gib(3)}, Sizes: []int64{1000}}},
			check: func(t *testing.T, r state.Reader, task *cloud.Task) {
				s, _, ok := state.Snapshots.Get(r, cloud.SnapshotID(task.Made["snapshot"]))
				if !ok || s.State() != cloud.SnapshotCompleted || s.SizeGiB != 3 || s.Account != "1" || *s.Content != gib(3) {
					t.Errorf("%+v", s)
				}
				if task.Sources[0].Size != 1000 {
					t.Errorf("the source's size is %d", task.Sources[0].Size)
				}
			},
		},
		{
			name: "an image of two disks, one of them a snapshot already",
			task: cloud.Task{Kind: cloud.ImportImage, Sources: []cloud.DiskFile{{URL: "u", Device: "/dev/sda1"}, {Snapshot: "snap-00000001", Device: "/dev/sdb"}}},
			said: link.Task{Phase: cloud.TaskDone, Result: cloud.TaskResult{Contents: []cloud.Content{gib(2), {}}, Architecture: "x86_64", BootMode: "uefi"}},
			check: func(t *testing.T, r state.Reader, task *cloud.Task) {
				i, _, ok := state.Images.Get(r, cloud.ImageID(task.Made["image"]))
				if !ok || i.Root() == nil || i.Root().SizeGiB != 2 || len(i.Mappings) != 2 || i.Mappings[1].EBS.Snapshot != "snap-00000001" || i.BootMode != cloud.UEFI {
					t.Errorf("%+v", i)
				}
			},
		},
		{
			name: "an image whose snapshot was deleted meanwhile",
			task: cloud.Task{Kind: cloud.ImportImage, Sources: []cloud.DiskFile{{Snapshot: "snap-99999999", Device: "/dev/sda1"}}},
			said: link.Task{Phase: cloud.TaskDone, Result: cloud.TaskResult{Contents: []cloud.Content{{}}}},
			check: func(t *testing.T, r state.Reader, task *cloud.Task) {
				if task.Failed.Code != "ClientError" {
					t.Errorf("%+v", task)
				}
			},
		},
		{
			name: "the disks of an OVA",
			task: cloud.Task{Kind: cloud.ImportImage, Sources: []cloud.DiskFile{{URL: "u", Device: "/dev/sda1"}}},
			said: link.Task{Phase: cloud.TaskDone, Result: cloud.TaskResult{Contents: []cloud.Content{gib(2), gib(1)}}},
			check: func(t *testing.T, r state.Reader, task *cloud.Task) {
				i, _, ok := state.Images.Get(r, cloud.ImageID(task.Made["image"]))
				if !ok || len(i.Mappings) != 2 || i.Mappings[1].Device != "/dev/sdb" || i.Mappings[1].EBS.SizeGiB != 1 {
					t.Errorf("%+v", i)
				}
			},
		},
		{
			name: "the disks of an OVA of which the first has the second's usual name",
			task: cloud.Task{Kind: cloud.ImportImage, Sources: []cloud.DiskFile{{URL: "u", Device: "/dev/sdb"}}},
			said: link.Task{Phase: cloud.TaskDone, Result: cloud.TaskResult{Contents: []cloud.Content{gib(2), gib(1)}}},
			check: func(t *testing.T, r state.Reader, task *cloud.Task) {
				i, _, ok := state.Images.Get(r, cloud.ImageID(task.Made["image"]))
				if !ok || len(i.Mappings) != 2 || i.Mappings[1].Device != "/dev/sdc" {
					t.Errorf("%+v", i)
				}
			},
		},
		{
			name: "a volume", task: cloud.Task{Kind: cloud.ImportVolume, Sources: []cloud.DiskFile{{VolumeGiB: 5}}, Params: map[string]string{cloud.ParamZone: "z"}},
			said: link.Task{Phase: cloud.TaskDone, Result: cloud.TaskResult{Contents: []cloud.Content{gib(3)}}},
			check: func(t *testing.T, r state.Reader, task *cloud.Task) {
				v, _, ok := state.Volumes.Get(r, cloud.VolumeID(task.Made["volume0"]))
				if !ok || v.SizeGiB != 5 || v.Zone != "z" || v.Node != "n" || *v.Source != gib(3) {
					t.Errorf("%+v", v)
				}
			},
		},
		{
			name: "one that was cancelled as it ended", task: cloud.Task{Kind: cloud.ImportSnapshot, Sources: []cloud.DiskFile{{}}, CancelledAt: time.Unix(1, 0)},
			said: link.Task{Phase: cloud.TaskDone, Result: cloud.TaskResult{Contents: []cloud.Content{gib(3)}}},
			check: func(t *testing.T, r state.Reader, task *cloud.Task) {
				for s := range state.SnapshotsByAccount.By(r, "1") {
					if s.ID != "snap-00000001" {
						t.Errorf("it made %+v", s)
					}
				}
				if task.Failed.Code != "Cancelled" {
					t.Errorf("%+v", task.Failed)
				}
			},
		},
		{
			name: "a copy that failed", task: cloud.Task{Kind: cloud.CopyImage, Image: "emi-00000001"},
			said: link.Task{Phase: cloud.TaskFailed, Reason: cloud.Reason{Code: "ServerError", Message: "on fire"}},
			check: func(t *testing.T, r state.Reader, task *cloud.Task) {
				i, _, _ := state.Images.Get(r, "emi-00000001")
				if i.Copying != "" || i.CopyFailed.Message != "on fire" {
					t.Errorf("%+v", i)
				}
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := taskDesk(t)
			test.task.ID, test.task.Account, test.task.Node, test.said.Task = "import-1", "1", "n", "import-1"
			c.update(func(tx *state.Tx) { state.AddTask(tx, test.task) })
			report := link.Report{Node: "n", Zone: "z", Tasks: []link.Task{test.said}}
			c.said(report)
			revision := c.Store.View().Revision()
			c.said(report)
			if now := c.Store.View().Revision(); now != revision {
				t.Errorf("the report came again, and wrote")
			}
			task, _, ok := state.Tasks.Get(c.Store.View(), "import-1")
			if !ok || task.FinishedAt.IsZero() {
				t.Fatalf("the task is %+v", task)
			}
			if left := len(c.Assignment("n").Tasks); left != 0 {
				t.Errorf("%d tasks are still assigned", left)
			}
			test.check(t, c.Store.View(), task)
		})
	}
}

// TestUnusableResults end their tasks, and hold up nothing else that the report
// says: a user may have given the image's name away meanwhile.
func TestUnusableResults(t *testing.T) {
	for name, test := range map[string]struct {
		contents   []cloud.Content
		code, says string
	}{
		"a name that is taken":  {[]cloud.Content{gib(1)}, "ClientError", "emi-0000beef"},
		"a content that misses": {nil, "ServerError", "0 contents"},
	} {
		t.Run(name, func(t *testing.T) {
			c := taskDesk(t)
			c.update(func(tx *state.Tx) {
				if err := state.Enroll(tx, &cloud.Image{ID: "emi-0000beef", Account: "1", Name: "import-ami-1"}); err != nil {
					t.Fatal(err)
				}
				state.AddTask(tx, cloud.Task{ID: "import-ami-1", Kind: cloud.ImportImage, Account: "1", Node: "n", Sources: []cloud.DiskFile{{URL: "u", Device: "/dev/sda1"}}})
				state.AddTask(tx, cloud.Task{ID: "import-snap-1", Kind: cloud.ImportSnapshot, Account: "1", Node: "n", Sources: []cloud.DiskFile{{URL: "u"}}})
			})
			c.said(link.Report{Node: "n", Zone: "z", Capacity: cloud.Size{VCPUs: 7}, Tasks: []link.Task{
				{Task: "import-ami-1", Phase: cloud.TaskDone, Result: cloud.TaskResult{Contents: test.contents}},
				{Task: "import-snap-1", Phase: cloud.TaskDone, Result: cloud.TaskResult{Contents: []cloud.Content{gib(1)}}},
			}})
			bad, _, _ := state.Tasks.Get(c.Store.View(), "import-ami-1")
			if bad.FinishedAt.IsZero() || bad.Failed.Code != test.code || !strings.Contains(bad.Failed.Message, test.says) {
				t.Errorf("%+v", bad)
			}
			if good, _, _ := state.Tasks.Get(c.Store.View(), "import-snap-1"); good.FinishedAt.IsZero() || good.Failed.Code != "" {
				t.Errorf("%+v", good)
			}
			for s := range state.Snapshots.All(c.Store.View()) {
				if s.Description == "Created by AWS-VMImport service for import-ami-1" {
					t.Errorf("of what failed there is %+v", s)
				}
			}
			if n, _, _ := state.Nodes.Get(c.Store.View(), "n"); n.Capacity.VCPUs != 7 {
				t.Error("the rest of the report was missed")
			}
		})
	}
}

// TestTaskProgress is told as it comes, and costs nothing when there is none.
func TestTaskProgress(t *testing.T) {
	c := taskDesk(t)
	c.update(func(tx *state.Tx) {
		state.AddTask(tx, cloud.Task{ID: "import-1", Kind: cloud.ImportSnapshot, Account: "1", Node: "n", Sources: []cloud.DiskFile{{}}})
	})
	if tasks := c.Assignment("n").Tasks; len(tasks) != 1 || tasks[0].ID != "import-1" {
		t.Fatalf("assigned: %+v", tasks)
	}
	report := link.Report{Node: "n", Zone: "z", Tasks: []link.Task{{Task: "import-1", Phase: cloud.TaskActive, Progress: 10, Message: "storing"}, {Task: "import-unknown"}}}
	c.said(report)
	revision := c.Store.View().Revision()
	c.said(report)
	if c.Store.View().Revision() != revision {
		t.Error("no news were written")
	}
	if o, _, ok := state.TaskObservations.Get(c.Store.View(), "import-1"); !ok || o.Progress != 10 || o.Message != "storing" {
		t.Errorf("%+v", o)
	}
	other := report
	other.Node, other.Tasks = "m", []link.Task{{Task: "import-1", Phase: cloud.TaskFailed}}
	c.said(other)
	if task, _, _ := state.Tasks.Get(c.Store.View(), "import-1"); !task.FinishedAt.IsZero() {
		t.Error("another node ended the task")
	}
}

// TestImportedInstanceEnds when its disks can't be imported.
func TestImportedInstanceEnds(t *testing.T) {
	c := taskDesk(t)
	c.update(func(tx *state.Tx) {
		state.Instances.Put(tx, cloud.Instance{ID: "i-1", Node: "n", Wish: cloud.WishStopped, Wishes: 1, Vacated: true})
		state.AddTask(tx, cloud.Task{ID: "import-i-1", Kind: cloud.ImportInstance, Node: "n", Instance: "i-1", Sources: []cloud.DiskFile{{}}})
	})
	c.said(link.Report{Node: "n", Zone: "z", Tasks: []link.Task{{Task: "import-i-1", Phase: cloud.TaskFailed, Reason: cloud.Reason{Code: "ClientError", Message: "no disk"}}}})
	if i, _, _ := state.Instances.Get(c.Store.View(), "i-1"); i.Wish != cloud.WishTerminated || i.Reason.Message != "no disk" {
		t.Errorf("%+v", i)
	}
}

// taskDesk has an image and a snapshot that tasks are about.
func taskDesk(t *testing.T) *desk {
	d := newDesk(t)
	d.update(func(tx *state.Tx) {
		state.Nodes.Put(tx, cloud.Node{ID: "n", Zone: "z"})
		state.Images.Put(tx, cloud.Image{ID: "emi-00000001", Copying: "copy-1"})
		state.Snapshots.Put(tx, cloud.Snapshot{ID: "snap-00000001", Account: "1", SizeGiB: 8, Content: &cloud.Content{Manifest: "s", Size: 8 << 30}})
	})
	return d
}

func (d *desk) said(r link.Report) {
	d.Helper()
	if err := d.TakeIn(d.Context(), r); err != nil {
		d.Fatal(err)
	}
}
