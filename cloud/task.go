package cloud

import "time"

// TaskKind says what a task does. Its word is also the prefix of the task's id.
type TaskKind string

const (
	BundleInstance TaskKind = "bun"         // an instance-store root disk into a bundle
	ImportImage    TaskKind = "import-ami"  // disk files into an image
	ImportSnapshot TaskKind = "import-snap" // a disk file into a snapshot
	ImportVolume   TaskKind = "import-vol"  // an uploaded disk into a volume
	ImportInstance TaskKind = "import-i"    // uploaded disks into an instance
	ExportImage    TaskKind = "export-ami"  // an image into a disk file
	CopyImage      TaskKind = "copy"        // an image of another cloud, or its bundle into one's own account
)

// Task is long work on bytes that a user asked for. A node does it; what comes
// of it (Result) a loop then puts into the state, in one transaction.
//
//	the API: wished ─▶ a node: active ─▶ done ─▶ a loop: Finished, with what it made
//	             └─ Cancelled ─▶ given up, nothing left ─▶ Finished
type Task struct {
	ID          TaskID    `json:"id"`
	Kind        TaskKind  `json:"kind"`
	Account     AccountID `json:"account"`
	Node        NodeID    `json:"node"`
	CreatedAt   time.Time `json:"created_at"`
	Description string    `json:"description,omitempty"`

	Instance InstanceID        `json:"instance,omitempty"` // that is bundled
	Image    ImageID           `json:"image,omitempty"`    // that is exported, or that is made
	Sources  []DiskFile        `json:"sources,omitempty"`  // that are imported
	Target   *DiskFile         `json:"target,omitempty"`   // that is written
	Ref      *ImageRef         `json:"ref,omitempty"`      // bytes of Image, where it is a bundle
	Contents []Content         `json:"contents,omitempty"` // bytes of Image, where it is EBS-backed
	Params   map[string]string `json:"params,omitempty"`   // of the request, for the loop and for Describe

	CancelledAt time.Time         `json:"cancelled_at,omitzero"`
	FinishedAt  time.Time         `json:"finished_at,omitzero"`
	Failed      Reason            `json:"failed,omitzero"`
	Made        map[string]string `json:"made,omitempty"` // ids by what they are: image, snapshot, volume, instance
}

// DiskFile is a disk image outside of the cloud's own formats.
type DiskFile struct {
	Bucket string `json:"bucket,omitempty"` // in Walrus
	Key    string `json:"key,omitempty"`
	URL    string `json:"url,omitempty"`    // anywhere, instead of Bucket and Key
	Format string `json:"format,omitempty"` // RAW, QCOW2, VMDK, VHD, VHDX, OVA; empty: found out
	Size   int64  `json:"size,omitempty"`   // bytes, where it is known
	Device string `json:"device,omitempty"` // of an image or instance that it is for

	Description string     `json:"description,omitempty"`
	VolumeGiB   int        `json:"volume_gib,omitempty"` // of the volume that is made of it
	Snapshot    SnapshotID `json:"snapshot,omitempty"`   // that is used instead of a file
}

// What a request says of what is made, in Params.
const (
	ParamArchitecture = "architecture"
	ParamPlatform     = "platform"
	ParamBootMode     = "boot-mode"
	ParamKernel       = "kernel"
	ParamRamdisk      = "ramdisk"
	ParamZone         = "zone"
	ParamName         = "name"
	ParamType         = "type"
	ParamAccessKey    = "access-key"
	ParamRegion       = "region"
)

// Seen tells how far the task is, in percent, and what is being done.
func (t *Task) Seen(o TaskObservation) (progress int, message string) {
	switch {
	case t.FinishedAt.IsZero():
		return o.Progress, o.Message
	case t.Failed.Message != "":
		return o.Progress, t.Failed.Message
	}
	return 100, ""
}

// TaskPhase is what a node sees of a task.
type TaskPhase string

const (
	TaskActive TaskPhase = "active"
	TaskDone   TaskPhase = "done"
	TaskFailed TaskPhase = "failed"
)

// TaskObservation is what is known of a task from its node's reports.
type TaskObservation struct {
	Task     TaskID     `json:"task"`
	Phase    TaskPhase  `json:"phase"`
	Progress int        `json:"progress"`          // percent
	Message  string     `json:"message,omitempty"` // what is being done, for people
	Reason   Reason     `json:"reason,omitzero"`   // of a failure
	Result   TaskResult `json:"result,omitzero"`
	At       time.Time  `json:"at"`
}

// TaskResult is what a node made; nothing of it is in the state before the loop
// has put it there.
type TaskResult struct {
	Contents       []Content      `json:"contents,omitempty"` // of each source
	Sizes          []int64        `json:"sizes,omitempty"`    // bytes read of each source
	Architecture   string         `json:"architecture,omitempty"`
	Virtualization Virtualization `json:"virtualization,omitempty"`
	BootMode       string         `json:"boot_mode,omitempty"`
	Platform       string         `json:"platform,omitempty"`
	Manifest       string         `json:"manifest,omitempty"` // key of a bundle's manifest
}
