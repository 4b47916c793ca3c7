package ebs

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"slices"
	"strconv"
	"time"

	"mallee/cloud"
	"mallee/snapshot"
	"mallee/state"
	"mallee/wire"
)

const (
	tokenTime = 7 * 24 * time.Hour

	leastResults, mostResults = 100, 10000
)

// listing is what the two lists have in common.
type listing struct {
	BlockSize  int64   `json:"BlockSize"`
	ExpiryTime float64 `json:"ExpiryTime"` // seconds since 1970
	NextToken  string  `json:"NextToken,omitempty"`
	VolumeSize int     `json:"VolumeSize"` // GiB
}

type listedBlock struct {
	BlockIndex int64  `json:"BlockIndex"`
	BlockToken string `json:"BlockToken"`
}

type changedBlock struct {
	BlockIndex  int64  `json:"BlockIndex"`
	FirstToken  string `json:"FirstBlockToken,omitempty"`
	SecondToken string `json:"SecondBlockToken,omitempty"`
}

// listBlocks that aren't all zero, in order.
func (c *call) listBlocks() error {
	s, err := c.readable(c.id)
	if err != nil {
		return err
	}
	out := struct {
		listing
		Blocks []listedBlock
	}{c.listing(s), []listedBlock{}}
	from, most, err := c.page(s.ID, "")
	if err != nil {
		return err
	}
	content, err := c.Contents.Read(c.r.Context(), *s.Content)
	if err != nil {
		return err
	}
	for b, err := range content.Blocks(c.r.Context(), from) {
		if err != nil {
			return err
		}
		if len(out.Blocks) == most {
			out.NextToken = c.pageToken(b.Index, s.ID, "")
			break
		}
		out.Blocks = append(out.Blocks, listedBlock{b.Index, c.blockToken(s.ID, b.Index)})
	}
	reply(c.w, http.StatusOK, out)
	return nil
}

func (c *call) listing(s *cloud.Snapshot) listing {
	return listing{BlockSize: snapshot.BlockSize, ExpiryTime: float64(c.Now().Add(tokenTime).Unix()), VolumeSize: s.SizeGiB}
}

// listChanged lists the blocks in which a snapshot differs from one before it of
// the same line; without one, all that it has.
func (c *call) listChanged() error {
	second, err := c.readable(c.id)
	if err != nil {
		return err
	}
	first, err := c.earlier(second)
	if err != nil {
		return err
	}
	from, most, err := c.page(second.ID, first.ID)
	if err != nil {
		return err
	}
	out := struct {
		listing
		ChangedBlocks []changedBlock
	}{c.listing(second), []changedBlock{}}
	var before cloud.Content
	if first.Content != nil {
		before = *first.Content
	}
	for change, err := range c.Contents.Diff(c.r.Context(), before, *second.Content, from) {
		if err != nil {
			return err
		}
		if len(out.ChangedBlocks) == most {
			out.NextToken = c.pageToken(change.Index, second.ID, first.ID)
			break
		}
		b := changedBlock{BlockIndex: change.Index}
		if change.First != (snapshot.Digest{}) {
			b.FirstToken = c.blockToken(first.ID, change.Index)
		}
		if change.Second != (snapshot.Digest{}) {
			b.SecondToken = c.blockToken(second.ID, change.Index)
		}
		out.ChangedBlocks = append(out.ChangedBlocks, b)
	}
	reply(c.w, http.StatusOK, out)
	return nil
}

// earlier is the snapshot to compare with, an empty one if none is named.
func (c *call) earlier(second *cloud.Snapshot) (*cloud.Snapshot, error) {
	id := c.r.URL.Query().Get("firstSnapshotId")
	if id == "" {
		return &cloud.Snapshot{}, nil
	}
	first, err := c.readable(id)
	if err != nil {
		return nil, err
	}
	if !c.related(first, second) {
		return nil, invalid("UNRELATED_SNAPSHOTS", "The snapshots %s and %s are not of one volume, nor is one the other's parent.", first.ID, second.ID)
	}
	return first, nil
}

// related says whether two snapshots are of one line.
func (c *call) related(first, second *cloud.Snapshot) bool {
	if first.Volume != "" && first.Volume == second.Volume || first.ID == second.ID {
		return true
	}
	view := c.Store.View()
	for s, n := second, 0; s.Parent != "" && n < 1000; n++ {
		if s.Parent == first.ID {
			return true
		}
		parent, _, ok := state.Snapshots.Get(view, s.Parent)
		if !ok {
			return false
		}
		s = parent
	}
	return false
}

// page says where the list begins, and how long it may be.
func (c *call) page(ids ...cloud.SnapshotID) (from int64, most int, err error) {
	q := c.r.URL.Query()
	most = mostResults
	if text := q.Get("maxResults"); text != "" {
		if most, err = strconv.Atoi(text); err != nil || most < leastResults || most > mostResults {
			return 0, 0, invalid("INVALID_PARAMETER_VALUE", "maxResults %s: expecting %d to %d.", wire.Shorten(text), leastResults, mostResults)
		}
	}
	if token := q.Get("pageToken"); token != "" {
		from, err = c.openPage(token, ids...)
		return from, most, err
	}
	if text := q.Get("startingBlockIndex"); text != "" {
		if from, err = strconv.ParseInt(text, 10, 64); err != nil || from < 0 {
			return 0, 0, invalid("INVALID_PARAMETER_VALUE", "startingBlockIndex %s: expecting a number from 0.", wire.Shorten(text))
		}
	}
	return from, most, nil
}

func (c *call) pageToken(next int64, ids ...cloud.SnapshotID) string {
	raw := binary.BigEndian.AppendUint64(nil, uint64(next))
	return base64.StdEncoding.EncodeToString(append(raw, c.mac("page", c.who.Account, ids, next)...))
}

func (c *call) openPage(token string, ids ...cloud.SnapshotID) (int64, error) {
	raw, err := base64.StdEncoding.DecodeString(token)
	if err == nil && len(raw) == 8+sha256.Size {
		next := int64(binary.BigEndian.Uint64(raw))
		if hmac.Equal(raw[8:], c.mac("page", c.who.Account, ids, next)) {
			return next, nil
		}
	}
	return 0, invalid("INVALID_PAGE_TOKEN", "The pageToken is not one that was given for this list.")
}

// blockToken lets the caller's account read one block of one snapshot, for a
// while.
func (c *call) blockToken(id cloud.SnapshotID, index int64) string {
	until := c.Now().Add(tokenTime).Unix()
	raw := binary.BigEndian.AppendUint64(nil, uint64(until))
	return base64.StdEncoding.EncodeToString(append(raw, c.mac("block", c.who.Account, id, index, until)...))
}

func (c *call) checkToken(token string, id cloud.SnapshotID, index int64) error {
	raw, err := base64.StdEncoding.DecodeString(token)
	if err != nil || len(raw) != 8+sha256.Size {
		return invalid("INVALID_BLOCK_TOKEN", "The blockToken is not one that was given for block %d of %s.", index, id)
	}
	until := int64(binary.BigEndian.Uint64(raw))
	if !hmac.Equal(raw[8:], c.mac("block", c.who.Account, id, index, until)) {
		return invalid("INVALID_BLOCK_TOKEN", "The blockToken is not one that was given for block %d of %s.", index, id)
	}
	if c.Now().Unix() > until {
		return invalid("INVALID_BLOCK_TOKEN", "The blockToken has expired; list the blocks again.")
	}
	return nil
}

// getBlock answers with a block's bytes and their digest.
func (c *call) getBlock() error {
	s, err := c.readable(c.id)
	if err != nil {
		return err
	}
	index, err := c.index(s)
	if err != nil {
		return err
	}
	if err := c.checkToken(c.r.URL.Query().Get("blockToken"), s.ID, index); err != nil {
		return err
	}
	content, err := c.Contents.Read(c.r.Context(), *s.Content)
	if err != nil {
		return err
	}
	block := make([]byte, snapshot.BlockSize)
	if err := content.ReadAt(c.r.Context(), block, index*snapshot.BlockSize); err != nil {
		return err
	}
	sum := sha256.Sum256(block)
	h := c.w.Header()
	h.Set("X-Amz-Data-Length", strconv.Itoa(len(block)))
	h.Set("X-Amz-Checksum", base64.StdEncoding.EncodeToString(sum[:]))
	h.Set("X-Amz-Checksum-Algorithm", "SHA256")
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Length", strconv.Itoa(len(block)))
	c.w.WriteHeader(http.StatusOK)
	c.w.Write(slices.Clip(block)) // a client that has gone away is no error
	return nil
}

// index of the block that the path names, which the snapshot's volume has.
func (c *call) index(s *cloud.Snapshot) (int64, error) {
	blocks := int64(s.SizeGiB) << 30 / snapshot.BlockSize
	index, err := strconv.ParseInt(c.rest, 10, 64)
	if err != nil || index < 0 || index >= blocks {
		return 0, invalid("INVALID_BLOCK", "BlockIndex %s: expecting 0 to %d.", wire.Shorten(c.rest), blocks-1)
	}
	return index, nil
}
