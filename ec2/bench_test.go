package ec2

import (
	"fmt"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

// benchCloud has room for all that a benchmark launches, on 50 nodes.
func benchCloud(b *testing.B) *aCloud {
	return newCloud(b).withImages().withNodes("one", 50, cloud.Size{VCPUs: 1 << 30, MemoryMiB: 1 << 40, DiskGiB: 1 << 40})
}

func (c *aCloud) must(b *testing.B, form wire.Form) *httptest.ResponseRecorder {
	form["Version"] = "2016-11-15"
	w := httptest.NewRecorder()
	c.Handle(w, httptest.NewRequest("POST", "/", nil), form, c.user, "id")
	if w.Code != 200 {
		b.Fatal(w.Body)
	}
	return w
}

func BenchmarkRunInstances(b *testing.B) {
	for _, n := range []int{1, 16, 100} {
		b.Run(fmt.Sprintf("%d-a-call", n), func(b *testing.B) {
			c := benchCloud(b)
			count := 0
			for b.Loop() {
				c.must(b, wire.Form{"Action": "RunInstances", "ImageId": hvmImage, "MinCount": itoa(n), "MaxCount": itoa(n)})
				if count += n; count >= 20_000 { // an address pool ends
					b.StopTimer()
					c, count = benchCloud(b), 0
					b.StartTimer()
				}
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "instances/s")
		})
	}
}

// tenThousand instances of which every hundredth has the tag Name=web.
func tenThousand(b *testing.B) *aCloud {
	c := benchCloud(b)
	for range 100 {
		c.must(b, wire.Form{
			"Action": "RunInstances", "ImageId": hvmImage, "MinCount": "99", "MaxCount": "99",
			"TagSpecification.1.ResourceType": "instance", "TagSpecification.1.Tag.1.Key": "Name", "TagSpecification.1.Tag.1.Value": "db",
			"TagSpecification.1.Tag.2.Key": "team", "TagSpecification.1.Tag.2.Value": "green",
		})
		c.must(b, wire.Form{
			"Action": "RunInstances", "ImageId": hvmImage,
			"TagSpecification.1.ResourceType": "instance", "TagSpecification.1.Tag.1.Key": "Name", "TagSpecification.1.Tag.1.Value": "web",
		})
	}
	c.write(func(tx *state.Tx) {
		for i := range state.Instances.All(tx) {
			state.Observations.Put(tx, cloud.Observation{Instance: i.ID, Phase: cloud.PhaseUp, UpWish: 1})
		}
	})
	return c
}

func BenchmarkDescribeInstances(b *testing.B) {
	c := tenThousand(b)
	token := get[describeInstancesReply](c, c.user, "DescribeInstances", "MaxResults=1000").NextToken
	id := c.run(c.user)[0]
	for name, form := range map[string]wire.Form{
		"all":           {},
		"first-page":    {"MaxResults": "1000"},
		"second-page":   {"MaxResults": "1000", "NextToken": token},
		"by-id":         {"InstanceId.1": id},
		"by-tag":        {"Filter.1.Name": "tag:Name", "Filter.1.Value.1": "web"},
		"by-pattern":    {"Filter.1.Name": "tag:Name", "Filter.1.Value.1": "w*"},
		"by-state-none": {"Filter.1.Name": "instance-state-name", "Filter.1.Value.1": "stopped"},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			form["Action"] = "DescribeInstances"
			size := 0
			for b.Loop() {
				size = c.must(b, form).Body.Len()
			}
			b.ReportMetric(float64(size), "bytes")
		})
	}
}

// BenchmarkDescribePage describes 1,000 of 10,000 instances, and, turn by turn,
// writes their XML from structs that are ready: the least that it can cost.
func BenchmarkDescribePage(b *testing.B) {
	c := tenThousand(b)
	page := get[describeInstancesReply](c, c.user, "DescribeInstances", "MaxResults=1000")
	form := wire.Form{"Action": "DescribeInstances", "MaxResults": "1000"}
	var ratios []float64
	for b.Loop() {
		began := time.Now()
		c.must(b, form)
		described := time.Since(began)
		began = time.Now()
		if err := wire.WriteEC2(httptest.NewRecorder(), "DescribeInstances", "2016-11-15", "id", &page); err != nil {
			b.Fatal(err)
		}
		ratios = append(ratios, described.Seconds()/time.Since(began).Seconds())
	}
	slices.Sort(ratios)
	b.ReportMetric(ratios[len(ratios)/2], "described/written")
}
