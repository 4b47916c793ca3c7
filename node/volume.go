package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"mallee/block"
	"mallee/cloud"
	"mallee/hypervisor"
	"mallee/link"
)

// volume is the node's memory of one volume. All but what is said is guarded by
// Node.mu.
//
// Two processes must never have a volume open at once, and nothing may make, grow
// or remove one that is open. So it is in one hand at a time: nobody's, that of its
// own worker (kept), or that of a machine's worker (holder), who notes it in the
// machine's memo before its machine opens the volume, and strikes it out when it is
// known to have closed it.
type volume struct {
	turn
	id       cloud.VolumeID
	phase    cloud.VolumePhase
	reason   cloud.Reason
	failures int
	sizeGiB  int // as it is now; 0: not looked at yet
	filled   int // percent of its source
	kept     bool
	holder   cloud.InstanceID
	plugged  bool      // the holder's machine has it
	gone     bool      // nothing is left of one that should be deleted
	filling  bool      // its keeper counts among Node.fillers
	freeAt   time.Time // since when no machine has it

	// Its hand's own.
	stands       bool      // on its source still, as it was last opened; guarded by Node.mu too
	fillFailures int       // in a machine, since it last went well
	fillAt       time.Time // when it is tried again
}

// serialOf a volume is what EC2 has a guest see: the id without its dash.
func serialOf(id cloud.VolumeID) string { return strings.Replace(string(id), "-", "", 1) }

func volumeID(name string) (cloud.VolumeID, bool) {
	id, ok := cloud.ParseID(name, cloud.PrefixVolume)
	return cloud.VolumeID(id), ok && id == name
}

// bytesOf a volume's size.
func bytesOf(w cloud.Volume) int64 { return int64(w.SizeGiB) << 30 }

// limitsOf a volume, as its type has them.
func limitsOf(w cloud.Volume) hypervisor.Limits {
	l := w.Figures().Limits()
	return hypervisor.Limits{
		IOPS: l.IOPS, BurstIOPS: l.BurstIOPS,
		BytesPerSecond: int64(l.MiBs) << 20, BurstBytesPerSecond: int64(l.BurstMiBs) << 20,
		BurstSeconds: l.BurstSeconds, OperationBytes: int64(l.IOKiB) << 10,
	}
}

// diskOf is the wish for a volume's disk.
func (n *Node) diskOf(w cloud.Volume) (d block.Disk, err error) {
	d = block.Disk{Name: string(w.ID), Size: bytesOf(w)}
	if w.Source != nil {
		d.Source = n.Contents.Source(*w.Source)
	}
	if w.Encrypted {
		d.Key, err = n.Keys.VolumeKey(w.ID)
	}
	return d, err
}

// knowVolume is the volume's entry, made where there is none. mu is held.
func (n *Node) knowVolume(id cloud.VolumeID) *volume {
	v := n.volumes[id]
	if v == nil {
		v = &volume{id: id, phase: cloud.VolumePreparing}
		v.pass = func(ctx context.Context) { n.keep(ctx, v) }
		n.volumes[id] = v
	}
	return v
}

// recogniseVolumes knows the volumes that are there, and in whose hands they may be.
func (n *Node) recogniseVolumes(ctx context.Context) error {
	names, err := n.Volumes.List(ctx)
	if err != nil {
		return fmt.Errorf("list the volumes: %w", err)
	}
	for _, name := range names {
		if id, ok := volumeID(name); ok {
			n.knowVolume(id).phase = cloud.VolumeReady
		}
	}
	keepers, err := os.ReadDir(filepath.Join(n.Dir, "keepers"))
	if err != nil {
		return fmt.Errorf("list the keepers: %w", err)
	}
	for _, e := range keepers {
		if id, ok := volumeID(e.Name()); ok && e.IsDir() {
			n.knowVolume(id).kept = true
		}
	}
	for id := range n.machines {
		for _, v := range n.mayHave(id) {
			n.knowVolume(v).holder = id
		}
	}
	return nil
}

// mayHave are the volumes that a machine may have open, by its memo. Where that
// can't be read, they are those that it should have had last.
func (n *Node) mayHave(id cloud.InstanceID) (list []cloud.VolumeID) {
	var known memo
	err := readJSON(n.memoPath(id), &known)
	if err == nil {
		return known.Volumes
	}
	n.Log.Warn("what volumes a machine has is not remembered", "instance", id, "err", err)
	for _, w := range n.keeps {
		if w.Attachment != nil && w.Attachment.Instance == id {
			list = append(list, w.ID)
		}
	}
	return list
}

// wakeVolumes that are wished otherwise than before, and the machines that this
// concerns. mu is held.
func (n *Node) wakeVolumes(before map[cloud.VolumeID]cloud.Volume) {
	for id := range before {
		if _, still := n.keeps[id]; !still && n.volumes[id].gone {
			delete(n.volumes, id)
		}
	}
	for id, w := range n.keeps {
		if was, had := before[id]; !had || !reflect.DeepEqual(was, w) {
			n.wakeVolume(n.volumes[id])
		}
	}
}

// wakeVolume asks for passes over the volume and the machines that have it or
// should have it. mu is held.
func (n *Node) wakeVolume(v *volume) {
	n.wakeLocked(&v.turn)
	n.wakeMachine(v.holder)
	if a := n.keeps[v.id].Attachment; a != nil {
		n.wakeMachine(a.Instance)
	}
}

// wantedBy is the machine that the volume should be in; empty where there is
// none. mu is held.
func (n *Node) wantedBy(w cloud.Volume) cloud.InstanceID {
	a := w.Attachment
	if a == nil || !a.Detaching.IsZero() || !w.Deleted.IsZero() {
		return ""
	}
	if _, runs := n.assigned[a.Instance]; !runs {
		return ""
	}
	return a.Instance
}

// reportVolume says of a volume that should be in no machine any more that it is
// in one as long as it may be. mu is held.
func (n *Node) reportVolume(v *volume) link.Volume {
	r := link.Volume{Volume: v.id, Phase: v.phase, Reason: v.reason, SizeGiB: v.sizeGiB, Filled: v.filled}
	w := n.keeps[v.id]
	if v.plugged || n.wantedBy(w) == "" {
		r.Attached = v.holder
	}
	if w.Source != nil && v.filled < 100 {
		r.Trouble = troubleOf(n.Contents.Trouble(*w.Source))
	}
	return r
}

// say what is seen of a volume, by a change that mu is held for.
func (n *Node) say(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
	n.touch()
}

// ensureVolume has the volume's disk as it is wished. The caller has it in hand,
// and it is not open.
func (n *Node) ensureVolume(ctx context.Context, w cloud.Volume) (hypervisor.Disk, error) {
	d, err := n.diskOf(w)
	if err != nil {
		return hypervisor.Disk{}, fmt.Errorf("find the key of volume %s: %w", w.ID, err)
	}
	a, err := n.Volumes.Ensure(ctx, d)
	if err != nil {
		return hypervisor.Disk{}, fmt.Errorf("make volume %s: %w", w.ID, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	v := n.volumes[w.ID]
	v.stands = a.Source.Socket != ""
	filled := v.filled
	if !v.stands {
		filled = 100
	}
	if v.phase != cloud.VolumeReady || v.sizeGiB != w.SizeGiB || v.filled != filled {
		v.phase, v.sizeGiB, v.filled = cloud.VolumeReady, w.SizeGiB, filled
		n.touch()
	}
	return hypervisor.Disk{Serial: serialOf(w.ID), Attachment: a, Limits: limitsOf(w)}, nil
}
