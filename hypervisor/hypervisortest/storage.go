package hypervisortest

import (
	"bytes"
	"slices"
	"testing"

	"mallee/hypervisor"
)

// DiskSize is that of a test's disks, in bytes.
const DiskSize = 8 << 20

// Storage is what lies behind the disks of the machines under test, and the
// servers that they talk to.
type Storage struct {
	// Disk makes an empty disk.
	Disk func(t *testing.T, serial string) hypervisor.Disk
	// From makes a disk that stands on a source with such bytes, which is there
	// until the test calls away.
	From func(t *testing.T, serial string, content []byte) (d hypervisor.Disk, away func())
	// Write changes a disk that a keeper has open, by way of the program that talks
	// to it.
	Write func(t *testing.T, h hypervisor.Hypervisor, dir string, d hypervisor.Disk, offset int64, p []byte)
	// Read yields all of a disk that no machine has open and that stands on its own.
	Read func(t *testing.T, d hypervisor.Disk) []byte
	// Sink makes an export.
	Sink func(t *testing.T, b Behaviour) Sink
	// Crash ends a machine's process at once.
	Crash func(t *testing.T, dir string)
}

// Behaviour is how an export takes what is written to it.
type Behaviour int

const (
	Takes  Behaviour = iota // at once
	Fails                   // never: each write is an error
	Stalls                  // it answers no write until it hangs up, if it can
)

// Sink is an export, and what came there.
type Sink struct {
	Socket, Export string
	Bytes          func() []byte
	Touched        func() []int64 // the blocks of which anything was written or zeroed, ascending
	HangUp         func()         // it fails from now on, what it has stalled too
}

func runStorage(t *testing.T, make func(t *testing.T) World) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, *bench)
	}{
		{"AKeeperHasDisksAndNoGuest", keeper},
		{"DisksComeAndGo", plugKeeper},
		{"ADiskIsInOneMachine", oneMachine},
		{"AGuestKeepsADiskUntilItIsTaken", force},
		{"AbsentMachinesHaveNoDisks", absentDisks},
		{"ADiskGrows", grows},
		{"ACopyIsOfOneInstant", pointInTime},
		{"AnIncrementIsWhatChanged", increment},
		{"MarksOutliveAnOrderlyEnd", orderlyEnd},
		{"MarksDoNotOutliveACrash", crash},
		{"AFailedCopyKeepsSince", failedCopy},
		{"ACopyToNowhereBeginsNothing", nowhere},
		{"ACancelledCopyKeepsSince", cancelledCopy},
		{"ADiskThatIsCopiedGoesAfterwards", unplugCopied},
		{"AnExitedMachineIsCopied", copyExited},
		{"AFilledDiskStandsAlone", fills},
		{"AFillingGivesWay", fillGivesWay},
		{"BadCopiesAreRefused", badCopies},
	} {
		t.Run(test.name, func(t *testing.T) {
			world := make(t)
			test.run(t, &bench{World: world, t: t, Hypervisor: open(t, world)})
		})
	}
}

// keeperOf starts a keeper with disks.
func (b *bench) keeperOf(disks ...hypervisor.Disk) hypervisor.Machine {
	b.t.Helper()
	m := b.machine(Halts)
	m = hypervisor.Machine{ID: m.ID, Dir: m.Dir, Disks: disks}
	b.must("Start of a keeper", b.Start(b.t.Context(), m))
	return m
}

// instead is the next program, this one having ended: a machine's disks are the
// business of one program at a time.
func (b *bench) instead() *bench {
	b.t.Helper()
	b.must("Close", b.Close())
	return b.another()
}

func (b *bench) disks(dir string, want ...string) {
	b.t.Helper()
	got, err := b.Disks(b.t.Context(), dir)
	b.must("Disks", err)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		b.t.Fatalf("Disks = %q, want %q", got, want)
	}
}

func (b *bench) write(dir string, d hypervisor.Disk, offset int64, fill byte, length int) {
	b.t.Helper()
	b.Storage.Write(b.t, b.Hypervisor, dir, d, offset, bytes.Repeat([]byte{fill}, length))
}

// begin begins one copy into a new sink.
func (b *bench) begin(dir string, d hypervisor.Disk, mark, since string, wantFull bool, behaviour Behaviour) Sink {
	b.t.Helper()
	sink := b.Storage.Sink(b.t, behaviour)
	full, err := b.Copy(b.t.Context(), dir, []hypervisor.Copy{
		{Serial: d.Serial, Mark: mark, Since: since, Socket: sink.Socket, Export: sink.Export},
	})
	b.must("Copy", err)
	if len(full) != 1 || full[0] != wantFull {
		b.t.Fatalf("Copy of %s since %q: full = %v, want %t", mark, since, full, wantFull)
	}
	return sink
}

// job waits until a job has ended.
func (b *bench) job(dir, id string) hypervisor.Job {
	b.t.Helper()
	var job hypervisor.Job
	b.eventually("the job "+id+" ends", func() bool {
		jobs, err := b.Jobs(b.t.Context(), dir)
		b.must("Jobs", err)
		i := slices.IndexFunc(jobs, func(j hypervisor.Job) bool { return j.ID == id })
		if i < 0 {
			b.t.Fatalf("Jobs = %+v, want %s among them", jobs, id)
		}
		job = jobs[i]
		return job.Ended
	})
	return job
}

// copied waits for a copy's good end, and dismisses it.
func (b *bench) copied(dir, mark string) {
	b.t.Helper()
	job := b.job(dir, mark)
	b.must("the job "+mark, job.Err)
	if job.Done != job.Total {
		b.t.Errorf("the job %s ended well with %d of %d bytes", mark, job.Done, job.Total)
	}
	b.must("Dismiss", b.Dismiss(b.t.Context(), dir, mark))
	b.must("Dismiss of what isn't there", b.Dismiss(b.t.Context(), dir, mark))
	b.noJobs(dir)
}

func (b *bench) noJobs(dir string) {
	b.t.Helper()
	if jobs, err := b.Jobs(b.t.Context(), dir); err != nil || len(jobs) != 0 {
		b.t.Fatalf("Jobs = %+v, %v, want none", jobs, err)
	}
}

func (b *bench) equal(what string, got, want []byte) {
	b.t.Helper()
	if len(got) != len(want) {
		b.t.Fatalf("%s: %d bytes, want %d", what, len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			b.t.Fatalf("%s: byte %d is %#x, want %#x", what, i, got[i], want[i])
		}
	}
}

// image is a disk's bytes: empty but for pieces.
func image(pieces ...piece) []byte {
	all := make([]byte, DiskSize)
	for _, p := range pieces {
		copy(all[p.offset:], bytes.Repeat([]byte{p.fill}, p.length))
	}
	return all
}

type piece struct {
	offset int64
	fill   byte
	length int
}

func keeper(t *testing.T, b *bench) {
	one, two := b.Storage.Disk(t, "vol-1"), b.Storage.Disk(t, "vol-2")
	m := b.keeperOf(one, two)
	b.want(m.Dir, hypervisor.Running)
	b.disks(m.Dir, "vol-1", "vol-2")
	b.must("PowerDown", b.PowerDown(t.Context(), m.Dir))
	b.must("Reset", b.Reset(t.Context(), m.Dir))
	if err := b.Start(t.Context(), m); err == nil {
		t.Errorf("the second Start succeeds")
	}
	next := b.instead()
	next.want(m.Dir, hypervisor.Running)
	next.disks(m.Dir, "vol-1", "vol-2")
	next.must("Kill", next.Kill(t.Context(), m.Dir))
	next.want(m.Dir, hypervisor.Absent)
	next.disks(m.Dir)
	next.must("Start", next.Start(t.Context(), m))
	next.want(m.Dir, hypervisor.Running)
}

func plugKeeper(t *testing.T, b *bench) {
	one, two := b.Storage.Disk(t, "vol-1"), b.Storage.Disk(t, "vol-2")
	m := b.keeperOf(one)
	two.Limits = hypervisor.Limits{IOPS: 100, BytesPerSecond: 1 << 20}
	for range 2 {
		b.must("Plug", b.Plug(t.Context(), m.Dir, two))
		b.disks(m.Dir, "vol-1", "vol-2")
	}
	next := b.instead()
	next.disks(m.Dir, "vol-1", "vol-2")
	for range 2 {
		next.must("Unplug", next.Unplug(t.Context(), m.Dir, "vol-1", false))
		next.disks(m.Dir, "vol-2")
	}
	next.must("Unplug by force", next.Unplug(t.Context(), m.Dir, "vol-2", true))
	next.disks(m.Dir)
	next.must("Plug of what was there", next.Plug(t.Context(), m.Dir, two))
	next.disks(m.Dir, "vol-2")
	bad := one
	bad.Serial = "a.b"
	if err := next.Plug(t.Context(), m.Dir, bad); err == nil {
		t.Errorf("Plug with the serial %q succeeds", bad.Serial)
	}
	next.disks(m.Dir, "vol-2")
}

func oneMachine(t *testing.T, b *bench) {
	d := b.Storage.Disk(t, "vol-1")
	one, two := b.keeperOf(d), b.keeperOf()
	for range 2 { // the first leaves nothing
		if err := b.Plug(t.Context(), two.Dir, d); err == nil {
			t.Fatalf("Plug of a disk that another machine has succeeds")
		}
		b.disks(two.Dir)
	}
	b.must("Unplug", b.Unplug(t.Context(), one.Dir, "vol-1", false))
	b.disks(one.Dir)
	b.must("Plug", b.Plug(t.Context(), two.Dir, d))
	b.disks(two.Dir, "vol-1")
}

func force(t *testing.T, b *bench) {
	m := b.started(Halts)
	had := m.Disks[0].Serial
	one, two := b.Storage.Disk(t, "vol-1"), b.Storage.Disk(t, "vol-2")
	b.must("Plug", b.Plug(t.Context(), m.Dir, one))
	b.must("Plug", b.Plug(t.Context(), m.Dir, two))
	b.disks(m.Dir, had, "vol-1", "vol-2")
	for range 2 {
		b.must("Unplug", b.Unplug(t.Context(), m.Dir, "vol-1", false))
		b.disks(m.Dir, had, "vol-1", "vol-2") // this guest answers nobody
	}
	next := b.instead()
	next.must("Unplug by force", next.Unplug(t.Context(), m.Dir, "vol-1", true))
	next.disks(m.Dir, had, "vol-2")
	next.must("Unplug by force, again", next.Unplug(t.Context(), m.Dir, "vol-1", true))
	next.keeperOf(one) // it is closed
	next.want(m.Dir, hypervisor.Running)
}

func absentDisks(t *testing.T, b *bench) {
	m := b.machine(Halts)
	d := b.Storage.Disk(t, "vol-1")
	b.disks(m.Dir)
	b.noJobs(m.Dir)
	b.must("Unplug", b.Unplug(t.Context(), m.Dir, "vol-1", true))
	b.must("Dismiss", b.Dismiss(t.Context(), m.Dir, "any"))
	sink := b.Storage.Sink(t, Takes)
	_, copyErr := b.Copy(t.Context(), m.Dir, []hypervisor.Copy{{Serial: "vol-1", Mark: "a", Socket: sink.Socket, Export: sink.Export}})
	for what, err := range map[string]error{
		"Plug":   b.Plug(t.Context(), m.Dir, d),
		"Adjust": b.Adjust(t.Context(), m.Dir, "vol-1", DiskSize, hypervisor.Limits{}),
		"Fill":   b.Fill(t.Context(), m.Dir, "vol-1", 0),
		"Copy":   copyErr,
	} {
		if err == nil {
			t.Errorf("%s of what is absent succeeds", what)
		}
	}
}

func grows(t *testing.T, b *bench) {
	d := b.Storage.Disk(t, "vol-1")
	m := b.keeperOf(d)
	b.write(m.Dir, d, 0, 1, 4096)
	for _, size := range []int64{DiskSize + 1<<20, DiskSize + 1<<20, DiskSize} {
		b.must("Adjust", b.Adjust(t.Context(), m.Dir, "vol-1", size, hypervisor.Limits{IOPS: 1000}))
	}
	if err := b.Adjust(t.Context(), m.Dir, "vol-2", DiskSize, hypervisor.Limits{}); err == nil {
		t.Errorf("Adjust of a disk that isn't there succeeds")
	}
	b.write(m.Dir, d, DiskSize, 2, 4096)
	b.must("Kill", b.Kill(t.Context(), m.Dir))
	want := append(image(piece{0, 1, 4096}), make([]byte, 1<<20)...)
	copy(want[DiskSize:], bytes.Repeat([]byte{2}, 4096))
	b.equal("the disk", b.Storage.Read(t, d), want)
}

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
