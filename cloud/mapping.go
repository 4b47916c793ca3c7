package cloud

// Mapping is one block device that an image or a launch asks for: an ephemeral
// disk (VirtualName), a volume (EBS), or none where there else were one
// (NoDevice).
type Mapping struct {
	Device      string      `json:"device"` // as it was said: /dev/sda, sda1
	VirtualName string      `json:"virtual_name,omitempty"`
	NoDevice    bool        `json:"no_device,omitempty"`
	EBS         *EBSMapping `json:"ebs,omitempty"`
}

// EBSMapping is the volume of a mapping: one that is made at launch, empty or
// from a snapshot.
type EBSMapping struct {
	Snapshot            SnapshotID `json:"snapshot,omitempty"`
	SizeGiB             int        `json:"size_gib,omitempty"`
	DeleteOnTermination bool       `json:"delete_on_termination,omitempty"`
	VolumeType          string     `json:"volume_type,omitempty"` // gp2, gp3, io1, io2, standard, ...
	IOPS                int        `json:"iops,omitempty"`        // per second
	Throughput          int        `json:"throughput,omitempty"`  // MiB/s
	Encrypted           bool       `json:"encrypted,omitempty"`
}
