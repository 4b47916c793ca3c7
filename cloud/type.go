package cloud

// TypeName names an instance type: m1.small.
type TypeName string

// Size is what an instance of a type gets.
type Size struct {
	VCPUs     int `json:"vcpus"`
	MemoryMiB int `json:"memory_mib"`
	DiskGiB   int `json:"disk_gib"`
}

// Add and Sub of the figures, for counting what a node has given away.
func (s Size) Add(o Size) Size {
	return Size{s.VCPUs + o.VCPUs, s.MemoryMiB + o.MemoryMiB, s.DiskGiB + o.DiskGiB}
}
func (s Size) Sub(o Size) Size {
	return Size{s.VCPUs - o.VCPUs, s.MemoryMiB - o.MemoryMiB, s.DiskGiB - o.DiskGiB}
}

// Times n.
func (s Size) Times(n int) Size { return Size{s.VCPUs * n, s.MemoryMiB * n, s.DiskGiB * n} }

// InstanceType is one row of the table that the administrator may change.
type InstanceType struct {
	Name TypeName `json:"name"`
	Size Size     `json:"size"`
	NICs int      `json:"nics"`
}

// DefaultType is what RunInstances takes where no type is named (Eucalyptus's
// cloud.vmtypes.default_type_name).
const DefaultType TypeName = "m1.small"
