package qemu

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"mallee/hypervisor"
)

// job is a block job of QEMU's, whose id says all about it:
//
//	copy.MARK.SERIAL.SINCE
//	fill.SERIAL
//
// Jobs stay when they have ended, until they are dismissed.
type job struct {
	ID     string `json:"id"`
	Status string `json:"status"`
	Done   int64  `json:"current-progress"`
	Total  int64  `json:"total-progress"`
	Error  string `json:"error"`

	mark, serial, since string // mark is empty for a filling
}

func copyID(c hypervisor.Copy) string {
	return "copy." + c.Mark + "." + c.Serial + "." + c.Since
}

func fillID(serial string) string { return "fill." + serial }

// parse says of what disk a job is, if it is one of ours.
func (j *job) parse() (ours bool) {
	parts := strings.Split(j.ID, ".")
	switch {
	case len(parts) == 4 && parts[0] == "copy":
		j.mark, j.serial, j.since = parts[1], parts[2], parts[3]
	case len(parts) == 2 && parts[0] == "fill":
		j.serial = parts[1]
	default:
		return false
	}
	return true
}

func (j job) ended() bool { return j.Status == "concluded" }

// sink is the name of the node to which a job copies.
func (j job) sink() string {
	sum := sha256.Sum256([]byte(j.ID))
	return "sink-" + hex.EncodeToString(sum[:10])
}

// seen is the job as a caller knows it.
func (j job) seen() hypervisor.Job {
	id := j.mark
	if id == "" {
		id = hypervisor.FillID(j.serial)
	}
	seen := hypervisor.Job{ID: id, Done: j.Done, Total: j.Total, Ended: j.ended()}
	if seen.Ended && j.Error != "" {
		seen.Err = fmt.Errorf("QEMU's job %s: %s", j.ID, j.Error)
	}
	return seen
}

// jobs lists ours.
func (m *machine) jobs(ctx context.Context) ([]job, error) {
	var all []job
	if err := m.order(ctx, "query-jobs", nil, &all); err != nil {
		return nil, err
	}
	ours := all[:0]
	for _, j := range all {
		if j.parse() {
			ours = append(ours, j)
		}
	}
	return ours, nil
}

// Jobs lists the jobs. See hypervisor.Storage.
func (h *Hypervisor) Jobs(ctx context.Context, dir string) ([]hypervisor.Job, error) {
	m, err := h.await(ctx, dir)
	var jobs []job
	if err == nil {
		jobs, err = m.jobs(ctx)
	}
	if errors.Is(err, errAbsent) || err != nil && m != nil && m.process.dead() {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing the jobs of the machine in %s: %w", dir, err)
	}
	seen := make([]hypervisor.Job, len(jobs))
	for i, j := range jobs {
		seen[i] = j.seen()
	}
	return seen, nil
}

// Dismiss ends and forgets a job. See hypervisor.Storage.
func (h *Hypervisor) Dismiss(ctx context.Context, dir, id string) error {
	err := h.onDisks(ctx, dir, func(m *machine, s *storage) error {
		for _, j := range s.jobs {
			if j.seen().ID == id {
				return m.dismiss(ctx, j)
			}
		}
		return nil
	})
	if err != nil && !errors.Is(err, errAbsent) {
		return fmt.Errorf("dismissing the job %s of the machine in %s: %w", id, dir, err)
	}
	return nil
}

// dismiss drops the job last of all, so that who comes after us can do so again.
func (m *machine) dismiss(ctx context.Context, j job) error {
	if j.mark == "" {
		return m.endJob(ctx, j)
	}
	j, err := m.conclude(ctx, j)
	if err != nil {
		return err
	}
	forget := j.mark
	if j.Error == "" {
		forget = j.since
	}
	s, err := m.storage(ctx)
	if err != nil {
		return err
	}
	if _, there := s.nodes[dataPrefix+j.serial].mark(forget); there {
		if err := m.order(ctx, "block-dirty-bitmap-remove", arguments{"node": dataPrefix + j.serial, "name": forget}, nil); err != nil {
			return err
		}
	}
	if _, there := s.nodes[j.sink()]; there {
		if err := m.order(ctx, "blockdev-del", arguments{"node-name": j.sink()}, nil); err != nil {
			return err
		}
	}
	return m.order(ctx, "job-dismiss", arguments{"id": j.ID}, nil)
}

// endJob ends a job and forgets it, and nothing else.
func (m *machine) endJob(ctx context.Context, j job) error {
	if _, err := m.conclude(ctx, j); err != nil {
		return err
	}
	return m.order(ctx, "job-dismiss", arguments{"id": j.ID}, nil)
}

// conclude cancels a job that has not ended, and waits until it has.
func (m *machine) conclude(ctx context.Context, j job) (job, error) {
	if j.ended() {
		return j, nil
	}
	err := m.order(ctx, "job-cancel", arguments{"id": j.ID}, nil)
	if refused := (*commandError)(nil); err != nil && !errors.As(err, &refused) { // it may just have ended
		return j, err
	}
	err = until(ctx, func(ctx context.Context) (bool, error) {
		jobs, err := m.jobs(ctx)
		i := slices.IndexFunc(jobs, func(now job) bool { return now.ID == j.ID })
		if err == nil && i < 0 {
			err = errors.New("the job is gone")
		}
		if err == nil {
			j = jobs[i]
		}
		return j.ended(), err
	})
	if err != nil {
		err = fmt.Errorf("cancelling the job %s: %w", j.ID, err)
	}
	return j, err
}

// Fill begins to fill a disk. See hypervisor.Storage.
func (h *Hypervisor) Fill(ctx context.Context, dir, serial string, bytesPerSecond int64) error {
	err := h.onDisks(ctx, dir, func(m *machine, s *storage) error {
		if _, open := s.nodes[dataPrefix+serial]; !open {
			return errNoDisk
		}
		if _, stands := s.nodes[sourcePrefix+serial]; !stands {
			return nil
		}
		if j, there := s.job(fillID(serial)); there && !j.ended() {
			return nil
		} else if there {
			if err := m.endJob(ctx, j); err != nil {
				return err
			}
		}
		return m.stream(ctx, serial, bytesPerSecond)
	})
	if err != nil {
		return fmt.Errorf("filling the disk %s of the machine in %s: %w", serial, dir, err)
	}
	return nil
}

func (m *machine) stream(ctx context.Context, serial string, bytesPerSecond int64) error {
	return m.order(ctx, "block-stream", arguments{
		"job-id": fillID(serial), "device": dataPrefix + serial, "speed": bytesPerSecond, "auto-dismiss": false,
	}, nil)
}

// unfilling does something that QEMU (7.2) refuses while a disk is being
// filled. What has been filled is kept, and where we die in between the next
// Fill goes on.
func (m *machine) unfilling(ctx context.Context, s *storage, serials []string, do func() error) error {
	speeds, err := m.pauseFilling(ctx, s, serials)
	if err == nil {
		err = do()
	}
	for serial, speed := range speeds {
		if again := m.stream(context.WithoutCancel(ctx), serial, speed); again != nil {
			m.log.WarnContext(ctx, "a disk is not filled any further until the next Fill", "dir", m.dir, "serial", serial, "err", again)
		}
	}
	return err
}

// pauseFilling ends the disks' fillings and tells the speed of each.
func (m *machine) pauseFilling(ctx context.Context, s *storage, serials []string) (map[string]int64, error) {
	speeds := map[string]int64{}
	var all []struct {
		Device string `json:"device"` // the job's id
		Speed  int64  `json:"speed"`
	}
	for _, serial := range serials {
		j, there := s.job(fillID(serial))
		if !there || j.ended() {
			continue
		}
		if all == nil {
			if err := m.order(ctx, "query-block-jobs", nil, &all); err != nil {
				return speeds, err
			}
		}
		j, err := m.conclude(ctx, j)
		if err != nil {
			return speeds, err
		}
		if j.Error == "" {
			continue // it has ended well meanwhile
		}
		if err := m.order(ctx, "job-dismiss", arguments{"id": j.ID}, nil); err != nil {
			return speeds, err
		}
		for _, b := range all {
			if b.Device == j.ID {
				speeds[serial] = b.Speed
			}
		}
	}
	return speeds, nil
}

var validMark = regexp.MustCompile(`^[a-z0-9-]+$`)

// checkCopies refuses what no job can be named by.
func checkCopies(copies []hypervisor.Copy) error {
	seen := map[string]bool{}
	for _, c := range copies {
		switch {
		case !validMark.MatchString(c.Mark) || strings.HasPrefix(c.Mark, hypervisor.FillID("")):
			return fmt.Errorf("mark %q: want a-z, 0-9 and -, and no filling's id", c.Mark)
		case c.Since != "" && !validMark.MatchString(c.Since) || c.Since == c.Mark:
			return fmt.Errorf("mark %s since %q: want another one, of a-z, 0-9 and -", c.Mark, c.Since)
		case seen[c.Mark]:
			return fmt.Errorf("two copies with the mark %s", c.Mark)
		}
		seen[c.Mark] = true
	}
	return nil
}
