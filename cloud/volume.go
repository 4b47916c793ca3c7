package cloud

import "time"

// Volume is a disk that outlives machines, as it was wished for. What is fixed
// by its making is its origin and place; its size, figures and attachment are
// wishes that the API changes. It is deleted in two steps: Deleted is wished,
// and the record goes when its node has proven that nothing of it is left.
type Volume struct {
	ID        VolumeID   `json:"id"`
	Account   AccountID  `json:"account"`
	Zone      string     `json:"zone"`
	Node      NodeID     `json:"node"` // whose storage keeps it
	CreatedAt time.Time  `json:"created_at"`
	Snapshot  SnapshotID `json:"snapshot,omitempty"` // it was made from; it may be gone by now
	Source    *Content   `json:"source,omitempty"`   // bytes that it starts from, until it has them all itself
	Encrypted bool       `json:"encrypted,omitempty"`

	SizeGiB    int         `json:"size_gib"`
	Type       string      `json:"type"`                 // gp2, gp3, io1, io2, standard, st1, sc1
	IOPS       int         `json:"iops,omitempty"`       // per second; 0: as the type has it (Figures.Limits)
	Throughput int         `json:"throughput,omitempty"` // MiB/s; 0: as the type has it
	Attachment *Attachment `json:"attachment,omitempty"`
	Deleted    time.Time   `json:"deleted,omitzero"`

	Modification *Modification `json:"modification,omitempty"`   // the last one
	AutoEnableIO bool          `json:"auto_enable_io,omitempty"` // kept for its owner; I/O is never disabled
}

// Figures are those of a volume that its owner may change.
type Figures struct {
	SizeGiB    int    `json:"size_gib"`
	Type       string `json:"type"`
	IOPS       int    `json:"iops,omitempty"`
	Throughput int    `json:"throughput,omitempty"`
}

// Figures of the volume.
func (v *Volume) Figures() Figures { return Figures{v.SizeGiB, v.Type, v.IOPS, v.Throughput} }

// Modification is a change of a volume's figures, by which the volume has what it
// should have. It is over when the node has shown the volume in its size.
type Modification struct {
	Was   Figures   `json:"was"`
	Now   Figures   `json:"now"`
	At    time.Time `json:"at"`
	Ended time.Time `json:"ended,omitzero"`
}

// Attachment is the wish that a volume is in an instance's machine. It goes when
// the node has proven, after Detaching, that the machine has it no more.
type Attachment struct {
	Instance            InstanceID `json:"instance"`
	Device              string     `json:"device"` // as it was said: /dev/sdf
	DeleteOnTermination bool       `json:"delete_on_termination,omitempty"`
	At                  time.Time  `json:"at"`
	Detaching           time.Time  `json:"detaching,omitzero"`
	Force               bool       `json:"force,omitempty"` // detach also from a guest that doesn't answer
}

// Content names bytes that never change, by the digest of the manifest of their
// blocks (package snapshot).
type Content struct {
	Manifest string `json:"manifest"` // SHA-256, lower-case hex
	Size     int64  `json:"size"`     // bytes
}

// VolumePhase is what a node sees of a volume.
type VolumePhase string

const (
	VolumePreparing VolumePhase = "preparing" // not there yet
	VolumeReady     VolumePhase = "ready"     // can be attached
	VolumeFailed    VolumePhase = "failed"    // it can't be made; Reason says why
)

// VolumeObservation is what is known of a volume from its node's reports.
type VolumeObservation struct {
	Volume   VolumeID    `json:"volume"`
	Phase    VolumePhase `json:"phase"`
	Reason   Reason      `json:"reason,omitzero"`
	SizeGiB  int         `json:"size_gib,omitempty"` // as it is now
	Attached InstanceID  `json:"attached,omitempty"` // whose machine has it; a stopped instance has none
	Filled   int         `json:"filled,omitempty"`   // percent of Source that the volume has itself
	Trouble  Trouble     `json:"trouble,omitzero"`   // with Source
	Troubled time.Time   `json:"troubled,omitzero"`  // since when
	At       time.Time   `json:"at"`
}

// Trouble is why a volume can't read now what it has not copied from its source yet.
// A guest that reads there is paused. Either the source is away, and the guest goes on
// when it is back; or its bytes are damaged, which only who has them elsewhere can mend.
type Trouble struct {
	Damaged bool   `json:"damaged,omitempty"`
	Message string `json:"message"`
}

// VolumeState is EC2's word for where a volume stands.
type VolumeState string

const (
	VolumeCreating  VolumeState = "creating"
	VolumeAvailable VolumeState = "available"
	VolumeInUse     VolumeState = "in-use"
	VolumeDeleting  VolumeState = "deleting"
	VolumeError     VolumeState = "error"
)

// State derives where a volume stands.
//
//	wish       seen            state
//	deleted    anything        deleting (then the record is gone)
//	attached   anything        in-use
//	there      ready           available
//	there      failed          error
//	there      anything else   creating
func (v *Volume) State(seen VolumeObservation) VolumeState {
	switch {
	case !v.Deleted.IsZero():
		return VolumeDeleting
	case v.Attachment != nil:
		return VolumeInUse
	case seen.Phase == VolumeReady:
		return VolumeAvailable
	case seen.Phase == VolumeFailed:
		return VolumeError
	}
	return VolumeCreating
}

// AttachmentState is EC2's word for where an attachment stands.
type AttachmentState string

const (
	Attaching AttachmentState = "attaching"
	Attached  AttachmentState = "attached"
	Detaching AttachmentState = "detaching"
	Busy      AttachmentState = "busy" // the guest doesn't let go of it
)

// State derives where an attachment stands; up says whether the instance has a
// machine: a volume is attached to a stopped instance by the wish alone.
func (a *Attachment) State(seen VolumeObservation, up bool) AttachmentState {
	switch {
	case !a.Detaching.IsZero():
		return Detaching
	case !up || seen.Attached == a.Instance:
		return Attached
	}
	return Attaching
}
