package cloud

// What lies on an instance's disk, in bytes but for DiskHeader. The disk has the
// size of the instance's type. Of a paravirtual instance it holds, one after the
// other, a header, the image as the root partition, an ephemeral partition that
// takes what is left, and swap; of an HVM instance the image, whose rest makes a
// second, ephemeral disk if it is worth one. Figures are Eucalyptus's.
const (
	SectorSize   = 512
	DiskHeader   = 63 // sectors, for the partition table
	SwapSize     = 512 << 20
	MinEphemeral = 61440
)

// Sectors is how many so many bytes take; what follows them begins at a whole one.
func Sectors(bytes int64) int64 { return (bytes + SectorSize - 1) / SectorSize }

// DiskNeeded is how many bytes the disk of an instance has at least, to hold an
// image of so many bytes and what the cloud adds to it.
func DiskNeeded(v Virtualization, image int64) int64 {
	if v != Paravirtual {
		return image
	}
	return (DiskHeader+Sectors(image))*SectorSize + MinEphemeral + SwapSize
}
