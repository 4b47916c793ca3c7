package fake

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"mallee/hypervisor"
)

// Outside is what lies behind the machines' disks and beyond the sockets that
// they are told of. The world itself knows only which blocks were written.
type Outside interface {
	// Write is a guest's write, which the world was asked to make (World.Write).
	Write(d hypervisor.Disk, offset int64, p []byte) error
	// Store has the disk's bytes, as they are now, go where c says: these blocks of
	// hypervisor.Granularity, ascending, or all that the disk holds where full is
	// set. An error is how the job will end.
	Store(d hypervisor.Disk, c hypervisor.Copy, blocks []int64, full bool) error
	// Fill copies all of the disk's source into it; an error is how the job ends.
	Fill(d hypervisor.Disk) error
	// Grow makes the disk as large as that, in bytes, if it isn't larger.
	Grow(d hypervisor.Disk, size int64) error
}

// Nowhere takes everything, and has nothing.
type Nowhere struct{}

func (Nowhere) Write(hypervisor.Disk, int64, []byte) error                  { return nil }
func (Nowhere) Store(hypervisor.Disk, hypervisor.Copy, []int64, bool) error { return nil }
func (Nowhere) Fill(hypervisor.Disk) error                                  { return nil }
func (Nowhere) Grow(hypervisor.Disk, int64) error                           { return nil }

// medium is what a disk's file remembers, whoever has it open.
type medium struct {
	marks  map[string]map[int64]bool // the blocks that were written since each
	filled bool                      // it stands on its own, though it began with a source
}

// job is a copy, or a filling. It is halfway when it is looked at for the first
// time, and over the second time.
type job struct {
	hypervisor.Job
	copy   hypervisor.Copy // empty for a filling
	disk   hypervisor.Disk
	result error
	held   bool
}

// Connect says what lies outside; Nowhere until then.
func (w *World) Connect(o Outside) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.outside = o
}

// Write has the guest of a machine (or nobody, in a keeper) write to a disk.
func (w *World) Write(dir, serial string, offset int64, p []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	d, err := w.at(dir).disk(serial)
	if err != nil {
		return fmt.Errorf("writing to %s: %w", dir, err)
	}
	for _, written := range w.medium(d).marks {
		for block := offset / hypervisor.Granularity; block*hypervisor.Granularity < offset+int64(len(p)); block++ {
			written[block] = true
		}
	}
	return w.outside.Write(d, offset, p)
}

// GiveBack has a guest that keeps its disks (Guest.Keeps) give one back that it was
// asked for.
func (w *World) GiveBack(dir, serial string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if m := w.at(dir); slices.Contains(m.asked, serial) {
		m.take(serial)
		w.poke()
	}
}

// Hold keeps a job from ending until Release, or until it is dismissed.
func (w *World) Hold(dir, id string)    { w.change(dir, id, func(j *job) { j.held = true }) }
func (w *World) Release(dir, id string) { w.change(dir, id, func(j *job) { j.held = false }) }

// Fail ends a job that still runs.
func (w *World) Fail(dir, id string, err error) {
	w.change(dir, id, func(j *job) { j.Ended, j.Err = true, err })
}

func (w *World) change(dir, id string, do func(*job)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, j := range w.at(dir).jobs {
		if j.ID == id && !j.Ended {
			do(j)
			w.poke()
		}
	}
}

// medium is that of a disk. mu is held.
func (w *World) medium(d hypervisor.Disk) *medium {
	m := w.media[d.Attachment.Path]
	if m == nil {
		m = &medium{marks: map[string]map[int64]bool{}}
		w.media[d.Attachment.Path] = m
	}
	return m
}

// end is what becomes of a machine's jobs, and of what its disks remember, when its
// process ends, in order or not. mu is held.
func (w *World) end(m *machine, orderly bool) {
	for _, d := range m.wish.Disks {
		if kept := w.media[d.Attachment.Path]; kept != nil && (!orderly || d.Attachment.Format == "raw") {
			clear(kept.marks)
		}
	}
	m.status, m.jobs, m.asked, m.leaving = hypervisor.Absent, nil, nil, nil
}

func (m *machine) disk(serial string) (hypervisor.Disk, error) {
	i := slices.IndexFunc(m.wish.Disks, func(d hypervisor.Disk) bool { return d.Serial == serial })
	if i < 0 || m.status == hypervisor.Absent {
		return hypervisor.Disk{}, fmt.Errorf("the machine has no disk %q", serial)
	}
	return m.wish.Disks[i], nil
}

// take removes a disk from the machine, as soon as it is not being copied. A
// filling ends.
func (m *machine) take(serial string) {
	m.asked = slices.DeleteFunc(m.asked, func(s string) bool { return s == serial })
	m.endFilling(serial)
	if slices.ContainsFunc(m.jobs, func(j *job) bool { return j.disk.Serial == serial && !j.Ended }) {
		m.leaving = append(m.leaving, serial)
		return
	}
	m.wish.Disks = slices.DeleteFunc(slices.Clone(m.wish.Disks), func(d hypervisor.Disk) bool { return d.Serial == serial })
}

// endFilling dismisses a filling that runs.
func (m *machine) endFilling(serial string) {
	m.jobs = slices.DeleteFunc(m.jobs, func(j *job) bool { return j.ID == hypervisor.FillID(serial) && !j.Ended })
}

// on does something with a machine in one of these states.
func (p *program) on(ctx context.Context, doing, dir string, states []hypervisor.Status, do func(*machine) error) error {
	p.world.mu.Lock()
	defer p.world.mu.Unlock()
	m := p.world.at(dir)
	err := context.Cause(ctx)
	if err == nil && !slices.Contains(states, m.status) {
		err = fmt.Errorf("it is %s", m.status)
	}
	if err == nil {
		err = do(m)
	}
	if err != nil {
		return fmt.Errorf("%s of the machine in %s: %w", doing, dir, err)
	}
	return nil
}

var (
	running = []hypervisor.Status{hypervisor.Running}
	living  = []hypervisor.Status{hypervisor.Running, hypervisor.Exited}
	any     = []hypervisor.Status{hypervisor.Running, hypervisor.Exited, hypervisor.Absent}
)

func (p *program) Disks(ctx context.Context, dir string) (serials []string, err error) {
	err = p.on(ctx, "listing the disks", dir, any, func(m *machine) error {
		if m.status == hypervisor.Absent {
			return nil
		}
		leaving := m.leaving
		m.leaving = nil
		for _, serial := range leaving {
			m.take(serial)
		}
		for _, d := range m.wish.Disks {
			serials = append(serials, d.Serial)
		}
		return nil
	})
	return serials, err
}

func (p *program) Plug(ctx context.Context, dir string, d hypervisor.Disk) error {
	return p.on(ctx, "plugging the disk "+d.Serial, dir, running, func(m *machine) error {
		if slices.Contains(m.leaving, d.Serial) {
			return errors.New("it is still being copied since it was unplugged")
		}
		if _, err := m.disk(d.Serial); err == nil {
			return nil
		}
		if err := p.world.free(d); err != nil {
			return err
		}
		m.wish.Disks = append(slices.Clone(m.wish.Disks), d)
		return nil
	})
}

var validSerial = regexp.MustCompile(`^[A-Za-z0-9-]{1,20}$`)

// free refuses a disk that no machine can have, or another one has. mu is held.
func (w *World) free(d hypervisor.Disk) error {
	if !validSerial.MatchString(d.Serial) {
		return fmt.Errorf("disk serial %q: want 1 to 20 of A-Z, a-z, 0-9 and -", d.Serial)
	}
	for _, m := range w.machines {
		for _, has := range m.wish.Disks {
			if m.status != hypervisor.Absent && has.Attachment.Path != "" && has.Attachment.Path == d.Attachment.Path {
				return fmt.Errorf("the file %s is open in the machine %s", d.Attachment.Path, m.wish.ID)
			}
		}
	}
	return nil
}

func (p *program) Unplug(ctx context.Context, dir, serial string, force bool) error {
	return p.on(ctx, "unplugging the disk "+serial, dir, any, func(m *machine) error {
		if _, err := m.disk(serial); err != nil || slices.Contains(m.leaving, serial) {
			return nil
		}
		keeper := m.wish.VCPUs == 0
		if force || keeper || m.status == hypervisor.Running && !m.guest.Keeps {
			m.take(serial)
			return nil
		}
		if !slices.Contains(m.asked, serial) {
			m.asked = append(m.asked, serial)
		}
		return nil
	})
}

func (p *program) Adjust(ctx context.Context, dir, serial string, size int64, l hypervisor.Limits) error {
	return p.on(ctx, "adjusting the disk "+serial, dir, running, func(m *machine) error {
		d, err := m.disk(serial)
		if err != nil {
			return err
		}
		if err := p.world.outside.Grow(d, size); err != nil {
			return err
		}
		m.endFilling(serial)
		m.wish.Disks = slices.Clone(m.wish.Disks)
		for i := range m.wish.Disks {
			if m.wish.Disks[i].Serial == serial {
				m.wish.Disks[i].Limits = l
			}
		}
		return nil
	})
}

func (p *program) Copy(ctx context.Context, dir string, copies []hypervisor.Copy) (full []bool, err error) {
	err = p.on(ctx, "copying disks", dir, living, func(m *machine) error {
		for i, c := range copies {
			if _, err := m.disk(c.Serial); err != nil {
				return err
			}
			if err := m.free(c, copies[:i]); err != nil {
				return err
			}
		}
		for _, c := range copies {
			full = append(full, p.world.copy(m, c))
		}
		return nil
	})
	return full, err
}

var validMark = regexp.MustCompile(`^[a-z0-9-]+$`)

// free refuses a copy whose mark another job has.
func (m *machine) free(c hypervisor.Copy, others []hypervisor.Copy) error {
	if !validMark.MatchString(c.Mark) || c.Mark == c.Since || strings.HasPrefix(c.Mark, hypervisor.FillID("")) {
		return fmt.Errorf("mark %q since %q: want another one, of a-z, 0-9 and -, that names no filling", c.Mark, c.Since)
	}
	if slices.ContainsFunc(m.jobs, func(j *job) bool { return j.ID == c.Mark }) ||
		slices.ContainsFunc(others, func(o hypervisor.Copy) bool { return o.Mark == c.Mark }) {
		return fmt.Errorf("there is a job %s already", c.Mark)
	}
	return nil
}

// copy begins one, and tells whether it is of the whole disk. mu is held.
func (w *World) copy(m *machine, c hypervisor.Copy) (full bool) {
	d, _ := m.disk(c.Serial) // it was there
	m.endFilling(c.Serial)
	medium := w.medium(d)
	written, known := medium.marks[c.Since]
	maps.DeleteFunc(medium.marks, func(mark string, _ map[int64]bool) bool { return mark != c.Since && !m.uses(d, mark) })
	medium.marks[c.Mark] = map[int64]bool{}
	blocks := slices.Sorted(maps.Keys(written))
	j := &job{
		Job:    hypervisor.Job{ID: c.Mark, Total: max(1, int64(len(blocks))) * hypervisor.Granularity},
		copy:   c,
		disk:   d,
		result: w.outside.Store(d, c, blocks, !known),
	}
	m.jobs = append(m.jobs, j)
	return !known
}

// uses tells whether a job of the disk has the mark, or counts from it.
func (m *machine) uses(d hypervisor.Disk, mark string) bool {
	return slices.ContainsFunc(m.jobs, func(j *job) bool {
		return j.disk.Serial == d.Serial && (j.copy.Mark == mark || j.copy.Since == mark)
	})
}

func (p *program) Fill(ctx context.Context, dir, serial string, _ int64) error {
	return p.on(ctx, "filling the disk "+serial, dir, living, func(m *machine) error {
		d, err := m.disk(serial)
		id := hypervisor.FillID(serial)
		running := slices.ContainsFunc(m.jobs, func(j *job) bool { return j.disk.Serial == serial && !j.Ended })
		if err != nil || running || d.Attachment.Source.Socket == "" || p.world.medium(d).filled {
			return err
		}
		m.jobs = slices.DeleteFunc(m.jobs, func(j *job) bool { return j.ID == id }) // an earlier one, ended
		m.jobs = append(m.jobs, &job{
			Job:  hypervisor.Job{ID: id, Total: max(hypervisor.Granularity, d.Attachment.Source.Size)},
			disk: d,
		})
		return nil
	})
}

func (p *program) Jobs(ctx context.Context, dir string) (jobs []hypervisor.Job, err error) {
	err = p.on(ctx, "listing the jobs", dir, any, func(m *machine) error {
		for _, j := range m.jobs {
			p.world.step(j)
			jobs = append(jobs, j.Job)
		}
		return nil
	})
	return jobs, err
}

// step goes on with a job. mu is held.
func (w *World) step(j *job) {
	switch {
	case j.Ended || j.held:
	case j.Done == 0:
		j.Done = j.Total / 2
	default:
		j.Ended, j.Err = true, j.result
		if j.copy == (hypervisor.Copy{}) {
			j.Err = w.outside.Fill(j.disk)
			w.medium(j.disk).filled = j.Err == nil
		}
		if j.Err == nil {
			j.Done = j.Total
		}
	}
}

func (p *program) Dismiss(ctx context.Context, dir, id string) error {
	return p.on(ctx, "dismissing the job "+id, dir, any, func(m *machine) error {
		i := slices.IndexFunc(m.jobs, func(j *job) bool { return j.ID == id })
		if i < 0 {
			return nil
		}
		j := m.jobs[i]
		m.jobs = slices.Delete(m.jobs, i, i+1)
		if j.copy == (hypervisor.Copy{}) {
			return nil
		}
		gone := j.copy.Mark
		if j.Ended && j.Err == nil {
			gone = j.copy.Since
		}
		delete(p.world.medium(j.disk).marks, gone)
		return nil
	})
}
