package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"mallee/cloud"
	"mallee/hypervisor"
)

// errWaiting tells that a machine can't be started yet, and that nothing is wrong:
// a volume of its is still in another hand, which wakes it.
var errWaiting = errors.New("a volume is not free yet")

// askEvery is how often a guest is asked to give a volume back, or to shut down: one that boots
// doesn't hear it.
const askEvery = 10 * time.Second

// adjustment is what can be changed of a disk that is open.
type adjustment struct {
	size   int64
	limits hypervisor.Limits
}

func adjustmentOf(w cloud.Volume) adjustment { return adjustment{bytesOf(w), limitsOf(w)} }

// wanted are the volumes that the instance's machine should have, in the order of
// their devices.
func (n *Node) wanted(id cloud.InstanceID) (list []cloud.Volume) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, w := range n.keeps {
		if n.wantedBy(w) == id {
			list = append(list, w)
		}
	}
	slices.SortFunc(list, func(a, b cloud.Volume) int {
		return cmp.Or(compareDevices(a.Attachment.Device, b.Attachment.Device), cmp.Compare(a.ID, b.ID))
	})
	return list
}

// compareDevices: sdb before sdc, whatever the names begin with.
func compareDevices(a, b string) int { return cmp.Compare(cloud.Slot(a), cloud.Slot(b)) }

// claim volumes for a machine that is about to open them; all or none. It is
// durable when it returns.
func (n *Node) claim(m *machine, list ...cloud.Volume) error {
	n.mu.Lock()
	for _, w := range list {
		if v := n.volumes[w.ID]; v.kept || v.gone || v.holder != "" && v.holder != m.id {
			// A pass that is being made wakes the machine at its end. Asked for another, it would
			// have the volume in hand again by then, for ever where passes are slow.
			if !v.busy {
				n.wakeLocked(&v.turn)
			}
			n.mu.Unlock()
			return fmt.Errorf("%w: %s", errWaiting, w.ID)
		}
	}
	for _, w := range list {
		n.volumes[w.ID].holder = m.id
		if !slices.Contains(m.memo.Volumes, w.ID) {
			m.memo.Volumes = append(m.memo.Volumes, w.ID)
		}
	}
	n.mu.Unlock()
	return n.remember(m.memo)
}

// release volumes that the machine is known to have closed.
func (n *Node) release(m *machine, list ...cloud.VolumeID) error {
	if len(list) == 0 {
		return nil
	}
	m.memo.Volumes = slices.DeleteFunc(slices.Clone(m.memo.Volumes), func(id cloud.VolumeID) bool { return slices.Contains(list, id) })
	if err := n.remember(m.memo); err != nil {
		m.memo.Volumes = append(m.memo.Volumes, list...)
		return err
	}
	n.say(func() {
		for _, id := range list {
			delete(m.adjusted, id)
			delete(m.asked, id)
			n.free(id)
		}
	})
	return nil
}

// free a volume of its machine. mu is held.
func (n *Node) free(id cloud.VolumeID) {
	v := n.volumes[id]
	v.holder, v.plugged, v.freeAt = "", false, n.Now()
	n.wakeVolume(v)
}

// releaseUnwanted is for a machine that is absent: what it had open, and should
// not have any more, is free.
func (n *Node) releaseUnwanted(m *machine) error {
	wanted := n.wanted(m.id)
	var list []cloud.VolumeID
	for _, id := range m.memo.Volumes {
		if !slices.ContainsFunc(wanted, func(w cloud.Volume) bool { return w.ID == id }) {
			list = append(list, id)
		}
	}
	n.mu.Lock()
	for _, id := range m.memo.Volumes {
		n.volumes[id].plugged = false
	}
	n.mu.Unlock()
	return n.release(m, list...)
}

// plugged notes that the machine has the volumes, set as they are wished.
func (n *Node) plugged(m *machine, list ...cloud.Volume) {
	if len(list) == 0 {
		return
	}
	n.say(func() {
		for _, w := range list {
			n.volumes[w.ID].plugged = true
		}
	})
	if m.adjusted == nil {
		m.adjusted = map[cloud.VolumeID]adjustment{}
	}
	for _, w := range list {
		m.adjusted[w.ID] = adjustmentOf(w)
	}
}

// tend to the volumes of a machine that is there. One that can't be tended to
// is no reason to leave the others.
func (n *Node) tend(ctx context.Context, m *machine, status hypervisor.Status) error {
	wanted := n.wanted(m.id)
	if len(wanted)+len(m.memo.Volumes) == 0 {
		return nil
	}
	h := n.machineHost(m.id)
	running, err := n.follow(ctx, h, status)
	if err != nil {
		return err
	}
	serials, err := n.Storage.Disks(ctx, h.dir)
	if err != nil {
		return fmt.Errorf("look at the machine's disks: %w", err)
	}
	has := func(id cloud.VolumeID) bool { return slices.Contains(serials, serialOf(id)) }
	n.found(m, has)
	errs := []error{n.takeBack(ctx, m, wanted, has)}
	for _, w := range wanted {
		if err := n.tendTo(ctx, m, w, status, has(w.ID)); err != nil && !errors.Is(err, errWaiting) {
			errs = append(errs, err)
		} else if err != nil {
			m.poll(n.Now())
		}
	}
	if running > 0 {
		m.poll(n.Now())
	}
	return errors.Join(errs...)
}

// found notes which of its volumes the machine has, for a program that didn't give
// them to it.
func (n *Node) found(m *machine, has func(cloud.VolumeID) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, id := range m.memo.Volumes {
		if v := n.volumes[id]; v.plugged != has(id) {
			v.plugged = has(id)
			n.touch()
		}
	}
}

// poll has the machine looked at again soon.
func (m *machine) poll(now time.Time) { m.lookAt = now.Add(pollEvery) }

// tendTo one volume that the machine should have.
func (n *Node) tendTo(ctx context.Context, m *machine, w cloud.Volume, status hypervisor.Status, has bool) error {
	switch {
	case has:
		return n.adjust(ctx, m, w, status)
	case status != hypervisor.Running:
		return nil // there is nobody to give it to
	}
	if err := n.claim(m, w); err != nil {
		return err
	}
	disk, err := n.ensureVolume(ctx, w)
	if err != nil {
		return err
	}
	if err := n.Storage.Plug(ctx, n.machineDir(m.id), disk); err != nil {
		return fmt.Errorf("attach volume %s: %w", w.ID, err)
	}
	n.plugged(m, w)
	return nil
}

// adjust a volume that the machine has, and fill it.
func (n *Node) adjust(ctx context.Context, m *machine, w cloud.Volume, status hypervisor.Status) error {
	if status != hypervisor.Running {
		return nil
	}
	want := adjustmentOf(w)
	if was, known := m.adjusted[w.ID]; !known || was != want {
		if err := n.Storage.Adjust(ctx, n.machineDir(m.id), serialOf(w.ID), want.size, want.limits); err != nil {
			return fmt.Errorf("adjust volume %s: %w", w.ID, err)
		}
		n.plugged(m, w)
		n.say(func() { n.volumes[w.ID].sizeGiB = w.SizeGiB })
	}
	if w.Source == nil {
		return nil
	}
	n.mu.Lock()
	v := n.volumes[w.ID]
	n.mu.Unlock()
	n.fillInMachine(ctx, m, v)
	return nil
}

// fillInMachine goes on beside the guest; that it fails is no failure of the
// machine's, which reads what it lacks from the source.
func (n *Node) fillInMachine(ctx context.Context, m *machine, v *volume) {
	if n.Now().Before(v.fillAt) {
		return
	}
	full, err := n.fill(ctx, n.machineHost(m.id), v)
	if !full {
		m.poll(n.Now())
	}
	if err == nil {
		v.fillFailures = 0
		return
	}
	v.fillFailures++
	v.fillAt = n.Now().Add(backoff(v.fillFailures))
	n.Log.Warn("a volume can't be filled yet", "volume", v.id, "instance", m.id, "attempt", v.fillFailures, "err", err)
}

// takeBack what the machine may have and should not: it is asked for until it is
// gone. What is being copied stays until that is done, for a copy ends with the
// disk.
func (n *Node) takeBack(ctx context.Context, m *machine, wanted []cloud.Volume, has func(cloud.VolumeID) bool) error {
	var closed []cloud.VolumeID
	var errs []error
	for _, id := range m.memo.Volumes {
		switch {
		case slices.ContainsFunc(wanted, func(w cloud.Volume) bool { return w.ID == id }):
		case !has(id):
			closed = append(closed, id)
		case n.copying(n.machineHost(m.id), id):
			m.poll(n.Now())
		default:
			m.poll(n.Now())
			errs = append(errs, n.unplug(ctx, m, id))
		}
	}
	return errors.Join(append(errs, n.release(m, closed...))...)
}

func (n *Node) unplug(ctx context.Context, m *machine, id cloud.VolumeID) error {
	n.mu.Lock()
	a := n.keeps[id].Attachment
	force := a != nil && a.Force
	n.mu.Unlock()
	if !force && n.Now().Sub(m.asked[id]) < askEvery {
		return nil
	}
	if err := n.Storage.Unplug(ctx, n.machineDir(m.id), serialOf(id), force); err != nil {
		return fmt.Errorf("detach volume %s: %w", id, err)
	}
	if m.asked == nil {
		m.asked = map[cloud.VolumeID]time.Time{}
	}
	m.asked[id] = n.Now()
	return nil
}

// fill a volume that is open from what it stands on, and say whether it is full. One
// that is being copied has to wait: the hypervisor does not fill it meanwhile, and
// that there is no job of it says nothing then.
func (n *Node) fill(ctx context.Context, h host, v *volume) (full bool, err error) {
	n.mu.Lock()
	filled := v.filled
	n.mu.Unlock()
	if filled == 100 || n.copying(h, v.id) {
		return filled == 100, nil
	}
	percent, err := n.fillJob(ctx, h, hypervisor.FillID(serialOf(v.id)), func() error {
		return n.Storage.Fill(ctx, h.dir, serialOf(v.id), 0)
	})
	if err != nil {
		return false, fmt.Errorf("fill volume %s: %w", v.id, err)
	}
	if percent != filled {
		n.say(func() { v.filled = percent })
	}
	return percent == 100, nil
}

// fillJob sees how far the job is, which begin begins; where there is none after
// that, there is nothing to fill.
func (n *Node) fillJob(ctx context.Context, h host, id string, begin func() error) (percent int, err error) {
	job, found, err := n.job(ctx, h, id)
	if err == nil && !found {
		if err = begin(); err == nil {
			job, found, err = n.job(ctx, h, id)
		}
	}
	switch {
	case err != nil:
		return 0, err
	case !found:
		return 100, nil
	case !job.Ended:
		return percentOf(job), nil
	}
	return 100, errors.Join(job.Err, n.Storage.Dismiss(ctx, h.dir, id))
}

func (n *Node) job(ctx context.Context, h host, id string) (hypervisor.Job, bool, error) {
	jobs, err := n.Storage.Jobs(ctx, h.dir)
	for _, j := range jobs {
		if j.ID == id {
			return j, true, err
		}
	}
	return hypervisor.Job{}, false, err
}

// percentOf a job that is not done: 99 at most.
func percentOf(j hypervisor.Job) int {
	if j.Total <= 0 {
		return 0
	}
	return int(min(j.Done*100/j.Total, 99))
}
