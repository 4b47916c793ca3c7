package cloud

// Types are the instance types there are, smallest family first.
//
// The first part is Eucalyptus's table, with the memory doubled where no guest
// of today would boot (256 MiB). The second part has EC2's names of today with
// EC2's figures for processors, memory and interfaces. EC2 gives those no disk of
// their own (their root is a volume), so theirs is ours: enough for the images
// that their memory can run.
var Types = []InstanceType{
	{"t1.micro", Size{1, 512, 5}, 2},
	{"m1.small", Size{1, 512, 5}, 2},
	{"m1.medium", Size{1, 512, 10}, 2},
	{"c1.medium", Size{2, 512, 10}, 2},
	{"m1.large", Size{2, 512, 10}, 3},
	{"m1.xlarge", Size{2, 1024, 10}, 4},
	{"c1.xlarge", Size{2, 2048, 10}, 4},
	{"m2.xlarge", Size{2, 2048, 10}, 4},
	{"m3.xlarge", Size{4, 2048, 15}, 4},
	{"m2.2xlarge", Size{2, 4096, 30}, 4},
	{"m3.2xlarge", Size{4, 4096, 30}, 4},
	{"cc1.4xlarge", Size{8, 3072, 60}, 4},
	{"m2.4xlarge", Size{8, 4096, 60}, 8},
	{"hi1.4xlarge", Size{8, 6144, 120}, 8},
	{"cc2.8xlarge", Size{16, 6144, 120}, 8},
	{"cg1.4xlarge", Size{16, 12288, 200}, 8},
	{"cr1.8xlarge", Size{16, 16384, 240}, 8},
	{"hs1.8xlarge", Size{48, 119808, 24000}, 8},

	{"t2.nano", Size{1, 512, 5}, 2},
	{"t2.micro", Size{1, 1024, 10}, 2},
	{"t2.small", Size{1, 2048, 15}, 3},
	{"t2.medium", Size{2, 4096, 20}, 3},
	{"t2.large", Size{2, 8192, 30}, 3},
	{"t2.xlarge", Size{4, 16384, 40}, 3},
	{"t2.2xlarge", Size{8, 32768, 60}, 3},
	{"t3.nano", Size{2, 512, 5}, 2},
	{"t3.micro", Size{2, 1024, 10}, 2},
	{"t3.small", Size{2, 2048, 15}, 3},
	{"t3.medium", Size{2, 4096, 20}, 3},
	{"t3.large", Size{2, 8192, 30}, 3},
	{"t3.xlarge", Size{4, 16384, 40}, 4},
	{"t3.2xlarge", Size{8, 32768, 60}, 4},
	{"m5.large", Size{2, 8192, 30}, 3},
	{"m5.xlarge", Size{4, 16384, 40}, 4},
	{"m5.2xlarge", Size{8, 32768, 60}, 4},
	{"m5.4xlarge", Size{16, 65536, 80}, 8},
	{"c5.large", Size{2, 4096, 30}, 3},
	{"c5.xlarge", Size{4, 8192, 40}, 4},
	{"c5.2xlarge", Size{8, 16384, 60}, 4},
	{"c5.4xlarge", Size{16, 32768, 80}, 8},
	{"r5.large", Size{2, 16384, 30}, 3},
	{"r5.xlarge", Size{4, 32768, 40}, 4},
	{"r5.2xlarge", Size{8, 65536, 60}, 4},
	{"r5.4xlarge", Size{16, 131072, 80}, 8},
}

var typesByName = func() map[TypeName]InstanceType {
	byName := make(map[TypeName]InstanceType, len(Types))
	for _, t := range Types {
		byName[t.Name] = t
	}
	return byName
}()

// TypeNamed looks an instance type up.
func TypeNamed(name TypeName) (InstanceType, bool) {
	t, ok := typesByName[name]
	return t, ok
}
