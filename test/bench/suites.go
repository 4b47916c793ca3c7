package main

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
)

// metrics of Go's benchmarks, by "Benchmark unit".
type metrics map[string]float64

// suites runs the benchmarks of the main module that need no guest: the real API,
// state, loops and nodes, on a fake hypervisor.
func suites(ctx context.Context, module string, r *report) error {
	say("throughput at 10,000 instances on the fake hypervisor")
	m := metrics{}
	if err := m.run(ctx, module, "./sim", "^BenchmarkCloud$"); err != nil {
		return err
	}
	if err := m.run(ctx, module, "./ec2", "^BenchmarkDescribePage$"); err != nil {
		return err
	}
	for _, engine := range []string{"etcd", "memory"} {
		for _, line := range []struct{ name, key, unit string }{
			{"RunInstances, one a call", "RunInstances/1-a-call instances/s", "instances/s"},
			{"RunInstances, 16 a call", "RunInstances/16-a-call instances/s", "instances/s"},
			{"launched until running, 16 a call", "RunInstances/16-a-call running/s", "instances/s"},
			{"DescribeInstances, pages of 1,000", "DescribeInstances/pages-of-1000 instances/s", "instances/s"},
			{"DescribeInstances of one", "DescribeInstances/by-id calls/s", "calls/s"},
		} {
			v, err := m.get("BenchmarkCloud/" + engine + "/" + line.key)
			if err != nil {
				return err
			}
			r.add(line.name+" ("+engine+")", line.unit, single(v), 0)
		}
	}
	ratio, err := m.get("BenchmarkDescribePage described/written")
	if err != nil {
		return err
	}
	r.add("DescribeInstances of 1,000 / writing their XML", "×", single(ratio), 2)
	return nil
}

func (m metrics) run(ctx context.Context, module, pkg, pattern string, more ...string) error {
	args := append([]string{"test", pkg, "-run", "^$", "-bench", pattern, "-timeout", "30m"}, more...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = module
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("go test %s -bench %s: %w: %s", pkg, pattern, err, out)
	}
	for line := range strings.Lines(string(out)) {
		m.parse(line)
	}
	return nil
}

// parse a line such as "BenchmarkX/y-2  100  5 ns/op  7 instances/s".
func (m metrics) parse(line string) {
	fields := strings.Fields(line)
	if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
		return
	}
	name := fields[0]
	if dash := strings.LastIndex(name, "-"); dash > 0 {
		if _, err := strconv.Atoi(name[dash+1:]); err == nil {
			name = name[:dash] // the number of processors
		}
	}
	for i := 2; i+1 < len(fields); i += 2 {
		if v, err := strconv.ParseFloat(fields[i], 64); err == nil {
			m[name+" "+fields[i+1]] = v
		}
	}
}

func (m metrics) get(key string) (float64, error) {
	v, ok := m[key]
	if !ok {
		return 0, fmt.Errorf("the benchmarks do not say %q", key)
	}
	return v, nil
}
