package cloud

// VolumeLimits are what a volume may do in a second, as its type has it; zero is
// no limit. A bucket of credits holds BurstSeconds of the burst: who uses less
// than the limit saves up, and who has saved may use as much as the burst.
type VolumeLimits struct {
	IOPS, BurstIOPS int
	MiBs, BurstMiBs int
	BurstSeconds    int // of one of the two: no type has a burst of both
	IOKiB           int // a larger operation counts as several
}

// Figures of EC2's pages on volume types.
const (
	solidIOKiB = 256 // of gp2, gp3, io1 and io2; disks that turn count by the MiB
	diskIOKiB  = 1024

	gp2IOPSPerGiB, gp2MinIOPS, gp2MaxIOPS = 3, 100, 16000
	gp2BurstIOPS                          = 3000
	gp2Credits                            = 5_400_000 // operations that a full bucket holds
	gp2SmallGiB, gp2SmallMiBs, gp2MiBs    = 170, 128, 250

	io1MiBs, io2MiBs = 1000, 4000

	// Of the ranges that EC2 gives for magnetic volumes, the upper ends.
	standardIOPS, standardMiBs = 200, 90
)

// Limits of a volume with these figures.
func (f Figures) Limits() VolumeLimits {
	switch f.Type {
	case "gp2":
		return gp2Limits(f.SizeGiB)
	case "io1":
		return VolumeLimits{IOPS: f.IOPS, MiBs: io1MiBs, IOKiB: solidIOKiB}
	case "io2":
		return VolumeLimits{IOPS: f.IOPS, MiBs: io2MiBs, IOKiB: solidIOKiB}
	case "standard":
		return VolumeLimits{IOPS: standardIOPS, MiBs: standardMiBs, IOKiB: diskIOKiB}
	case "st1":
		return turningLimits(f.SizeGiB, 40, 250, 500)
	case "sc1":
		return turningLimits(f.SizeGiB, 12, 80, 250)
	}
	return VolumeLimits{IOPS: f.IOPS, MiBs: f.Throughput, IOKiB: solidIOKiB}
}

// GP2IOPS is what a gp2 volume of that size does without credits.
func GP2IOPS(sizeGiB int) int {
	return min(max(sizeGiB*gp2IOPSPerGiB, gp2MinIOPS), gp2MaxIOPS)
}

func gp2Limits(sizeGiB int) VolumeLimits {
	l := VolumeLimits{IOPS: GP2IOPS(sizeGiB), MiBs: gp2MiBs, IOKiB: solidIOKiB}
	if sizeGiB <= gp2SmallGiB {
		l.MiBs = gp2SmallMiBs
	}
	if l.IOPS < gp2BurstIOPS {
		l.BurstIOPS, l.BurstSeconds = gp2BurstIOPS, gp2Credits/gp2BurstIOPS
	}
	return l
}

// turningLimits of st1 and sc1, by what a TiB of them does in MiB/s: always, with
// credits, of which a bucket holds a TiB for each TiB, and all of them at most. Their
// operations are a MiB each, so that the most MiB are the most operations too.
func turningLimits(sizeGiB, perTiB, burstPerTiB, most int) VolumeLimits {
	l := VolumeLimits{IOPS: most, IOKiB: diskIOKiB, MiBs: min(max(sizeGiB*perTiB/1024, 1), most)}
	if burst := min(sizeGiB*burstPerTiB/1024, most); burst > l.MiBs {
		l.BurstMiBs, l.BurstSeconds = burst, sizeGiB*1024/burst
	}
	return l
}
