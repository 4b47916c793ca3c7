package hypervisor

import "context"

// Limits bound what a guest may ask of a disk; zero is no limit.
// What a disk leaves of a limit it saves up, until that is BurstSeconds of the
// burst; it begins with as much, and uses it at the burst's rate.
type Limits struct {
	IOPS           int   // operations a second
	BytesPerSecond int64 // read and written

	BurstIOPS           int // at least as much as the limit, or zero: no burst
	BurstBytesPerSecond int64
	BurstSeconds        int
	OperationBytes      int64 // of a larger operation each such piece counts as one of IOPS; zero: it is one
}

// Copy is the wish to store a disk as it is at one instant.
type Copy struct {
	Serial string // of the disk
	Mark   string // remembers, from the instant on, which blocks are written; [a-z0-9-]+, lasts with the disk
	Since  string // an earlier mark: only what was written since is copied; empty, or forgotten by the disk (a machine that crashed): everything
	Socket string // absolute path of the unix socket of an NBD server that takes the bytes
	Export string
}

// Granularity of marks, in bytes: of a block in which anything was written all
// is copied, in pieces of at least 64 KiB (or what the disk ends with), aligned,
// zeroes not as data.
const Granularity = 512 << 10

// Job is a copying or filling that goes on beside the guest.
type Job struct {
	ID    string // Copy.Mark, or FillID of a disk
	Done  int64
	Total int64 // bytes; may grow
	Ended bool  // it is over, well if Err is nil
	Err   error
}

// FillID is the id of the job that fills a disk.
func FillID(serial string) string { return "fill-" + serial }

// Storage is what a hypervisor does with the disks of machines that run, guests
// and keepers alike. Of several programs one at a time can do so.
type Storage interface {
	// Disks lists the serials of the disks that the machine has now, as far as
	// the hypervisor is concerned; a disk that a guest was asked to give back is
	// among them until it has. Absent has none.
	Disks(ctx context.Context, dir string) ([]string, error)

	// Plug gives a disk to a machine that is Running. One that it has already, by
	// serial, is no error.
	Plug(ctx context.Context, dir string, d Disk) error

	// Unplug asks the guest to give a disk back, and returns at once; the disk is
	// gone when Disks doesn't list it, and its file closed. Where force is set the
	// disk is taken from the guest at once, which then sees errors; what the guest
	// had flushed is kept. A disk that isn't there is no error. One that is being
	// copied stays open until its copies have ended; its filling ends.
	Unplug(ctx context.Context, dir string, serial string, force bool) error

	// Adjust makes size (bytes; it only grows) and limits of a disk of a Running
	// machine what they should be, and tells the guest.
	Adjust(ctx context.Context, dir string, serial string, size int64, l Limits) error

	// Copy begins to store disks as they are at one instant, the same for all, and
	// returns when that is past; a guest is not held up. The jobs run on by
	// themselves; where it fails none runs. Machines that are Running or Exited.
	// Full tells, for each, whether all of the disk is copied, Since being empty or
	// forgotten; then it may leave out what is zero, as if the export began so. An
	// export has the disk's size. Of a disk's marks
	// those stay that are Since here, or a job's; others are forgotten. A mark may
	// be used again when its job is lost or dismissed.
	Copy(ctx context.Context, dir string, copies []Copy) (full []bool, err error)

	// Fill begins to copy into a disk what it still stands on (block.Source), at
	// most so many bytes a second (0: no limit). When its job has ended well, which
	// Jobs has to see, the disk stands on its own. One that does so already, or is
	// being filled, is no error, nor is one that is being copied; but that is not
	// filled meanwhile. Copy and a growing Adjust end a filling, and dismiss it: it goes on
	// with the next Fill.
	Fill(ctx context.Context, dir string, serial string, bytesPerSecond int64) error

	// Jobs lists the machine's jobs, those that have ended too until they are
	// dismissed. Jobs end with the machine's process; a filling goes on with the
	// next Fill.
	Jobs(ctx context.Context, dir string) ([]Job, error)

	// Dismiss a job: one that runs is cancelled first. That may wait for what its
	// server has not answered, which had better hang up before. Of a copy that ended badly
	// or was cancelled its Mark goes too, and Since stays; of one that ended well
	// Since goes. Dismissing what isn't there is no error.
	Dismiss(ctx context.Context, dir string, id string) error
}
