package ebs

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	"github.com/aws/aws-sdk-go-v2/service/ebs/types"

	"mallee/blob/mem"
	"mallee/cloud"
	"mallee/iam"
	"mallee/snapshot"
	"mallee/state"
)

const (
	anna cloud.AccountID = "111111111111"
	bert cloud.AccountID = "222222222222"
)

// desk is the API on a state and a store in memory, behind HTTP.
type desk struct {
	*testing.T
	*EBS
	url string
	now time.Time
}

func newDesk(t *testing.T) *desk {
	d := &desk{T: t, now: time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)}
	store, err := state.OpenMemory(t.Context(), state.NewMemory(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	contents, err := snapshot.Open(mem.New(), t.TempDir(), snapshot.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { contents.Close() })
	d.EBS = New(Options{
		Store: store, IAM: &iam.IAM{Options: iam.Options{Store: store}}, Contents: contents, Secret: []byte("secret"), Region: "mallee-1",
		Now: func() time.Time { return d.now }, Rand: rand.NewChaCha8([32]byte{1}), Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	server := httptest.NewServer(http.HandlerFunc(d.door))
	t.Cleanup(server.Close)
	d.url = server.URL
	return d
}

// door believes the account that the access key names.
func (d *desk) door(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		d.Error(err)
	}
	_, after, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
	account, _, _ := strings.Cut(after, "/")
	d.Handle(w, r, body, iam.Principal{Account: cloud.AccountID(account), User: iam.AdminUser}, "request-1")
}

func (d *desk) client(account cloud.AccountID) *ebs.Client {
	return ebs.New(ebs.Options{
		Region: "mallee-1", BaseEndpoint: &d.url, Credentials: credentials.NewStaticCredentialsProvider(string(account), "secret", ""),
		Retryer: aws.NopRetryer{},
	})
}

func block(fill byte) []byte { return bytes.Repeat([]byte{fill}, snapshot.BlockSize) }

func checksum(data []byte) *string {
	sum := sha256.Sum256(data)
	return aws.String(base64.StdEncoding.EncodeToString(sum[:]))
}

func (d *desk) start(gib int64, parent string) string {
	d.Helper()
	in := &ebs.StartSnapshotInput{VolumeSize: aws.Int64(gib), Description: aws.String("from elsewhere"), Tags: []types.Tag{{Key: aws.String("k"), Value: aws.String("v")}}}
	if parent != "" {
		in.ParentSnapshotId = &parent
	}
	out, err := d.client(anna).StartSnapshot(d.Context(), in)
	if err != nil {
		d.Fatal(err)
	}
	if out.Status != types.StatusPending || *out.BlockSize != snapshot.BlockSize || *out.VolumeSize != gib || *out.OwnerId != string(anna) {
		d.Fatalf("started %+v", out)
	}
	return *out.SnapshotId
}

func (d *desk) put(id string, index int32, data []byte) error {
	_, err := d.client(anna).PutSnapshotBlock(d.Context(), &ebs.PutSnapshotBlockInput{
		SnapshotId: &id, BlockIndex: &index, BlockData: bytes.NewReader(data), DataLength: aws.Int32(int32(len(data))),
		Checksum: checksum(data), ChecksumAlgorithm: types.ChecksumAlgorithmChecksumAlgorithmSha256,
	})
	return err
}

func (d *desk) complete(id string, blocks map[int32][]byte) error {
	all := sha256.New()
	var indices []int32
	for i := range blocks {
		indices = append(indices, i)
	}
	slices.Sort(indices)
	for _, i := range indices {
		sum := sha256.Sum256(blocks[i])
		all.Write(sum[:])
	}
	_, err := d.client(anna).CompleteSnapshot(d.Context(), &ebs.CompleteSnapshotInput{
		SnapshotId: &id, ChangedBlocksCount: aws.Int32(int32(len(blocks))), Checksum: aws.String(base64.StdEncoding.EncodeToString(all.Sum(nil))),
		ChecksumAlgorithm: types.ChecksumAlgorithmChecksumAlgorithmSha256, ChecksumAggregationMethod: types.ChecksumAggregationMethodChecksumAggregationLinear,
	})
	return err
}

// written makes a snapshot of the blocks.
func (d *desk) written(gib int64, parent string, blocks map[int32][]byte) string {
	d.Helper()
	id := d.start(gib, parent)
	for i, data := range blocks {
		if err := d.put(id, i, data); err != nil {
			d.Fatal(err)
		}
	}
	if err := d.complete(id, blocks); err != nil {
		d.Fatal(err)
	}
	return id
}

// read all blocks of a snapshot as account.
func (d *desk) read(account cloud.AccountID, id string) (map[int32][]byte, error) {
	got := map[int32][]byte{}
	list, err := d.client(account).ListSnapshotBlocks(d.Context(), &ebs.ListSnapshotBlocksInput{SnapshotId: &id})
	if err != nil {
		return nil, err
	}
	for _, b := range list.Blocks {
		out, err := d.client(account).GetSnapshotBlock(d.Context(), &ebs.GetSnapshotBlockInput{SnapshotId: &id, BlockIndex: b.BlockIndex, BlockToken: b.BlockToken})
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(out.BlockData)
		if err != nil {
			return nil, err
		}
		if *out.Checksum != *checksum(data) || *out.DataLength != snapshot.BlockSize {
			return nil, fmt.Errorf("block %d has the checksum %s", *b.BlockIndex, *out.Checksum)
		}
		got[*b.BlockIndex] = data
	}
	return got, nil
}
