package euca

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	"github.com/aws/aws-sdk-go-v2/service/ebs/types"

	"mallee/peer"
)

const (
	// migrating is how many blocks are on their way at once.
	migrating = 16
	// longestBreak, in minutes, is how long an interrupted migration can be gone on
	// with: the API's own limit.
	longestBreak = 4320

	// completeEvery is how often a snapshot is looked at until it is completed.
	completeEvery = 2 * time.Second
)

// migration takes EBS-backed images from one cloud to another by the EBS direct
// API. What was written of a snapshot is noted in its journal, and so an
// interrupted migration goes on where it was.
type migration struct {
	dir      string // of journals
	from, to *place
	show     *progress
}

// image there, with its snapshots; the id that it has there is returned.
func (m *migration) image(ctx context.Context, id, name string) (string, error) {
	about, err := m.from.describe(ctx, id)
	if err != nil {
		return "", err
	}
	switch {
	case about.get("rootDeviceType") != "ebs":
		return "", fmt.Errorf("%s is instance-store backed, and only EBS-backed images have snapshots that can be taken along: make one by `mallee image install --ebs`", id)
	case about.get("imageState") != "available":
		return "", fmt.Errorf("%s is %s", id, about.get("imageState"))
	}
	var journals []*journal
	params := registration(about, name)
	n := 0
	for d := range about.each("blockDeviceMapping") {
		n++
		at := fmt.Sprintf("BlockDeviceMapping.%d.", n)
		j, err := m.device(ctx, d, at, params)
		if err != nil {
			return "", err
		}
		if j != nil {
			journals = append(journals, j)
		}
	}
	m.show.show("register", 0, 0)
	var reply struct {
		ImageID string `xml:"imageId"`
	}
	if err := m.to.ec2.Query(ctx, "RegisterImage", params, &reply); err != nil {
		return "", err
	}
	for _, j := range journals {
		if err := j.remove(); err != nil {
			return "", err
		}
	}
	return reply.ImageID, nil
}

// registration of the same image elsewhere, but for its devices.
func registration(about *element, name string) url.Values {
	params := url.Values{}
	set := func(param, value string) {
		if value != "" {
			params.Set(param, value)
		}
	}
	set("Name", about.get("name"))
	set("Name", name)
	set("Description", about.get("description"))
	set("Architecture", about.get("architecture"))
	set("RootDeviceName", about.get("rootDeviceName"))
	set("VirtualizationType", about.get("virtualizationType"))
	set("BootMode", about.get("bootMode"))
	set("EnaSupport", about.get("enaSupport"))
	set("SriovNetSupport", about.get("sriovNetSupport"))
	set("ImdsSupport", about.get("imdsSupport"))
	return params
}

// device of the image: a volume's snapshot is taken along, all else is said.
func (m *migration) device(ctx context.Context, d *element, at string, params url.Values) (*journal, error) {
	params.Set(at+"DeviceName", d.get("deviceName"))
	if name := d.get("virtualName"); name != "" {
		params.Set(at+"VirtualName", name)
		return nil, nil
	}
	if d.at("noDevice") != nil {
		params.Set(at+"NoDevice", "")
		return nil, nil
	}
	for param, path := range map[string]string{
		"VolumeSize": "volumeSize", "VolumeType": "volumeType", "DeleteOnTermination": "deleteOnTermination", "Iops": "iops", "Throughput": "throughput",
	} {
		if v := d.get("ebs/" + path); v != "" {
			params.Set(at+"Ebs."+param, v)
		}
	}
	if t := d.get("ebs/volumeType"); t == "gp2" || t == "standard" {
		params.Del(at + "Ebs.Iops") // it follows from the size, and may not be said
	}
	source := d.get("ebs/snapshotId")
	if source == "" {
		return nil, nil
	}
	j, err := m.snapshot(ctx, source)
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", source, err)
	}
	params.Set(at+"Ebs.SnapshotId", j.Target)
	return j, nil
}

// snapshotForm is what a snapshot's id may be: it is another cloud's word, and names
// files here.
var snapshotForm = regexp.MustCompile(`^snap-[0-9a-zA-Z]{1,60}$`)

// snapshot there, complete. What an earlier attempt has made there counts, unless it
// is so no more.
func (m *migration) snapshot(ctx context.Context, source string) (*journal, error) {
	if !snapshotForm.MatchString(source) {
		return nil, fmt.Errorf("%q is not a snapshot's id", source)
	}
	j, err := openJournal(m.dir, m.from.id()+"-"+m.to.id()+"-"+source)
	if err != nil {
		return nil, err
	}
	defer j.close()
	if j.Target != "" {
		if err := m.goOn(ctx, j); err != nil {
			return nil, err
		}
	}
	if j.Complete {
		return j, nil
	}
	if err := m.copy(ctx, source, j); err != nil {
		return nil, err
	}
	return j, m.complete(ctx, j)
}

// goOn with the snapshot of an earlier attempt where that is completed, though
// the attempt may not have heard of it, or can still be written; otherwise begin
// anew.
func (m *migration) goOn(ctx context.Context, j *journal) error {
	status, _, err := m.status(ctx, j.Target)
	switch {
	case err != nil:
		return err
	case status == "completed":
		j.Complete = true
		return j.write()
	case status == "pending" && !j.Complete:
		return nil
	}
	return j.reset()
}

// copy the blocks that aren't there yet.
func (m *migration) copy(ctx context.Context, source string, j *journal) error {
	return peer.Blocks(ctx, m.from.ebs, source, peer.Passage{
		AtOnce: migrating,
		Begin:  func(ctx context.Context, gib int64) error { return m.begin(ctx, source, gib, j) },
		Skip: func(index int64) (bool, error) {
			m.show.show("copy "+source, index*peer.BlockSize, j.GiB<<30)
			return j.has(index)
		},
		Take: func(ctx context.Context, index int64, block []byte, digest [sha256.Size]byte) error {
			return m.put(ctx, index, block, digest, j)
		},
	})
}

// begin the snapshot there, once.
func (m *migration) begin(ctx context.Context, source string, gib int64, j *journal) error {
	if j.Target != "" {
		return nil
	}
	out, err := m.to.ebs.StartSnapshot(ctx, &ebs.StartSnapshotInput{
		VolumeSize: &gib, Description: aws.String("Copied from " + m.from.name + ", " + source), Timeout: aws.Int32(longestBreak),
	})
	if err != nil {
		return err
	}
	j.Target, j.GiB = aws.ToString(out.SnapshotId), gib
	return j.write()
}

// put a block there.
func (m *migration) put(ctx context.Context, index int64, block []byte, digest [sha256.Size]byte, j *journal) error {
	sum := base64.StdEncoding.EncodeToString(digest[:])
	_, err := m.to.ebs.PutSnapshotBlock(ctx, &ebs.PutSnapshotBlockInput{
		SnapshotId: &j.Target, BlockIndex: aws.Int32(int32(index)), BlockData: bytes.NewReader(block), DataLength: aws.Int32(peer.BlockSize),
		Checksum: &sum, ChecksumAlgorithm: types.ChecksumAlgorithmChecksumAlgorithmSha256,
	})
	if err != nil {
		return err
	}
	return j.note(index, digest)
}

// complete the snapshot there, which compares the digest of all digests.
func (m *migration) complete(ctx context.Context, j *journal) error {
	count, sum, err := j.sum()
	if err != nil {
		return err
	}
	_, err = m.to.ebs.CompleteSnapshot(ctx, &ebs.CompleteSnapshotInput{
		SnapshotId: &j.Target, ChangedBlocksCount: aws.Int32(int32(count)), Checksum: &sum,
		ChecksumAlgorithm: types.ChecksumAlgorithmChecksumAlgorithmSha256, ChecksumAggregationMethod: types.ChecksumAggregationMethodChecksumAggregationLinear,
	})
	if err != nil {
		return err
	}
	if err := m.await(ctx, j); err != nil {
		return err
	}
	j.Complete = true
	return j.write()
}

// await that the snapshot is completed: Amazon's takes a while.
func (m *migration) await(ctx context.Context, j *journal) error {
	tick := time.NewTicker(completeEvery)
	defer tick.Stop()
	for {
		status, message, err := m.status(ctx, j.Target)
		switch {
		case err != nil:
			return err
		case status == "completed":
			return nil
		case status != "pending":
			return fmt.Errorf("%s failed in %s (%s %s): try again, which begins anew", j.Target, m.to.name, status, message)
		}
		m.show.show("wait for "+j.Target+" to be completed", 0, 0)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// status of a snapshot there, "gone" for one that isn't.
func (m *migration) status(ctx context.Context, id string) (status, message string, err error) {
	reply, err := m.to.ec2.Call(ctx, "DescribeSnapshots", url.Values{"SnapshotId.1": {id}})
	var said *ServiceError
	if errors.As(err, &said) && strings.HasPrefix(said.Code, "InvalidSnapshot") {
		return "gone", "", nil
	}
	if err != nil {
		return "", "", err
	}
	for s := range reply.each("snapshotSet") {
		return s.get("status"), s.get("statusMessage"), nil
	}
	return "gone", "", nil
}
