package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	ebstypes "github.com/aws/aws-sdk-go-v2/service/ebs/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"mallee/test/cloud"
)

// read is a turn: how long it was from CreateVolume until a guest had read the
// first 4 KiB, of an empty volume and of one from a snapshot.
type read struct{ empty, copied time.Duration }

func (r read) excess() float64 { return milliseconds(r.copied - r.empty) }

// firstRead of new volumes in a guest that waits for them.
func firstRead(ctx context.Context, s *subject, n int, r *report) (err error) {
	if n == 0 {
		return nil
	}
	say("the first read of new volumes, %d times empty and from a snapshot", n)
	snapshot, err := s.snapshotOfNoise(ctx)
	if err != nil {
		return err
	}
	g, err := s.guest(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.end(ctx)) }()
	turns := make([]read, n)
	for i := range turns {
		sides := []func() error{
			func() (err error) { turns[i].empty, err = g.reads(ctx, nil); return err },
			func() (err error) { turns[i].copied, err = g.reads(ctx, &snapshot); return err },
		}
		for k := range sides {
			if err := sides[(i+k)%2](); err != nil {
				return err
			}
		}
		say("  %d of %d: empty %v, from a snapshot %v", i+1, n, turns[i].empty.Round(time.Millisecond), turns[i].copied.Round(time.Millisecond))
	}
	r.add("CreateVolume to first read, empty", "ms", summarize(turns, emptyRead, medianOf(emptyRead)), 0)
	r.add("more, from a snapshot", "ms", summarize(turns, read.excess, medianOf(read.excess)), 100)
	return nil
}

func emptyRead(r read) float64 { return milliseconds(r.empty) }

// snapshotOfNoise is of a GiB, in whose first block something stands.
func (s *subject) snapshotOfNoise(ctx context.Context) (string, error) {
	access, err := s.Access()
	if err != nil {
		return "", err
	}
	direct := access.EBS()
	begun, err := direct.StartSnapshot(ctx, &ebs.StartSnapshotInput{VolumeSize: aws.Int64(1)})
	if err != nil {
		return "", err
	}
	block := bytes.Repeat([]byte("a block "), int(*begun.BlockSize)/8)
	sum := sha256.Sum256(block)
	_, err = direct.PutSnapshotBlock(ctx, &ebs.PutSnapshotBlockInput{
		SnapshotId: begun.SnapshotId, BlockIndex: aws.Int32(0), BlockData: bytes.NewReader(block), DataLength: begun.BlockSize,
		Checksum: aws.String(base64.StdEncoding.EncodeToString(sum[:])), ChecksumAlgorithm: ebstypes.ChecksumAlgorithmChecksumAlgorithmSha256,
	})
	if err != nil {
		return "", err
	}
	if _, err := direct.CompleteSnapshot(ctx, &ebs.CompleteSnapshotInput{SnapshotId: begun.SnapshotId, ChangedBlocksCount: aws.Int32(1)}); err != nil {
		return "", err
	}
	return *begun.SnapshotId, ec2.NewSnapshotCompletedWaiter(s.ec2).Wait(ctx, &ec2.DescribeSnapshotsInput{SnapshotIds: []string{*begun.SnapshotId}}, guestTime)
}

// guest is an instance with a login.
type guest struct {
	instances
	*cloud.Guest
	zone string
}

func (s *subject) guest(ctx context.Context) (*guest, error) {
	key, err := s.ec2.CreateKeyPair(ctx, &ec2.CreateKeyPairInput{KeyName: aws.String("bench")})
	if err != nil {
		return nil, err
	}
	out, err := s.ec2.RunInstances(ctx, &ec2.RunInstancesInput{
		ImageId: &s.linux, InstanceType: s.kind, MinCount: aws.Int32(1), MaxCount: aws.Int32(1), KeyName: key.KeyName,
	})
	if err != nil {
		return nil, err
	}
	id := *out.Instances[0].InstanceId
	g := &guest{instances: instances{subject: s, ids: []string{id}, dirs: []string{s.Path("node", "machines", id)}}}
	if g.zone, err = s.zone(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, guestTime)
	defer cancel()
	return g, cloud.Poll(ctx, "a login", func() (err error) {
		d, err := s.ec2.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: g.ids})
		if err != nil {
			return err
		}
		g.Guest, err = cloud.Login(ctx, aws.ToString(d.Reservations[0].Instances[0].PublicIpAddress), *key.KeyMaterial)
		return err
	})
}

// awaitRead ends when the disk that isn't there yet has been read.
const awaitRead = `n=$(ls /sys/block | grep -c '^vd'); echo ready; while [ $(ls /sys/block | grep -c '^vd') -le $n ]; do :; done
d=/dev/$(ls -t /sys/block | grep '^vd' | sort | tail -n 1); until dd if=$d of=/dev/null bs=4096 count=1 2>/dev/null; do :; done`

// reads a new volume, empty or from a snapshot, and gives it back.
func (g *guest) reads(ctx context.Context, snapshot *string) (took time.Duration, err error) {
	session, err := g.NewSession()
	if err != nil {
		return 0, err
	}
	defer session.Close()
	out, err := session.StdoutPipe()
	if err == nil {
		err = session.Start(awaitRead)
	}
	if err == nil {
		_, err = out.Read(make([]byte, 1)) // it waits
	}
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	v, err := g.ec2.CreateVolume(ctx, &ec2.CreateVolumeInput{AvailabilityZone: &g.zone, Size: aws.Int32(1), SnapshotId: snapshot})
	if err != nil {
		return 0, err
	}
	if err := g.available(ctx, []string{*v.VolumeId}); err != nil {
		return 0, err
	}
	if _, err := g.ec2.AttachVolume(ctx, &ec2.AttachVolumeInput{VolumeId: v.VolumeId, InstanceId: &g.ids[0], Device: aws.String("/dev/sdf")}); err != nil {
		return 0, err
	}
	if err := session.Wait(); err != nil {
		return 0, fmt.Errorf("waiting for the volume in the guest: %w", err)
	}
	return time.Since(begun), g.giveBack(ctx, *v.VolumeId)
}

// giveBack a volume, and delete it.
func (g *guest) giveBack(ctx context.Context, id string) error {
	if _, err := g.ec2.DetachVolume(ctx, &ec2.DetachVolumeInput{VolumeId: &id}); err != nil {
		return err
	}
	if err := g.available(ctx, []string{id}); err != nil {
		return err
	}
	_, err := g.ec2.DeleteVolume(ctx, &ec2.DeleteVolumeInput{VolumeId: &id})
	return err
}
