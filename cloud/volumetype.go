package cloud

import (
	"slices"
	"strings"
)

// DefaultVolumeType is what a volume is where nothing is said.
const DefaultVolumeType = "gp2"

// VolumeType says what the volumes of a type may ask for. Facts: EC2's page on
// volume types; sizes end at 16 TiB for all of them.
type VolumeType struct {
	Name              string
	MinGiB, MaxGiB    int
	MinIOPS, MaxIOPS  int // per second; zero where they can't be chosen
	IOPSPerGiB        int // at most
	NeedsIOPS         bool
	DefaultIOPS       int
	MinMiBs, MaxMiBs  int // MiB/s; zero where they can't be chosen
	DefaultThroughput int
}

// VolumeTypes that there are.
var VolumeTypes = []VolumeType{
	{Name: "standard", MinGiB: 1, MaxGiB: 1024},
	{Name: "gp2", MinGiB: 1, MaxGiB: 16384},
	{Name: "gp3", MinGiB: 1, MaxGiB: 16384, MinIOPS: 3000, MaxIOPS: 16000, IOPSPerGiB: 500, DefaultIOPS: 3000, MinMiBs: 125, MaxMiBs: 1000, DefaultThroughput: 125},
	{Name: "io1", MinGiB: 4, MaxGiB: 16384, MinIOPS: 100, MaxIOPS: 64000, IOPSPerGiB: 50, NeedsIOPS: true},
	{Name: "io2", MinGiB: 4, MaxGiB: 16384, MinIOPS: 100, MaxIOPS: 64000, IOPSPerGiB: 500, NeedsIOPS: true},
	{Name: "st1", MinGiB: 125, MaxGiB: 16384},
	{Name: "sc1", MinGiB: 125, MaxGiB: 16384},
}

// throughputPerIOPS is how many IOPS a MiB/s of a gp3 volume takes.
const throughputPerIOPS = 4

// VolumeTypeNamed finds a type by its name.
func VolumeTypeNamed(name string) (VolumeType, error) {
	at := slices.IndexFunc(VolumeTypes, func(t VolumeType) bool { return t.Name == name })
	if at < 0 {
		var names []string
		for _, t := range VolumeTypes {
			names = append(names, t.Name)
		}
		return VolumeType{}, broken(RuleVolumeType, "Unsupported volume type '%.40s'; expecting one of %s", name, strings.Join(names, ", "))
	}
	return VolumeTypes[at], nil
}

// Check the figures of a volume of this type; zero IOPS or throughput are not
// said. Where they are wrong, the error is a *RuleError.
func (t VolumeType) Check(sizeGiB, iops, throughput int) error {
	switch {
	case sizeGiB < t.MinGiB:
		return broken(RuleValue, "Volume of %dGiB is too small for volume type %s; minimum is %dGiB.", sizeGiB, t.Name, t.MinGiB)
	case sizeGiB > t.MaxGiB:
		return broken(RuleValue, "Volume of %dGiB is too large for volume type %s; maximum is %dGiB.", sizeGiB, t.Name, t.MaxGiB)
	}
	if err := t.checkIOPS(sizeGiB, iops); err != nil {
		return err
	}
	return t.checkThroughput(iops, throughput)
}

func (t VolumeType) checkIOPS(sizeGiB, iops int) error {
	switch {
	case iops == 0 && t.NeedsIOPS:
		return broken(RuleMissing, "The parameter iops must be specified for %s volumes.", t.Name)
	case iops == 0:
		return nil
	case t.MaxIOPS == 0:
		return broken(RuleCombination, "The parameter iops is not supported for %s volumes.", t.Name)
	case iops < t.MinIOPS:
		return broken(RuleValue, "Volume iops of %d is too low; minimum is %d.", iops, t.MinIOPS)
	case iops > t.MaxIOPS:
		return broken(RuleValue, "Volume iops of %d is too high; maximum is %d.", iops, t.MaxIOPS)
	case iops > t.MinIOPS && iops > sizeGiB*t.IOPSPerGiB:
		return broken(RuleValue, "Iops to volume size ratio of %.6f is too high; maximum is %d.", float64(iops)/float64(sizeGiB), t.IOPSPerGiB)
	}
	return nil
}

func (t VolumeType) checkThroughput(iops, throughput int) error {
	if iops == 0 {
		iops = t.DefaultIOPS
	}
	switch {
	case throughput == 0:
		return nil
	case t.MaxMiBs == 0:
		return broken(RuleCombination, "The parameter throughput is not supported for %s volumes.", t.Name)
	case throughput < t.MinMiBs:
		return broken(RuleValue, "Throughput of %d MiB/s is too low; minimum is %d MiB/s.", throughput, t.MinMiBs)
	case throughput > t.MaxMiBs:
		return broken(RuleValue, "Throughput of %d MiB/s is too high; maximum is %d MiB/s.", throughput, t.MaxMiBs)
	case throughput*throughputPerIOPS > iops:
		return broken(RuleValue, "Throughput (MiBps) to iops ratio of %.6f is too high; maximum is 0.25 MiBps per iops.", float64(throughput)/float64(iops))
	}
	return nil
}
