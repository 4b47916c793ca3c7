package ebs

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"mallee/cloud"
	"mallee/snapshot"
	"mallee/state"
	"mallee/wire"
)

const (
	maxGiB         = 16 << 10
	defaultTimeout = 60 // minutes
	leastTimeout   = 10
	mostTimeout    = 4320
	maxTags        = 50

	// maxPending is how many snapshots an account may write at once: Amazon's quota.
	maxPending = 100
)

// journalPrefix tells our journals from those of others.
const journalPrefix = "direct-"

// writer of a snapshot, and when it was last used.
type writer struct {
	// mu is held for writing by what ends the writer, and for reading by what
	// writes a block.
	mu     sync.RWMutex     // taken before EBS.mu, never after
	blocks *snapshot.Writer // nil when it was closed

	used time.Time // guarded by EBS.mu
}

type startInput struct {
	VolumeSize       int
	ParentSnapshotID string `json:"ParentSnapshotId"`
	Tags             []struct{ Key, Value string }
	Description      string
	ClientToken      string
	Encrypted        bool
	KmsKeyArn        string
	Timeout          int
}

type startReply struct {
	BlockSize        int64               `json:"BlockSize"`
	Description      string              `json:"Description,omitempty"`
	OwnerID          string              `json:"OwnerId"`
	ParentSnapshotID string              `json:"ParentSnapshotId,omitempty"`
	SnapshotID       string              `json:"SnapshotId"`
	StartTime        float64             `json:"StartTime"` // seconds since 1970
	Status           string              `json:"Status"`
	Tags             []map[string]string `json:"Tags,omitempty"`
	VolumeSize       int                 `json:"VolumeSize"`
}

// clientAction is the name under which client tokens of StartSnapshot stand.
const clientAction = "ebs:StartSnapshot"

// start a snapshot that is to be written.
func (c *call) start() error {
	var in startInput
	if err := json.Unmarshal(c.body, &in); err != nil {
		return invalid("INVALID_PARAMETER_VALUE", "The request is not the JSON of a StartSnapshot.")
	}
	if err := in.check(); err != nil {
		return err
	}
	parent, err := c.parent(&in)
	if err != nil {
		return err
	}
	var made cloud.Snapshot
	err = c.Store.Update(c.r.Context(), func(tx *state.Tx) error {
		made, err = c.startIn(tx, &in, parent)
		return err
	})
	if err != nil {
		return err
	}
	reply(c.w, http.StatusCreated, c.startReply(&made))
	return nil
}

func (in *startInput) check() error {
	if in.Timeout == 0 {
		in.Timeout = defaultTimeout
	}
	switch {
	case in.VolumeSize < 1 || in.VolumeSize > maxGiB:
		return invalid("INVALID_VOLUME_SIZE", "VolumeSize %d: expecting 1 to %d GiB.", in.VolumeSize, maxGiB)
	case in.Timeout < leastTimeout || in.Timeout > mostTimeout:
		return invalid("INVALID_PARAMETER_VALUE", "Timeout %d: expecting %d to %d minutes.", in.Timeout, leastTimeout, mostTimeout)
	case len(in.Description) > 255 || len(in.ClientToken) > 255:
		return invalid("INVALID_PARAMETER_VALUE", "Description and ClientToken have at most 255 characters.")
	case in.Encrypted || in.KmsKeyArn != "":
		return invalid("INVALID_DEPENDENCY_REQUEST", "Encrypted snapshots can't be written by this cloud: make an encrypted volume of this one.")
	case len(in.Tags) > maxTags:
		return invalid("INVALID_TAG", "%d tags: at most %d are allowed.", len(in.Tags), maxTags)
	}
	for _, t := range in.Tags {
		if lower := strings.ToLower(t.Key); t.Key == "" || len(t.Key) > 127 || len(t.Value) > 255 || strings.HasPrefix(lower, "aws:") || strings.HasPrefix(lower, "euca:") {
			return invalid("INVALID_TAG", "The tag '%s' has no key, is too long, or its key is reserved.", wire.Shorten(t.Key))
		}
	}
	return nil
}

// parent whose blocks count where none is put.
func (c *call) parent(in *startInput) (*cloud.Snapshot, error) {
	if in.ParentSnapshotID == "" {
		return nil, nil
	}
	p, err := c.readable(in.ParentSnapshotID)
	if err != nil {
		return nil, err
	}
	switch {
	case p.Encrypted:
		return nil, invalid("INVALID_DEPENDENCY_REQUEST", "The parent %s is encrypted; such snapshots can't be written by this cloud.", p.ID)
	case p.SizeGiB > in.VolumeSize:
		return nil, invalid("INVALID_VOLUME_SIZE", "VolumeSize %d is less than the %d GiB of the parent %s.", in.VolumeSize, p.SizeGiB, p.ID)
	}
	return p, nil
}

func (c *call) startIn(tx *state.Tx, in *startInput, parent *cloud.Snapshot) (cloud.Snapshot, error) {
	digest := sha256.Sum256(c.body)
	token := state.ClientTokenKey(c.who.Account, clientAction, in.ClientToken)
	if before, _, ok := state.ClientTokens.Get(tx, token); in.ClientToken != "" && ok {
		s, _, there := state.Snapshots.Get(tx, cloud.SnapshotID(before.Made))
		if before.Digest != hex.EncodeToString(digest[:]) || !there {
			return cloud.Snapshot{}, &Error{http.StatusConflict, "ConflictException", "", "The ClientToken was used before, with other parameters."}
		}
		return *s, nil
	}
	if err := c.checkPending(tx); err != nil {
		return cloud.Snapshot{}, err
	}
	s, err := c.newSnapshot(tx, in, parent)
	if err != nil {
		return s, err
	}
	state.Snapshots.Put(tx, s)
	if len(in.Tags) > 0 {
		tags := map[string]string{}
		for _, t := range in.Tags {
			tags[t.Key] = t.Value
		}
		state.TagSets.Put(tx, cloud.TagSet{Account: s.Account, Resource: string(s.ID), Type: "snapshot", Tags: tags})
	}
	if in.ClientToken != "" {
		state.ClientTokens.Put(tx, cloud.ClientToken{
			Account: s.Account, Action: clientAction, Token: in.ClientToken, Digest: hex.EncodeToString(digest[:]), Made: string(s.ID), At: c.Now(),
		})
	}
	return s, nil
}

// checkPending bounds the journals that an account has open.
func (c *call) checkPending(tx *state.Tx) error {
	n := 0
	for s := range state.SnapshotsByAccount.By(tx, c.who.Account) {
		if s.Written && s.State() == cloud.SnapshotPending {
			n++
		}
	}
	if n >= maxPending {
		return &Error{http.StatusPaymentRequired, "ServiceQuotaExceededException", "DEPENDENCY_SERVICE_QUOTA_EXCEEDED",
			fmt.Sprintf("The account writes %d snapshots already, as many as it may at once: complete one, or delete one.", n)}
	}
	return nil
}

func (c *call) newSnapshot(tx *state.Tx, in *startInput, parent *cloud.Snapshot) (cloud.Snapshot, error) {
	for range 100 {
		id, err := cloud.NewID(c.Rand, cloud.PrefixSnapshot)
		if err != nil {
			return cloud.Snapshot{}, err
		}
		if _, _, taken := state.Snapshots.Get(tx, cloud.SnapshotID(id)); taken {
			continue
		}
		s := cloud.Snapshot{
			ID: cloud.SnapshotID(id), Account: c.who.Account, SizeGiB: in.VolumeSize, StartedAt: c.Now(), Description: in.Description,
			Written: true, Timeout: in.Timeout,
		}
		if parent != nil {
			s.Parent, s.Base = parent.ID, parent.Content
		}
		return s, nil
	}
	return cloud.Snapshot{}, errors.New("a hundred snapshot ids drawn, all of them taken")
}

func (c *call) startReply(s *cloud.Snapshot) startReply {
	out := startReply{
		BlockSize: snapshot.BlockSize, Description: s.Description, OwnerID: string(s.Account), ParentSnapshotID: string(s.Parent),
		SnapshotID: string(s.ID), StartTime: float64(s.StartedAt.Unix()), Status: string(s.State()), VolumeSize: s.SizeGiB,
	}
	if set, _, ok := state.TagSets.Get(c.Store.View(), string(s.ID)); ok {
		for k, v := range set.Tags {
			out.Tags = append(out.Tags, map[string]string{"Key": k, "Value": v})
		}
	}
	return out
}

// pending finds a snapshot of the caller's that is being written.
func (c *call) pending(id string) (*cloud.Snapshot, error) {
	s, err := c.find(id)
	if err != nil {
		return nil, err
	}
	if s.Account != c.who.Account && !c.who.System {
		return nil, notFound(id)
	}
	if !s.Written || s.State() != cloud.SnapshotPending {
		return nil, invalid("INVALID_SNAPSHOT_ID", "The snapshot %s is %s, and can't be written.", s.ID, s.State())
	}
	return s, nil
}

// putBlock stores a block; put again it replaces the one before.
func (c *call) putBlock() error {
	s, err := c.pending(c.id)
	if err != nil {
		return err
	}
	index, err := c.index(s)
	if err != nil {
		return err
	}
	sum, err := c.checkBlock()
	if err != nil {
		return err
	}
	err = c.write(s, func(w *snapshot.Writer) error {
		if err := w.WriteAt(c.r.Context(), c.body, index*snapshot.BlockSize); err != nil {
			return err
		}
		return w.Flush(c.r.Context())
	})
	if err != nil {
		return err
	}
	c.w.Header().Set("X-Amz-Checksum", sum)
	c.w.Header().Set("X-Amz-Checksum-Algorithm", "SHA256")
	reply(c.w, http.StatusCreated, struct{}{})
	return nil
}

// checkBlock holds the body against what the request says of it.
func (c *call) checkBlock() (sum string, err error) {
	h := c.r.Header
	digest := sha256.Sum256(c.body)
	sum = base64.StdEncoding.EncodeToString(digest[:])
	switch {
	case h.Get("X-Amz-Checksum-Algorithm") != "SHA256":
		return "", invalid("INVALID_PARAMETER_VALUE", "The checksum's algorithm has to be SHA256.")
	case h.Get("X-Amz-Data-Length") != strconv.Itoa(snapshot.BlockSize) || len(c.body) != snapshot.BlockSize:
		return "", invalid("INVALID_BLOCK", "DataLength %s with %d bytes: a block has %d.", wire.Shorten(h.Get("X-Amz-Data-Length")), len(c.body), snapshot.BlockSize)
	case h.Get("X-Amz-Checksum") != sum:
		return "", invalid("INVALID_BLOCK", "The block's checksum is %s, and the request says %s.", sum, wire.Shorten(h.Get("X-Amz-Checksum")))
	}
	if text := h.Get("X-Amz-Progress"); text != "" {
		if n, err := strconv.Atoi(text); err != nil || n < 0 || n > 100 {
			return "", invalid("INVALID_PARAMETER_VALUE", "Progress %s: expecting 0 to 100.", wire.Shorten(text))
		}
	}
	return sum, nil
}

// write with the snapshot's writer, while nothing ends it.
func (c *call) write(s *cloud.Snapshot, f func(*snapshot.Writer) error) error {
	w, err := c.writerOf(s)
	if err != nil {
		return err
	}
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.blocks == nil {
		return over(s)
	}
	return f(w.blocks)
}

// over is what to say of a snapshot that has stopped being written meanwhile.
func over(s *cloud.Snapshot) error {
	return invalid("INVALID_SNAPSHOT_ID", "The snapshot %s is being completed, or was given up.", s.ID)
}

// writerOf a pending snapshot, opened where it isn't open.
func (c *call) writerOf(s *cloud.Snapshot) (*writer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.writers[s.ID]
	if w == nil {
		if now, _, ok := state.Snapshots.Get(c.Store.View(), s.ID); c.ended || !ok || now.State() != cloud.SnapshotPending {
			return nil, over(s) // it was when it was found
		}
		blocks, err := c.Contents.Write(context.WithoutCancel(c.r.Context()), journalPrefix+string(s.ID), int64(s.SizeGiB)<<30, s.Base)
		if err != nil {
			return nil, err
		}
		w = &writer{blocks: blocks}
		c.writers[s.ID] = w
	}
	w.used = c.Now()
	return w, nil
}

// complete makes a snapshot of what was put, if that is what the client thinks it
// put.
func (c *call) complete() error {
	s, err := c.pending(c.id)
	if err != nil {
		return err
	}
	w, err := c.writerOf(s)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.blocks == nil {
		return over(s)
	}
	if err := c.checkWhole(w.blocks); err != nil {
		return err
	}
	if err := c.completeAs(s, w); err != nil {
		return err
	}
	reply(c.w, http.StatusAccepted, map[string]string{"Status": string(cloud.SnapshotCompleted)})
	return nil
}

func (c *call) completeAs(s *cloud.Snapshot, w *writer) error {
	content, err := w.blocks.Commit(c.r.Context())
	if err != nil {
		return err
	}
	err = c.Store.Update(c.r.Context(), func(tx *state.Tx) error {
		now, _, ok := state.Snapshots.Get(tx, s.ID)
		if !ok || now.State() != cloud.SnapshotPending {
			return notFound(string(s.ID))
		}
		state.CompleteSnapshot(tx, *now, content, c.Now())
		return nil
	})
	if err != nil {
		return err
	}
	if err := c.end(s.ID, w); err != nil {
		c.Log.Warn("the journal of a completed snapshot stays until the next start", "snapshot", s.ID, "err", err)
	}
	return nil
}

// checkWhole holds what was put against the count and the digest of digests that
// the client gives.
func (c *call) checkWhole(w *snapshot.Writer) error {
	h := c.r.Header
	count, err := strconv.ParseInt(h.Get("X-Amz-Changedblockscount"), 10, 64)
	if err != nil {
		return invalid("INVALID_PARAMETER_VALUE", "ChangedBlocksCount %s: expecting a number.", wire.Shorten(h.Get("X-Amz-Changedblockscount")))
	}
	put := w.Done() / snapshot.BlockSize
	if count != put {
		return invalid("INVALID_PARAMETER_VALUE", "ChangedBlocksCount %d: %d blocks were put.", count, put)
	}
	want := h.Get("X-Amz-Checksum")
	if want == "" {
		return nil
	}
	if a, m := h.Get("X-Amz-Checksum-Algorithm"), h.Get("X-Amz-Checksum-Aggregation-Method"); a != "SHA256" || m != "LINEAR" {
		return invalid("INVALID_PARAMETER_VALUE", "The checksum's algorithm has to be SHA256, and its aggregation LINEAR.")
	}
	all := sha256.New()
	for b, err := range w.Written(c.r.Context()) {
		if err != nil {
			return err
		}
		all.Write(b.Digest[:])
	}
	if got := base64.StdEncoding.EncodeToString(all.Sum(nil)); got != want {
		return invalid("INVALID_BLOCK", "The aggregated checksum is %s, and the request says %s.", got, wire.Shorten(want))
	}
	return nil
}

// end a writer whose snapshot's record says what became of it. Its mu is held.
func (s *EBS) end(id cloud.SnapshotID, w *writer) error {
	s.mu.Lock()
	delete(s.writers, id)
	s.mu.Unlock()
	blocks := w.blocks
	w.blocks = nil
	return blocks.Remove()
}

// expire fails the snapshots into which nothing was put for too long, and ends
// the writers, and removes the journals, of those that aren't pending any more.
func (s *EBS) expire(ctx context.Context) error {
	var errs []error
	for one := range state.Snapshots.All(s.Store.View()) {
		if one.Written && one.State() == cloud.SnapshotPending && s.idle(one) > time.Duration(one.Timeout)*time.Minute {
			errs = append(errs, s.giveUp(ctx, one))
		}
	}
	return errors.Join(append(errs, s.clear())...)
}

// idle is for how long nothing was put into the snapshot. After a restart of the
// program it counts anew.
func (s *EBS) idle(one *cloud.Snapshot) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.writers[one.ID]
	if w == nil {
		return min(s.Now().Sub(one.StartedAt), s.Now().Sub(s.since))
	}
	return s.Now().Sub(w.used)
}

func (s *EBS) giveUp(ctx context.Context, one *cloud.Snapshot) error {
	why := cloud.Reason{Code: "Client.WriteRequestTimeout", Message: fmt.Sprintf("No block was put for %d minutes", one.Timeout)}
	return s.Store.Update(ctx, func(tx *state.Tx) error {
		if now, _, ok := state.Snapshots.Get(tx, one.ID); ok && now.State() == cloud.SnapshotPending {
			state.FailSnapshot(tx, *now, why)
		}
		return nil
	})
}

// clear what is left of snapshots that aren't being written any more.
func (s *EBS) clear() error {
	names, err := s.Contents.Journals()
	errs := []error{err}
	for _, name := range names {
		id, ours := strings.CutPrefix(name, journalPrefix)
		if !ours {
			continue
		}
		if one, _, ok := state.Snapshots.Get(s.Store.View(), cloud.SnapshotID(id)); !ok || one.State() != cloud.SnapshotPending {
			errs = append(errs, s.clearOne(cloud.SnapshotID(id)))
		}
	}
	return errors.Join(errs...)
}

func (s *EBS) clearOne(id cloud.SnapshotID) error {
	s.mu.Lock()
	w := s.writers[id]
	s.mu.Unlock()
	if w == nil {
		return s.Contents.RemoveJournal(journalPrefix + string(id))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.blocks == nil {
		return nil
	}
	return s.end(id, w)
}

// closeWriters at the end of the program; their journals stay. Who completes a
// snapshot holds its writer's mu and then takes ours, so we don't hold both.
func (s *EBS) closeWriters() {
	s.mu.Lock()
	open := s.writers
	s.writers, s.ended = map[cloud.SnapshotID]*writer{}, true
	s.mu.Unlock()
	for id, w := range open {
		w.mu.Lock()
		if w.blocks != nil {
			if err := w.blocks.Close(); err != nil {
				s.Log.Warn("a snapshot's journal was not closed well", "snapshot", id, "err", err)
			}
			w.blocks = nil
		}
		w.mu.Unlock()
	}
}
