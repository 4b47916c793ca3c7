package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
)

// manyVolumes takes n volumes, and says what the program takes for each, and how
// many processes: a volume that nobody has open needs none.
func manyVolumes(ctx context.Context, s *subject, n int, r *report) error {
	if n == 0 {
		return nil
	}
	say("%d volumes", n)
	before, err := s.freshMemory(ctx)
	if err != nil {
		return err
	}
	ids, err := s.makeVolumes(ctx, n)
	if err != nil {
		return err
	}
	after, err := s.freshMemory(ctx)
	if err != nil {
		return err
	}
	others, err := s.others()
	if err != nil {
		return err
	}
	r.add("memory of mallee for each volume", "KiB", single(float64(after-before)/float64(n)/1024), 256)
	r.add(fmt.Sprintf("processes beside mallee for %d volumes", n), "processes", single(float64(len(others))), 0)
	for _, id := range ids {
		if _, err := s.ec2.DeleteVolume(ctx, &ec2.DeleteVolumeInput{VolumeId: &id}); err != nil {
			return err
		}
	}
	return nil
}

// makeVolumes of a GiB, and wait until all are there.
func (s *subject) makeVolumes(ctx context.Context, n int) (ids []string, err error) {
	zone, err := s.zone(ctx)
	if err != nil {
		return nil, err
	}
	for range n {
		v, err := s.ec2.CreateVolume(ctx, &ec2.CreateVolumeInput{AvailabilityZone: &zone, Size: aws.Int32(1)})
		if err != nil {
			return nil, err
		}
		ids = append(ids, *v.VolumeId)
	}
	return ids, s.available(ctx, ids)
}

// zone of the cloud.
func (s *subject) zone(ctx context.Context) (string, error) {
	zones, err := s.ec2.DescribeAvailabilityZones(ctx, &ec2.DescribeAvailabilityZonesInput{})
	if err != nil {
		return "", err
	}
	return *zones.AvailabilityZones[0].ZoneName, nil
}

// available waits for the volumes to be.
func (s *subject) available(ctx context.Context, ids []string) error {
	return ec2.NewVolumeAvailableWaiter(s.ec2, func(o *ec2.VolumeAvailableWaiterOptions) {
		o.MinDelay, o.MaxDelay = 5*time.Millisecond, 5*time.Millisecond
	}).Wait(ctx, &ec2.DescribeVolumesInput{VolumeIds: ids}, guestTime)
}

// others are the processes that run in the cloud's folder, or on files of it, but
// for the program itself.
func (s *subject) others() (pids []int, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == s.PID() || pid == os.Getpid() {
			continue
		}
		line, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline")) // one that has ended meanwhile has none
		folder, _ := os.Readlink(filepath.Join("/proc", e.Name(), "cwd"))
		if strings.Contains(string(line), s.Dir) || strings.HasPrefix(folder, s.Dir) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
