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
