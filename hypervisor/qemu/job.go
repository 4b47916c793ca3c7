package qemu

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
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
// Copies stay when they have ended, until they are dismissed. A filling must
// not: QEMU (7.2) dies where its nodes are listed while one is there that has
// ended. That one has ended well an object filled-S tells, that it failed only the
// program to which QEMU said so.
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

const concluded = "concluded" // the status of a job that has ended

func (j job) ended() bool { return j.Status == concluded }

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

// jobs lists ours, after whatever has to be done for one to end.
func (m *machine) jobs(ctx context.Context) ([]job, error) {
	var all []job
	if err := m.order(ctx, "query-jobs", nil, &all); err != nil {
		return nil, err
	}
	ours := all[:0]
	for _, j := range all {
		if !j.parse() {
			continue
		}
		if j.Status == "pending" {
			if err := m.finishFilling(ctx, j); err != nil {
				return nil, fmt.Errorf("finishing the job %s: %w", j.ID, err)
			}
			continue
		}
		ours = append(ours, j)
	}
	ended, err := m.endedFillings(ctx)
	return append(ours, ended...), err
}

// endedFillings are those that nobody has dismissed yet.
func (m *machine) endedFillings(ctx context.Context) ([]job, error) {
	var objects []struct{ Name string }
	err := m.order(ctx, "qom-list", arguments{"path": "/objects"}, &objects)
	if refused := (*commandError)(nil); err != nil && !errors.As(err, &refused) { // a keeper without disks has no /objects
		return nil, err
	}
	var ended []job
	for _, o := range objects {
		if serial, ok := strings.CutPrefix(o.Name, filledPrefix); ok {
			ended = append(ended, job{ID: fillID(serial), serial: serial, Status: concluded})
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for serial, why := range m.unfilled {
		ended = append(ended, job{ID: fillID(serial), serial: serial, Status: concluded, Error: why})
	}
	return ended, nil
}

// jobEnded is called for what QEMU says of a job that has ended, which is all that is
// heard of a filling that failed.
func (m *machine) jobEnded(data json.RawMessage) {
	var end struct {
		Device string `json:"device"` // the job's id
		Error  string `json:"error"`
	}
	if err := json.Unmarshal(data, &end); err != nil || end.Error == "" {
		return
	}
	if j := (job{ID: end.Device}); j.parse() && j.mark == "" {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.unfilled == nil {
			m.unfilled = map[string]string{}
		}
		m.unfilled[j.serial] = end.Error
	}
}

// finishFilling lets a filling end whose bytes are all there. QEMU (7.2) then writes
// into the disk's header that it stands on its own, whether or not what says
// where the bytes are has reached the file: a crash would leave zeroes. So that
// has to go first. The header goes as well before anybody is told that it is over.
func (m *machine) finishFilling(ctx context.Context, j job) error {
	if err := m.flush(ctx, j.serial, sourcePrefix+j.serial); err != nil {
		return err
	}
	if err := m.order(ctx, "job-finalize", arguments{"id": j.ID}, nil); err != nil {
		return err
	}
	if err := m.untilGone(ctx, j.ID); err != nil {
		return err
	}
	if err := m.flush(ctx, j.serial, nil); err != nil {
		return err
	}
	return m.orders(ctx,
		step{"blockdev-del", arguments{"node-name": sourcePrefix + j.serial}},
		step{"object-add", arguments{"qom-type": "throttle-group", "id": filledPrefix + j.serial}})
}

func (m *machine) untilGone(ctx context.Context, id string) error {
	return until(ctx, func(ctx context.Context) (bool, error) {
		var all []job
		err := m.order(ctx, "query-jobs", nil, &all)
		return !slices.ContainsFunc(all, func(j job) bool { return j.ID == id }), err
	})
}

// flush writes what QEMU has of a disk's metadata in memory, which reopening it
// as it is does. Its file's node is named by its serial for that.
func (m *machine) flush(ctx context.Context, serial string, backing any) error {
	var nodes []node
	if err := m.order(ctx, "query-named-block-nodes", arguments{"flat": true}, &nodes); err != nil {
		return err
	}
	encrypted := slices.ContainsFunc(nodes, func(n node) bool { return n.Name == dataPrefix+serial && n.Encrypted })
	data := dataNode("qcow2", serial, encrypted)
	data["file"], data["backing"] = filePrefix+serial, backing
	return m.order(ctx, "blockdev-reopen", arguments{"options": []arguments{data}}, nil)
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
		return m.endFilling(ctx, j)
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

// endFilling cancels and forgets a filling. What has been filled is kept.
func (m *machine) endFilling(ctx context.Context, j job) error {
	if !j.ended() {
		err := m.order(ctx, "job-cancel", arguments{"id": j.ID}, nil)
		if refused := (*commandError)(nil); err != nil && !errors.As(err, &refused) { // it may just have ended
			return err
		}
		if err := m.untilGone(ctx, j.ID); err != nil {
			return fmt.Errorf("cancelling the job %s: %w", j.ID, err)
		}
	}
	m.mu.Lock()
	delete(m.unfilled, j.serial)
	m.mu.Unlock()
	err := m.order(ctx, "object-del", arguments{"id": filledPrefix + j.serial}, nil)
	if refused := (*commandError)(nil); errors.As(err, &refused) {
		return nil // there is none
	}
	return err
}

// conclude cancels a copy that has not ended, and waits until it has.
func (m *machine) conclude(ctx context.Context, j job) (job, error) {
	if j.ended() {
		return j, nil
	}
	var steps []step
	if !m.keeper { // the storage daemon (7.2) doesn't know yank
		// QEMU waits for what it has sent to a server, the guest with it, and that
		// may be for ever.
		hangUp := arguments{"instances": []arguments{{"type": "block-node", "node-name": j.sink()}}}
		steps = append(steps, step{"yank", hangUp})
	}
	err := m.attempt(ctx, append(steps, step{"job-cancel", arguments{"id": j.ID}})...)
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
		n, open := s.nodes[dataPrefix+serial]
		if !open {
			return errNoDisk
		}
		if !s.sourced(serial) {
			return nil
		}
		if n.Image.Specific.Data.Subclusters {
			return errors.New("its file has subclusters (extended_l2), and QEMU (7.2) aborts where it fills a cluster that is there in part")
		}
		if s.copying(serial) {
			return nil // QEMU (7.2) does not survive both at once
		}
		if j, there := s.job(fillID(serial)); there && !j.ended() {
			return nil
		} else if there {
			if err := m.endFilling(ctx, j); err != nil {
				return err
			}
		}
		return m.order(ctx, "block-stream", arguments{
			"job-id": fillID(serial), "device": dataPrefix + serial, "speed": bytesPerSecond, "auto-finalize": false,
		}, nil)
	})
	if err != nil {
		return fmt.Errorf("filling the disk %s of the machine in %s: %w", serial, dir, err)
	}
	return nil
}

// endFillings ends the disks' fillings, before something that QEMU (7.2)
// refuses or doesn't survive while a disk is being filled. What has been filled
// is kept.
func (m *machine) endFillings(ctx context.Context, s *storage, serials ...string) error {
	for _, serial := range serials {
		if j, there := s.job(fillID(serial)); there && !j.ended() {
			if err := m.endFilling(ctx, j); err != nil {
				return err
			}
		}
	}
	return nil
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
