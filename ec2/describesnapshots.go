package ec2

import (
	"iter"
	"slices"
	"strconv"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

func (c *call) progress(s *cloud.Snapshot) string {
	var seen cloud.SnapshotObservation
	if o, _, ok := state.SnapshotObservations.Get(c.read, s.ID); ok {
		seen = *o
	}
	return strconv.Itoa(s.Progress(seen)) + "%"
}

func (c *call) snapshotReply(s *cloud.Snapshot) snapshotReply {
	return snapshotReply{
		ID: string(s.ID), Volume: shownVolume(s), State: string(s.State()), Message: s.Failed.Message, StartedAt: wire.At(s.StartedAt), CompletedAt: wire.At(s.CompletedAt),
		Progress: c.progress(s), Owner: string(s.Account), OwnerAlias: c.alias(s.Account), SizeGiB: s.SizeGiB, Description: s.Description,
		Tags: c.tagSet(string(s.ID)), Encrypted: s.Encrypted, Tier: standardTier,
	}
}

const standardTier = "standard" // where EC2 keeps snapshots that aren't archived

// shownVolume of a snapshot; one that is of none says what EC2's copies say.
func shownVolume(s *cloud.Snapshot) string {
	if s.Volume == "" {
		return "vol-ffffffff"
	}
	return string(s.Volume)
}

type describeSnapshotsInput struct {
	common
	selection
	SnapshotID   []string `wire:"SnapshotId,max=1000"`
	Owner        []string `wire:"Owner,max=1000"`
	RestorableBy []string `wire:"RestorableBy,max=1000"`
}

type describeSnapshotsReply struct {
	Snapshots []snapshotReply `xml:"snapshotSet>item"`
	NextToken string          `xml:"nextToken,omitempty"`
}

var snapshotKind = kind[*cloud.Snapshot]{
	key:  func(s *cloud.Snapshot) string { return string(s.ID) },
	tags: func(c *call, s *cloud.Snapshot) map[string]string { return c.tagsOf(string(s.ID)) },
	fields: fields[*cloud.Snapshot]{
		"description":  text(func(s *cloud.Snapshot) string { return s.Description }),
		"encrypted":    text(func(s *cloud.Snapshot) string { return strconv.FormatBool(s.Encrypted) }),
		"owner-alias":  func(c *call, s *cloud.Snapshot) []string { return one(c.alias(s.Account)) },
		"owner-id":     text(func(s *cloud.Snapshot) string { return string(s.Account) }),
		"progress":     func(c *call, s *cloud.Snapshot) []string { return one(c.progress(s)) },
		"snapshot-id":  text(func(s *cloud.Snapshot) string { return string(s.ID) }),
		"start-time":   text(func(s *cloud.Snapshot) string { return timestamp(s.StartedAt) }),
		"status":       text(func(s *cloud.Snapshot) string { return string(s.State()) }),
		"storage-tier": fixed[*cloud.Snapshot](standardTier),
		"volume-id":    text(shownVolume),
		"volume-size":  text(func(s *cloud.Snapshot) string { return strconv.Itoa(s.SizeGiB) }),
	},
}

func describeSnapshots(c *call, in *describeSnapshotsInput) (*describeSnapshotsReply, error) {
	if err := in.noPages(in.SnapshotID, "SnapshotId"); err != nil {
		return nil, err
	}
	candidates, err := c.snapshotCandidates(in)
	if err != nil {
		return nil, err
	}
	p, err := snapshotKind.page(c, &in.selection, candidates)
	if err != nil {
		return nil, err
	}
	out := &describeSnapshotsReply{NextToken: p.next}
	for _, s := range p.items {
		out.Snapshots = append(out.Snapshots, c.snapshotReply(s))
	}
	return out, nil
}

// snapshotCandidates are the snapshots that the caller may use and that ids,
// owners and the right to use them choose.
func (c *call) snapshotCandidates(in *describeSnapshotsInput) (iter.Seq[*cloud.Snapshot], error) {
	ids, everybody := c.everybody(in.SnapshotID)
	list := firsts(state.Snapshots.All(c.read))
	switch {
	case len(ids) > 0:
		named, err := c.snapshots(ids)
		if err != nil {
			return nil, err
		}
		list = sorted(named, snapshotKind.key)
	case len(in.Owner) == 1 && in.Owner[0] == "self":
		list = firsts(state.SnapshotsByAccount.By(c.read, c.account()))
	}
	return func(yield func(*cloud.Snapshot) bool) {
		for s := range list {
			shown := everybody || len(ids) > 0 || s.UsableBy(c.account())
			if shown && c.snapshotOwnedByAny(s, in.Owner) && c.restorableByAny(s, in.RestorableBy) && !yield(s) {
				return
			}
		}
	}, nil
}

// snapshotOwnedByAny of self, account numbers and aliases; of none said, all.
func (c *call) snapshotOwnedByAny(s *cloud.Snapshot, owners []string) bool {
	return len(owners) == 0 || slices.ContainsFunc(owners, func(o string) bool {
		return o == "self" && s.Account == c.account() || o == string(s.Account) || o != "" && o == c.alias(s.Account)
	})
}

// restorableByAny of self, all (who is meant by a public snapshot) and account
// numbers.
func (c *call) restorableByAny(s *cloud.Snapshot, who []string) bool {
	return len(who) == 0 || slices.ContainsFunc(who, func(w string) bool {
		switch w {
		case "all":
			return s.Public
		case "self":
			return s.Account == c.account() || slices.Contains(s.SharedWith, c.account())
		}
		return s.Account == cloud.AccountID(w) || slices.Contains(s.SharedWith, cloud.AccountID(w))
	})
}
