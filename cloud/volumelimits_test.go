package cloud

import "testing"

// TestVolumeLimits against the figures of EC2's pages on volume types.
func TestVolumeLimits(t *testing.T) {
	for _, test := range []struct {
		figures Figures
		want    VolumeLimits
	}{
		{Figures{SizeGiB: 1, Type: "gp2"}, VolumeLimits{IOPS: 100, BurstIOPS: 3000, MiBs: 128, BurstSeconds: 1800, IOKiB: 256}},
		{Figures{SizeGiB: 33, Type: "gp2"}, VolumeLimits{IOPS: 100, BurstIOPS: 3000, MiBs: 128, BurstSeconds: 1800, IOKiB: 256}},
		{Figures{SizeGiB: 170, Type: "gp2"}, VolumeLimits{IOPS: 510, BurstIOPS: 3000, MiBs: 128, BurstSeconds: 1800, IOKiB: 256}},
		{Figures{SizeGiB: 171, Type: "gp2"}, VolumeLimits{IOPS: 513, BurstIOPS: 3000, MiBs: 250, BurstSeconds: 1800, IOKiB: 256}},
		{Figures{SizeGiB: 1000, Type: "gp2"}, VolumeLimits{IOPS: 3000, MiBs: 250, IOKiB: 256}},
		{Figures{SizeGiB: 16384, Type: "gp2"}, VolumeLimits{IOPS: 16000, MiBs: 250, IOKiB: 256}},
		{Figures{SizeGiB: 1, Type: "gp3", IOPS: 3000, Throughput: 125}, VolumeLimits{IOPS: 3000, MiBs: 125, IOKiB: 256}},
		{Figures{SizeGiB: 4, Type: "io1", IOPS: 200}, VolumeLimits{IOPS: 200, MiBs: 1000, IOKiB: 256}},
		{Figures{SizeGiB: 4, Type: "io2", IOPS: 2000}, VolumeLimits{IOPS: 2000, MiBs: 4000, IOKiB: 256}},
		{Figures{SizeGiB: 1, Type: "standard"}, VolumeLimits{IOPS: 200, MiBs: 90, IOKiB: 1024}},
		{Figures{SizeGiB: 1024, Type: "st1"}, VolumeLimits{IOPS: 500, MiBs: 40, BurstMiBs: 250, BurstSeconds: 4194, IOKiB: 1024}},
		{Figures{SizeGiB: 16384, Type: "st1"}, VolumeLimits{IOPS: 500, MiBs: 500, IOKiB: 1024}},
		{Figures{SizeGiB: 125, Type: "sc1"}, VolumeLimits{IOPS: 250, MiBs: 1, BurstMiBs: 9, BurstSeconds: 14222, IOKiB: 1024}},
		{Figures{SizeGiB: 16384, Type: "sc1"}, VolumeLimits{IOPS: 250, MiBs: 192, BurstMiBs: 250, BurstSeconds: 67108, IOKiB: 1024}},
	} {
		if got := test.figures.Limits(); got != test.want {
			t.Errorf("%+v: %+v, want %+v", test.figures, got, test.want)
		}
	}
}

// TestVolumeCredits: what QEMU lets through before it limits is the burst's rate
// for its seconds, and that is EC2's bucket.
func TestVolumeCredits(t *testing.T) {
	for _, size := range []int{1, 100, 999} {
		l := Figures{SizeGiB: size, Type: "gp2"}.Limits()
		if credits := l.BurstIOPS * l.BurstSeconds; credits != 5_400_000 {
			t.Errorf("a gp2 volume of %d GiB has %d credits", size, credits)
		}
	}
}
