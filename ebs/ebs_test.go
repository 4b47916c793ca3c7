package ebs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	"github.com/aws/aws-sdk-go-v2/service/ebs/types"
	"github.com/aws/smithy-go"

	"mallee/cloud"
	"mallee/snapshot"
	"mallee/state"
	"mallee/wire"
)

// TestRoundTrip: what was put is what is read, through a parent too, and zeroes
// take no room.
func TestRoundTrip(t *testing.T) {
	d := newDesk(t)
	first := map[int32][]byte{0: block(1), 7: block(2), 2047: block(3), 9: block(0)}
	one := d.written(1, "", first)
	got, err := d.read(anna, one)
	delete(first, 9)
	if err != nil || !equal(got, first) {
		t.Fatalf("read %d blocks, %v", len(got), err)
	}
	two := d.written(2, one, map[int32][]byte{7: block(9), 4000: block(4), 0: block(0)})
	got, err = d.read(anna, two)
	if want := map[int32][]byte{7: block(9), 2047: block(3), 4000: block(4)}; err != nil || !equal(got, want) {
		t.Errorf("of the child %d blocks were read, %v", len(got), err)
	}
	changed, err := d.client(anna).ListChangedBlocks(t.Context(), &ebs.ListChangedBlocksInput{FirstSnapshotId: &one, SecondSnapshotId: &two})
	if err != nil {
		t.Fatal(err)
	}
	said := ""
	for _, c := range changed.ChangedBlocks {
		said += fmt.Sprintf("%d:%v:%v ", *c.BlockIndex, c.FirstBlockToken != nil, c.SecondBlockToken != nil)
	}
	if said != "0:true:false 7:true:true 4000:false:true " {
		t.Errorf("changed: %s", said)
	}
	s, _, _ := state.Snapshots.Get(d.Store.View(), cloud.SnapshotID(two))
	if s.State() != cloud.SnapshotCompleted || s.Parent != cloud.SnapshotID(one) || s.SizeGiB != 2 {
		t.Errorf("%+v", s)
	}
	if names, _ := d.Contents.Journals(); len(names) != 0 {
		t.Errorf("journals are left: %q", names)
	}
}

func equal(a, b map[int32][]byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i, data := range a {
		if !bytes.Equal(data, b[i]) {
			return false
		}
	}
	return true
}

// TestPages of a list have all of it, once.
func TestPages(t *testing.T) {
	d := newDesk(t)
	blocks := map[int32][]byte{}
	for i := range int32(250) {
		blocks[i*3] = block(byte(i + 1))
	}
	id := d.written(1, "", blocks)
	var seen []int32
	in := &ebs.ListSnapshotBlocksInput{SnapshotId: &id, MaxResults: aws.Int32(100)}
	for pages := 1; ; pages++ {
		out, err := d.client(anna).ListSnapshotBlocks(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range out.Blocks {
			seen = append(seen, *b.BlockIndex)
		}
		if out.NextToken == nil {
			if pages != 3 {
				t.Errorf("%d pages", pages)
			}
			break
		}
		in.NextToken = out.NextToken
	}
	if len(seen) != 250 || !slices.IsSorted(seen) {
		t.Errorf("%d blocks in pages", len(seen))
	}
	other := d.written(1, "", map[int32][]byte{0: block(1)})
	in.SnapshotId = &other
	if code, reason := refusal(errOf(d.client(anna).ListSnapshotBlocks(t.Context(), in))); reason != "INVALID_PAGE_TOKEN" {
		t.Errorf("a page token of another list: %s %s", code, reason)
	}
}

func errOf[T any](_ T, err error) error { return err }

// refusal is an error's code, and its reason where the SDK knows one.
func refusal(err error) (code, reason string) {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return fmt.Sprint(err), ""
	}
	var v *types.ValidationException
	var n *types.ResourceNotFoundException
	switch {
	case errors.As(err, &v):
		return "ValidationException", string(v.Reason)
	case errors.As(err, &n):
		return "ResourceNotFoundException", string(n.Reason)
	}
	return api.ErrorCode(), ""
}

// TestRefusals in the API's words, each leaving what there was.
func TestRefusals(t *testing.T) {
	d := newDesk(t)
	ctx := t.Context()
	id := d.written(1, "", map[int32][]byte{3: block(1)})
	other := d.written(1, "", map[int32][]byte{3: block(1)})
	pending := d.start(1, "")
	a, b := d.client(anna), d.client(bert)
	list, err := a.ListSnapshotBlocks(ctx, &ebs.ListSnapshotBlocksInput{SnapshotId: &id})
	if err != nil {
		t.Fatal(err)
	}
	token := list.Blocks[0].BlockToken
	get := func(c *ebs.Client, id string, index int32, token *string) error {
		return errOf(c.GetSnapshotBlock(ctx, &ebs.GetSnapshotBlockInput{SnapshotId: &id, BlockIndex: &index, BlockToken: token}))
	}
	put := func(id string, index int32, data []byte, sum *string) error {
		return errOf(a.PutSnapshotBlock(ctx, &ebs.PutSnapshotBlockInput{SnapshotId: &id, BlockIndex: &index, BlockData: bytes.NewReader(data),
			DataLength: aws.Int32(int32(len(data))), Checksum: sum, ChecksumAlgorithm: types.ChecksumAlgorithmChecksumAlgorithmSha256}))
	}
	for _, test := range []struct {
		name         string
		err          error
		code, reason string
	}{
		{"another account's", errOf(b.ListSnapshotBlocks(ctx, &ebs.ListSnapshotBlocksInput{SnapshotId: &id})), "ResourceNotFoundException", "SNAPSHOT_NOT_FOUND"},
		{"another account's block", get(b, id, 3, token), "ResourceNotFoundException", "SNAPSHOT_NOT_FOUND"},
		{"another account's to write", errOf(b.CompleteSnapshot(ctx, &ebs.CompleteSnapshotInput{SnapshotId: &pending, ChangedBlocksCount: aws.Int32(0)})), "ResourceNotFoundException", "SNAPSHOT_NOT_FOUND"},
		{"an unknown one", errOf(a.ListSnapshotBlocks(ctx, &ebs.ListSnapshotBlocksInput{SnapshotId: aws.String("snap-99999999")})), "ResourceNotFoundException", "SNAPSHOT_NOT_FOUND"},
		{"no id", errOf(a.ListSnapshotBlocks(ctx, &ebs.ListSnapshotBlocksInput{SnapshotId: aws.String("vol-1")})), "ValidationException", "INVALID_SNAPSHOT_ID"},
		{"a pending one", errOf(a.ListSnapshotBlocks(ctx, &ebs.ListSnapshotBlocksInput{SnapshotId: &pending})), "ValidationException", "INVALID_SNAPSHOT_ID"},
		{"an unrelated one", errOf(a.ListChangedBlocks(ctx, &ebs.ListChangedBlocksInput{FirstSnapshotId: &other, SecondSnapshotId: &id})), "ValidationException", "UNRELATED_SNAPSHOTS"},
		{"a token of another block", get(a, id, 4, token), "ValidationException", "INVALID_BLOCK_TOKEN"},
		{"a token of another snapshot", get(a, other, 3, token), "ValidationException", "INVALID_BLOCK_TOKEN"},
		{"a made-up token", get(a, id, 3, aws.String("AAAA")), "ValidationException", "INVALID_BLOCK_TOKEN"},
		{"a block beyond the end", get(a, id, 2048, token), "ValidationException", "INVALID_BLOCK"},
		{"too few results", errOf(a.ListSnapshotBlocks(ctx, &ebs.ListSnapshotBlocksInput{SnapshotId: &id, MaxResults: aws.Int32(5)})), "ValidationException", "INVALID_PARAMETER_VALUE"},
		{"a completed one to write", put(id, 0, block(1), checksum(block(1))), "ValidationException", "INVALID_SNAPSHOT_ID"},
		{"a wrong checksum", put(pending, 0, block(1), checksum(block(2))), "ValidationException", "INVALID_BLOCK"},
		{"a short block", put(pending, 0, block(1)[:512], checksum(block(1)[:512])), "ValidationException", "INVALID_BLOCK"},
		{"an index beyond the volume", put(pending, 2048, block(1), checksum(block(1))), "ValidationException", "INVALID_BLOCK"},
		{"a volume of nothing", errOf(a.StartSnapshot(ctx, &ebs.StartSnapshotInput{VolumeSize: aws.Int64(0)})), "ValidationException", "INVALID_VOLUME_SIZE"},
		{"a volume too large", errOf(a.StartSnapshot(ctx, &ebs.StartSnapshotInput{VolumeSize: aws.Int64(16385)})), "ValidationException", "INVALID_VOLUME_SIZE"},
		{"a reserved tag", errOf(a.StartSnapshot(ctx, &ebs.StartSnapshotInput{VolumeSize: aws.Int64(1), Tags: []types.Tag{{Key: aws.String("aws:x")}}})), "ValidationException", "INVALID_TAG"},
		{"a parent of another account", errOf(b.StartSnapshot(ctx, &ebs.StartSnapshotInput{VolumeSize: aws.Int64(1), ParentSnapshotId: &id})), "ResourceNotFoundException", "SNAPSHOT_NOT_FOUND"},
		{"a wrong count", errOf(a.CompleteSnapshot(ctx, &ebs.CompleteSnapshotInput{SnapshotId: &pending, ChangedBlocksCount: aws.Int32(5)})), "ValidationException", "INVALID_PARAMETER_VALUE"},
		{"a wrong digest of digests", errOf(a.CompleteSnapshot(ctx, &ebs.CompleteSnapshotInput{SnapshotId: &pending, ChangedBlocksCount: aws.Int32(0), Checksum: checksum(block(1)),
			ChecksumAlgorithm: types.ChecksumAlgorithmChecksumAlgorithmSha256, ChecksumAggregationMethod: types.ChecksumAggregationMethodChecksumAggregationLinear})), "ValidationException", "INVALID_BLOCK"},
	} {
		if code, reason := refusal(test.err); code != test.code || reason != test.reason {
			t.Errorf("%s: %s %s (%v)", test.name, code, reason, test.err)
		}
	}
	d.now = d.now.Add(8 * 24 * time.Hour)
	if _, reason := refusal(get(a, id, 3, token)); reason != "INVALID_BLOCK_TOKEN" {
		t.Errorf("an expired token: %s", reason)
	}
	if err := d.complete(pending, nil); err != nil {
		t.Errorf("the refusals harmed the snapshot: %v", err)
	}
}

// TestClientToken: the same request again starts nothing more.
func TestClientToken(t *testing.T) {
	d := newDesk(t)
	in := &ebs.StartSnapshotInput{VolumeSize: aws.Int64(1), ClientToken: aws.String("once")}
	one, err := d.client(anna).StartSnapshot(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	two, err := d.client(anna).StartSnapshot(t.Context(), in)
	if err != nil || *one.SnapshotId != *two.SnapshotId {
		t.Errorf("%v, %v", two, err)
	}
	in.VolumeSize = aws.Int64(2)
	if code, _ := refusal(errOf(d.client(anna).StartSnapshot(t.Context(), in))); code != "ConflictException" {
		t.Errorf("another request with the token: %s", code)
	}
}

// TestGivenUp: a snapshot into which nothing is put any more fails, and one that
// was deleted leaves nothing.
func TestGivenUp(t *testing.T) {
	d := newDesk(t)
	idle, deleted, busy := d.start(1, ""), d.start(1, ""), d.start(1, "")
	for _, id := range []string{idle, deleted, busy} {
		if err := d.put(id, 0, block(1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Store.Update(t.Context(), func(tx *state.Tx) error {
		state.Snapshots.Delete(tx, cloud.SnapshotID(deleted))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	d.now = d.now.Add(59 * time.Minute)
	if err := d.put(busy, 1, block(2)); err != nil {
		t.Fatal(err)
	}
	d.now = d.now.Add(2 * time.Minute)
	if err := d.expire(context.Background()); err != nil {
		t.Fatal(err)
	}
	if s, _, _ := state.Snapshots.Get(d.Store.View(), cloud.SnapshotID(idle)); s.State() != cloud.SnapshotError {
		t.Errorf("the idle one is %s", s.State())
	}
	if _, reason := refusal(d.put(idle, 1, block(1))); reason != "INVALID_SNAPSHOT_ID" {
		t.Errorf("the idle one can be written: %s", reason)
	}
	if names, _ := d.Contents.Journals(); !slices.Equal(names, []string{"direct-" + busy}) {
		t.Errorf("journals: %q", names)
	}
}

// TestRestart: another program goes on with what was put.
func TestRestart(t *testing.T) {
	d := newDesk(t)
	id := d.start(1, "")
	if err := d.put(id, 5, block(5)); err != nil {
		t.Fatal(err)
	}
	d.closeWriters()
	d.EBS = New(d.Options)
	if err := d.put(id, 6, block(6)); err != nil {
		t.Fatal(err)
	}
	want := map[int32][]byte{5: block(5), 6: block(6)}
	if err := d.complete(id, want); err != nil {
		t.Fatal(err)
	}
	if got, err := d.read(anna, id); err != nil || !equal(got, want) {
		t.Errorf("%d blocks, %v", len(got), err)
	}
}

// TestManyAtOnce: an account writes so many snapshots, and others have theirs.
func TestManyAtOnce(t *testing.T) {
	d := newDesk(t)
	err := d.Store.Update(t.Context(), func(tx *state.Tx) error {
		for n := range maxPending - 1 {
			state.Snapshots.Put(tx, cloud.Snapshot{ID: cloud.SnapshotID(fmt.Sprintf("snap-%08x", n)), Account: anna, SizeGiB: 1, Written: true, StartedAt: d.now, Timeout: 60})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	last := d.start(1, "")
	one := &ebs.StartSnapshotInput{VolumeSize: aws.Int64(1)}
	if code, _ := refusal(errOf(d.client(anna).StartSnapshot(t.Context(), one))); code != "ServiceQuotaExceededException" {
		t.Errorf("one more: %s", code)
	}
	if _, err := d.client(bert).StartSnapshot(t.Context(), one); err != nil {
		t.Errorf("another account's: %v", err)
	}
	if err := d.complete(last, nil); err != nil {
		t.Fatal(err)
	}
	d.start(1, "")
}

// TestLastBlock of a disk that ends within it comes whole, with zeroes.
func TestLastBlock(t *testing.T) {
	d := newDesk(t)
	const size = snapshot.BlockSize + 512
	w, err := d.Contents.Write(t.Context(), "odd", size, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.WriteAt(t.Context(), bytes.Repeat([]byte{7}, 512), snapshot.BlockSize); err != nil {
		t.Fatal(err)
	}
	content, err := w.Commit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const id = "snap-0000abcd"
	err = d.Store.Update(t.Context(), func(tx *state.Tx) error {
		state.Snapshots.Put(tx, cloud.Snapshot{ID: id, Account: anna, SizeGiB: 1, Content: &content, CompletedAt: d.now})
		return nil
	})
	if err == nil {
		err = w.Remove()
	}
	if err != nil {
		t.Fatal(err)
	}
	want := append(bytes.Repeat([]byte{7}, 512), make([]byte, snapshot.BlockSize-512)...)
	if got, err := d.read(anna, id); err != nil || !equal(got, map[int32][]byte{1: want}) {
		t.Errorf("%d blocks, %v", len(got), err)
	}
}

// TestLateWrites come for a snapshot that was found pending and is so no more: no
// journal is opened for it again.
func TestLateWrites(t *testing.T) {
	d := newDesk(t)
	id := d.start(1, "")
	before, _, _ := state.Snapshots.Get(d.Store.View(), cloud.SnapshotID(id))
	if err := d.complete(id, nil); err != nil {
		t.Fatal(err)
	}
	c := &call{EBS: d.EBS, r: httptest.NewRequest("PUT", "/", nil)}
	if _, err := c.writerOf(before); err == nil {
		t.Error("it is written again")
	}
	pending := d.start(1, "")
	d.closeWriters()
	if _, reason := refusal(d.put(pending, 0, block(1))); reason != "INVALID_SNAPSHOT_ID" {
		t.Errorf("a write after the end: %s", reason)
	}
	if names, _ := d.Contents.Journals(); len(names) != 0 {
		t.Errorf("journals: %q", names)
	}
}

// TestEndWhileCompleting: the program ends while snapshots are completed, and
// neither waits for the other for ever.
func TestEndWhileCompleting(t *testing.T) {
	for range 8 {
		d := newDesk(t)
		var all sync.WaitGroup
		for n := range 4 {
			id := d.start(1, "")
			blocks := map[int32][]byte{0: block(byte(n + 1))}
			if err := d.put(id, 0, blocks[0]); err != nil {
				t.Fatal(err)
			}
			all.Go(func() { d.complete(id, blocks) }) // which may come too late
		}
		all.Go(d.closeWriters)
		over := make(chan struct{})
		go func() { all.Wait(); close(over) }()
		select {
		case <-over:
		case <-time.After(time.Minute):
			t.Fatal("completing and ending wait for each other")
		}
	}
}

// TestUnproven requests are refused in words that the SDKs know.
func TestUnproven(t *testing.T) {
	for _, test := range []struct {
		err    error
		status int
		kind   string
	}{
		{wire.Errorf("SignatureDoesNotMatch", "no"), 403, "InvalidSignatureException"},
		{wire.Errorf("MissingAuthenticationToken", "no"), 403, "MissingAuthenticationTokenException"},
		{wire.Errorf("AuthFailure", "no"), 403, "UnrecognizedClientException"},
		{wire.Errorf("RequestEntityTooLarge", "no"), 400, "ValidationException"},
		{wire.Errorf("Whatever", "no"), 403, "AccessDeniedException"},
		{errors.New("the disk with the secret name is gone"), 500, "InternalServerException"},
	} {
		w := httptest.NewRecorder()
		Refuse(w, "id-7", test.err)
		if w.Code != test.status || w.Header().Get("X-Amzn-Errortype") != test.kind || w.Header().Get(wire.RequestIDHeader) != "id-7" || strings.Contains(w.Body.String(), "secret") {
			t.Errorf("%v: %d %v %s", test.err, w.Code, w.Header(), w.Body)
		}
	}
}
