package cloud

import (
	"errors"
	"testing"
)

func TestVolumeFigures(t *testing.T) {
	const fine Rule = -1
	for _, test := range []struct {
		name                   string
		size, iops, throughput int
		want                   Rule
	}{
		{"gp2", 1, 0, 0, fine}, {"gp2", 16384, 0, 0, fine}, {"gp2", 16385, 0, 0, RuleValue}, {"gp2", 0, 0, 0, RuleValue}, {"gp2", -1, 0, 0, RuleValue},
		{"gp2", 8, 3000, 0, RuleCombination}, {"gp2", 8, 0, 125, RuleCombination},
		{"gp3", 1, 3000, 125, fine}, {"gp3", 8, 2999, 0, RuleValue}, {"gp3", 8, 4001, 0, RuleValue}, {"gp3", 8, 4000, 0, fine}, {"gp3", 100, 16001, 0, RuleValue},
		{"gp3", 100, 0, 750, fine}, {"gp3", 100, 0, 751, RuleValue}, {"gp3", 100, 4000, 1000, fine}, {"gp3", 100, 16000, 1001, RuleValue}, {"gp3", 8, 0, 124, RuleValue},
		{"io1", 4, 0, 0, RuleMissing}, {"io1", 4, 200, 0, fine}, {"io1", 4, 201, 0, RuleValue}, {"io1", 3, 100, 0, RuleValue}, {"io1", 4, 99, 0, RuleValue},
		{"io2", 4, 2000, 0, fine}, {"io2", 16384, 64001, 0, RuleValue}, {"io2", 4, 100, 200, RuleCombination},
		{"standard", 1024, 0, 0, fine}, {"standard", 1025, 0, 0, RuleValue}, {"st1", 124, 0, 0, RuleValue}, {"sc1", 125, 0, 0, fine},
		{"gp9", 8, 0, 0, RuleVolumeType}, {"", 8, 0, 0, RuleVolumeType},
	} {
		v, err := VolumeTypeNamed(test.name)
		if err == nil {
			err = v.Check(test.size, test.iops, test.throughput)
		}
		var rule *RuleError
		if got := errors.As(err, &rule); got != (test.want != fine) || got && rule.Rule != test.want {
			t.Errorf("%s of %d GiB, %d IOPS, %d MiB/s: %v", test.name, test.size, test.iops, test.throughput, err)
		}
	}
}
