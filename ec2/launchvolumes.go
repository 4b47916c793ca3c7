package ec2

import (
	"cmp"

	"mallee/cloud"
	"mallee/state"
)

// splitVolumes from the devices of a launch: what is left is on the instance's
// record, and volumes have records of their own.
func splitVolumes(devices []cloud.Mapping) (others, volumes []cloud.Mapping) {
	for _, m := range devices {
		if m.EBS != nil {
			volumes = append(volumes, m)
		} else {
			others = append(others, m)
		}
	}
	return others, volumes
}

// makeVolumes of an instance that is being launched, on its node and attached to
// it from the first moment.
func (c *call) makeVolumes(i *cloud.Instance, mappings []cloud.Mapping) error {
	for _, m := range mappings {
		v, err := c.launchVolume(i, m.EBS)
		if err != nil {
			return err
		}
		if err := c.makeVolume(*v); err != nil {
			return err
		}
		state.Attach(c.tx, *v, cloud.Attachment{Instance: i.ID, Device: m.Device, DeleteOnTermination: m.EBS.DeleteOnTermination, At: c.Now()})
		if err := c.tagNew("volume", string(v.ID)); err != nil {
			return err
		}
	}
	return nil
}

func (c *call) launchVolume(i *cloud.Instance, e *cloud.EBSMapping) (*cloud.Volume, error) {
	id, err := c.newID(cloud.PrefixVolume, has(c.tx, state.Volumes))
	if err != nil {
		return nil, err
	}
	t, err := cloud.VolumeTypeNamed(e.VolumeType)
	if err != nil {
		return nil, err
	}
	v := &cloud.Volume{
		ID: cloud.VolumeID(id), Account: i.Account, Zone: i.Zone, Node: i.Node, CreatedAt: c.Now(), Snapshot: e.Snapshot, Encrypted: e.Encrypted,
		SizeGiB: e.SizeGiB, Type: e.VolumeType, IOPS: cmp.Or(e.IOPS, t.DefaultIOPS), Throughput: cmp.Or(e.Throughput, t.DefaultThroughput),
	}
	if e.Snapshot == "" {
		return v, nil
	}
	s, err := c.completedSnapshot(e.Snapshot, true)
	if err != nil {
		return nil, err
	}
	v.Source = s.Content
	return v, nil
}
