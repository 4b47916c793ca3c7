package hypervisortest

import (
	"bytes"
	"slices"
	"testing"

	"mallee/hypervisor"
)

func pointInTime(t *testing.T, b *bench) {
	one, two := b.Storage.Disk(t, "vol-1"), b.Storage.Disk(t, "vol-2")
	m := b.keeperOf(one, two)
	b.write(m.Dir, one, 1<<20, 1, 1<<20)
	b.write(m.Dir, two, 5<<20, 2, 100_864)
	sinks := []Sink{b.Storage.Sink(t, Takes), b.Storage.Sink(t, Takes)}
	full, err := b.Copy(t.Context(), m.Dir, []hypervisor.Copy{
		{Serial: "vol-1", Mark: "snap-1", Socket: sinks[0].Socket, Export: sinks[0].Export},
		{Serial: "vol-2", Mark: "snap-2", Socket: sinks[1].Socket, Export: sinks[1].Export},
	})
	b.must("Copy", err)
	if !slices.Equal(full, []bool{true, true}) {
		t.Errorf("full = %v, want both", full)
	}
	b.write(m.Dir, one, 1<<20, 7, 2<<20) // past the instant
	b.write(m.Dir, two, 0, 7, 4096)
	b.job(m.Dir, "snap-1")
	next := b.instead()
	next.job(m.Dir, "snap-2")
	for _, mark := range []string{"snap-1", "snap-2"} {
		next.must("Dismiss", next.Dismiss(t.Context(), m.Dir, mark))
	}
	next.noJobs(m.Dir)
	b.equal("the first", sinks[0].Bytes(), image(piece{1 << 20, 1, 1 << 20}))
	b.equal("the second", sinks[1].Bytes(), image(piece{5 << 20, 2, 100_864}))
}

func increment(t *testing.T, b *bench) {
	d := b.Storage.Disk(t, "vol-1")
	m := b.keeperOf(d)
	b.write(m.Dir, d, 0, 1, 4<<20)
	sink := b.begin(m.Dir, d, "a", "", true, Takes)
	b.copied(m.Dir, "a")
	b.equal("all of it", sink.Bytes(), image(piece{0, 1, 4 << 20}))

	b.write(m.Dir, d, 1<<20, 2, 512)
	b.write(m.Dir, d, 6<<20, 3, 512<<10)
	b.write(m.Dir, d, 3<<20, 0, 4096)
	sink = b.begin(m.Dir, d, "b", "a", false, Takes)
	b.write(m.Dir, d, 7<<20, 4, 4096)
	b.copied(m.Dir, "b")
	if got, want := sink.Touched(), []int64{2, 6, 12}; !slices.Equal(got, want) {
		t.Errorf("the increment has the blocks %v, want %v", got, want)
	}
	want := image(piece{1 << 20, 1, 512 << 10}, piece{1 << 20, 2, 512}, piece{6 << 20, 3, 512 << 10}, piece{3 << 20, 1, 512 << 10}, piece{3 << 20, 0, 4096})
	b.equal("the increment", sink.Bytes(), want)

	b.begin(m.Dir, d, "c", "a", true, Takes) // which went when b had ended well
	b.copied(m.Dir, "c")
	b.begin(m.Dir, d, "d", "b", true, Takes) // and c's beginning forgot what it doesn't count from
	b.copied(m.Dir, "d")
}

func orderlyEnd(t *testing.T, b *bench) {
	d := b.Storage.Disk(t, "vol-1")
	m := b.keeperOf(d)
	b.begin(m.Dir, d, "a", "", true, Takes)
	b.copied(m.Dir, "a")
	b.write(m.Dir, d, 2<<20, 1, 4096)
	b.must("Kill", b.Kill(t.Context(), m.Dir))
	b.must("Start", b.Start(t.Context(), m))
	b.write(m.Dir, d, 4<<20, 2, 4096)
	b.must("Unplug", b.Unplug(t.Context(), m.Dir, "vol-1", false))
	b.disks(m.Dir)
	b.must("Plug", b.Plug(t.Context(), m.Dir, d))
	sink := b.begin(m.Dir, d, "b", "a", false, Takes)
	b.copied(m.Dir, "b")
	if got, want := sink.Touched(), []int64{4, 8}; !slices.Equal(got, want) {
		t.Errorf("the increment has the blocks %v, want %v", got, want)
	}
}

func crash(t *testing.T, b *bench) {
	d := b.Storage.Disk(t, "vol-1")
	m := b.keeperOf(d)
	b.write(m.Dir, d, 0, 1, 4096)
	b.begin(m.Dir, d, "a", "", true, Takes)
	b.copied(m.Dir, "a")
	b.begin(m.Dir, d, "b", "a", false, Stalls) // and is lost
	b.Storage.Crash(t, m.Dir)
	b.becomes(m.Dir, hypervisor.Absent)
	b.noJobs(m.Dir)
	b.must("Start", b.Start(t.Context(), m))
	b.noJobs(m.Dir)
	sink := b.begin(m.Dir, d, "b", "a", true, Takes)
	b.copied(m.Dir, "b")
	b.equal("all of it", sink.Bytes(), image(piece{0, 1, 4096}))
	b.write(m.Dir, d, 1<<20, 2, 4096)
	sink = b.begin(m.Dir, d, "c", "b", false, Takes)
	b.copied(m.Dir, "c")
	b.equal("the increment", sink.Bytes(), image(piece{1 << 20, 2, 4096}))
}

func failedCopy(t *testing.T, b *bench) {
	d := b.Storage.Disk(t, "vol-1")
	m := b.keeperOf(d)
	b.begin(m.Dir, d, "a", "", true, Takes)
	b.copied(m.Dir, "a")
	b.write(m.Dir, d, 0, 1, 4096)
	b.begin(m.Dir, d, "b", "a", false, Fails)
	if job := b.job(m.Dir, "b"); job.Err == nil {
		t.Errorf("a copy to a server that fails ends as %+v", job)
	}
	b.write(m.Dir, d, 2<<20, 2, 4096)
	b.must("Dismiss", b.Dismiss(t.Context(), m.Dir, "b"))
	sink := b.begin(m.Dir, d, "b", "a", false, Takes)
	b.copied(m.Dir, "b")
	b.equal("the increment", sink.Bytes(), image(piece{0, 1, 4096}, piece{2 << 20, 2, 4096}))
}

func nowhere(t *testing.T, b *bench) {
	one, two := b.Storage.Disk(t, "vol-1"), b.Storage.Disk(t, "vol-2")
	m := b.keeperOf(one, two)
	sink := b.Storage.Sink(t, Takes)
	for range 2 {
		full, err := b.Copy(t.Context(), m.Dir, []hypervisor.Copy{
			{Serial: "vol-1", Mark: "a", Socket: sink.Socket, Export: sink.Export},
			{Serial: "vol-3", Mark: "b", Socket: sink.Socket, Export: sink.Export},
		})
		if err == nil {
			t.Fatalf("Copy of a disk that isn't there succeeds with %v", full)
		}
		b.noJobs(m.Dir)
	}
	b.begin(m.Dir, one, "a", "", true, Takes)
	b.copied(m.Dir, "a")
}

func cancelledCopy(t *testing.T, b *bench) {
	d := b.Storage.Disk(t, "vol-1")
	m := b.keeperOf(d)
	b.begin(m.Dir, d, "a", "", true, Takes)
	b.copied(m.Dir, "a")
	b.write(m.Dir, d, 0, 1, 4096)
	stalled := b.begin(m.Dir, d, "b", "a", false, Stalls)
	if jobs, err := b.Jobs(t.Context(), m.Dir); err != nil || len(jobs) != 1 || jobs[0].Ended {
		t.Errorf("Jobs = %+v, %v, want one that runs", jobs, err)
	}
	next := b.instead()
	stalled.HangUp()
	next.must("Dismiss", next.Dismiss(t.Context(), m.Dir, "b"))
	next.noJobs(m.Dir)
	sink := next.begin(m.Dir, d, "c", "a", false, Takes)
	next.copied(m.Dir, "c")
	b.equal("the increment", sink.Bytes(), image(piece{0, 1, 4096}))
}

func unplugCopied(t *testing.T, b *bench) {
	d := b.Storage.Disk(t, "vol-1")
	m := b.keeperOf(d)
	b.write(m.Dir, d, 0, 1, 4096)
	stalled := b.begin(m.Dir, d, "a", "", true, Stalls)
	b.must("Unplug", b.Unplug(t.Context(), m.Dir, "vol-1", false))
	b.disks(m.Dir, "vol-1")
	stalled.HangUp()
	b.must("Dismiss", b.Dismiss(t.Context(), m.Dir, "a"))
	b.must("Unplug, again", b.Unplug(t.Context(), m.Dir, "vol-1", false))
	b.disks(m.Dir)
	b.keeperOf(d) // it is closed
	b.must("Kill", b.Kill(t.Context(), m.Dir))
}

func copyExited(t *testing.T, b *bench) {
	m := b.machine(PowersOff)
	d := b.Storage.Disk(t, "vol-1")
	m.Disks = append(m.Disks, d)
	b.must("Start", b.Start(t.Context(), m))
	b.becomes(m.Dir, hypervisor.Exited)
	if err := b.Plug(t.Context(), m.Dir, b.Storage.Disk(t, "vol-2")); err == nil {
		t.Errorf("Plug into a machine that is Exited succeeds")
	}
	b.begin(m.Dir, d, "a", "", true, Takes)
	b.copied(m.Dir, "a")
	b.want(m.Dir, hypervisor.Exited)
	b.must("Unplug by force", b.Unplug(t.Context(), m.Dir, "vol-1", true))
	b.disks(m.Dir, m.Disks[0].Serial)
}

func fills(t *testing.T, b *bench) {
	content := image(piece{0, 1, 4 << 20}, piece{6 << 20, 2, 1 << 20})
	d, away := b.Storage.From(t, "vol-1", content)
	m := b.keeperOf(d)
	b.write(m.Dir, d, 1<<20, 3, 4096)
	copy(content[1<<20:], bytes.Repeat([]byte{3}, 4096))
	b.must("Fill", b.Fill(t.Context(), m.Dir, "vol-1", 0))
	b.must("Fill, again", b.Fill(t.Context(), m.Dir, "vol-1", 0))
	id := hypervisor.FillID("vol-1")
	b.must("the filling", b.job(m.Dir, id).Err)
	away()
	b.must("Fill of what is full", b.Fill(t.Context(), m.Dir, "vol-1", 0))
	b.must("Dismiss", b.Dismiss(t.Context(), m.Dir, id))
	b.must("Fill of what stands alone", b.Fill(t.Context(), m.Dir, "vol-1", 0))
	b.noJobs(m.Dir)
	b.must("Kill", b.Kill(t.Context(), m.Dir))
	d.Attachment.Source.Socket, d.Attachment.Source.Export, d.Attachment.Source.Size = "", "", 0
	b.equal("the disk", b.Storage.Read(t, d), content)
	m.Disks = []hypervisor.Disk{d}
	b.must("Start", b.Start(t.Context(), m))
}

func fillGivesWay(t *testing.T, b *bench) {
	content := image(piece{0, 1, 4 << 20}, piece{6 << 20, 2, 1 << 20})
	d, _ := b.Storage.From(t, "vol-1", content)
	m := b.keeperOf(d)
	const speed = 1 << 20 // slow enough for what follows
	b.must("Fill", b.Fill(t.Context(), m.Dir, "vol-1", speed))
	sink := b.begin(m.Dir, d, "a", "", true, Takes)
	b.must("Fill, again", b.Fill(t.Context(), m.Dir, "vol-1", speed))
	b.must("the copy", b.job(m.Dir, "a").Err)
	b.equal("the copy", sink.Bytes(), content)
	b.must("Fill, after it", b.Fill(t.Context(), m.Dir, "vol-1", speed))
	b.must("Dismiss", b.Dismiss(t.Context(), m.Dir, "a"))
	b.must("Adjust", b.Adjust(t.Context(), m.Dir, "vol-1", DiskSize+1<<20, hypervisor.Limits{}))
	b.noJobs(m.Dir)
	b.must("Fill, after it", b.Fill(t.Context(), m.Dir, "vol-1", 0))
	id := hypervisor.FillID("vol-1")
	b.must("the filling", b.job(m.Dir, id).Err)
	b.Storage.Crash(t, m.Dir) // what is full is kept
	b.becomes(m.Dir, hypervisor.Absent)
	d.Attachment.Source.Socket, d.Attachment.Source.Export, d.Attachment.Source.Size = "", "", 0
	b.equal("the disk", b.Storage.Read(t, d), append(content, make([]byte, 1<<20)...))
}

func badCopies(t *testing.T, b *bench) {
	d := b.Storage.Disk(t, "vol-1")
	m := b.keeperOf(d)
	b.begin(m.Dir, d, "taken", "", true, Stalls)
	sink := b.Storage.Sink(t, Takes)
	for _, c := range []hypervisor.Copy{
		{Serial: "vol-1", Mark: ""}, {Serial: "vol-1", Mark: "A"}, {Serial: "vol-1", Mark: "a.b"}, {Serial: "vol-1", Mark: "a", Since: "a"},
		{Serial: "vol-1", Mark: "fill-vol-1"}, {Serial: "vol-1", Mark: "taken"}, {Serial: "none", Mark: "a"}, {Serial: "", Mark: "a"},
	} {
		c.Socket, c.Export = sink.Socket, sink.Export
		if full, err := b.Copy(t.Context(), m.Dir, []hypervisor.Copy{c}); err == nil {
			t.Errorf("Copy %+v succeeds with %v", c, full)
		}
	}
	if jobs, err := b.Jobs(t.Context(), m.Dir); err != nil || len(jobs) != 1 {
		t.Errorf("Jobs = %+v, %v, want the first alone", jobs, err)
	}
}
