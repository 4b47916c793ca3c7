package ec2

import (
	"strings"

	"mallee/cloud"
	"mallee/state"
	"mallee/wire"
)

// resource is what can have tags.
type resource struct {
	account cloud.AccountID // whose it is; not always the caller's
	kind    string          // EC2's resource type
	id      string
}

// ownResources finds resources of any type by their ids, all of the caller's
// account unless he runs the cloud, and checks the right to act on each.
func (c *call) ownResources(ids []string) ([]resource, error) {
	found := make([]resource, 0, len(ids))
	for _, id := range ids {
		r, err := c.ownResource(id)
		if err != nil {
			return nil, err
		}
		if err := c.may(c.arn(r.account, r.kind, r.id)); err != nil {
			return nil, err
		}
		found = append(found, r)
	}
	return found, nil
}

func (c *call) ownResource(id string) (resource, error) {
	prefix, _, _ := strings.Cut(strings.ToLower(id), "-")
	switch prefix {
	case cloud.PrefixInstance:
		i, err := c.instance(id)
		if err != nil {
			return resource{}, err
		}
		return resource{i.Account, "instance", string(i.ID)}, nil
	case "emi", "eki", "eri", "ami", "aki", "ari":
		i, err := c.ownImage(id)
		if err != nil {
			return resource{}, err
		}
		return resource{i.Account, "image", string(i.ID)}, nil
	case cloud.PrefixVolume:
		v, err := c.volume(id)
		if err != nil {
			return resource{}, err
		}
		return resource{v.Account, "volume", string(v.ID)}, nil
	case cloud.PrefixSnapshot:
		s, err := c.ownSnapshot(id)
		if err != nil {
			return resource{}, err
		}
		return resource{s.Account, "snapshot", string(s.ID)}, nil
	case cloud.PrefixKeyPair:
		k, err := c.keyPairByID(id)
		if err != nil {
			return resource{}, err
		}
		return resource{k.Account, "key-pair", string(k.ID)}, nil
	case cloud.PrefixGroup:
		g, err := c.groupByID(id)
		if err != nil {
			return resource{}, err
		}
		return resource{g.Account, "security-group", string(g.ID)}, nil
	case cloud.PrefixAllocation:
		a, err := c.addressByID(id)
		if err != nil {
			return resource{}, err
		}
		return resource{a.Account, "elastic-ip", string(a.ID)}, nil
	case cloud.PrefixRule:
		r, err := c.ruleByID(id)
		if err != nil {
			return resource{}, err
		}
		return resource{r.group.Account, "security-group-rule", string(r.ID)}, nil
	}
	if kind, ok := networkParts[prefix]; ok {
		return c.networkPart(kind, prefix, id)
	}
	return resource{}, wire.Errorf("InvalidID", "The ID '%s' is not of a resource that can have tags", wire.Shorten(id))
}

// malformed is how EC2 says that an id can't be one.
func malformed(code, id, prefix string) error {
	return wire.Errorf(code+".Malformed", `Invalid id: "%s" (expecting "%s-...")`, wire.Shorten(id), prefix)
}

// listed joins ids for a message.
func listed(ids []string) string { return wire.Shorten(strings.Join(ids, ", ")) }

// owned says whether the caller may see what belongs to an account: its own,
// and for who runs the cloud everything.
func (c *call) owned(account cloud.AccountID) bool {
	return account == c.account() || c.principal.System
}

// verbose is the id by which who runs the cloud asks for everybody's.
const verbose = "verbose"

// everybody takes verbose out of ids, and says whether it was there and counts.
func (c *call) everybody(ids []string) ([]string, bool) {
	if !c.principal.System {
		return ids, false
	}
	var rest []string
	found := false
	for _, id := range ids {
		if id == verbose {
			found = true
		} else {
			rest = append(rest, id)
		}
	}
	return rest, found
}

// instance finds an instance of the caller's by its id.
func (c *call) instance(id string) (*cloud.Instance, error) {
	list, err := c.instances([]string{id})
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

// instances finds instances by their ids: all of them, or an error that names
// those that aren't there.
func (c *call) instances(ids []string) ([]*cloud.Instance, error) {
	parsed := make([]cloud.InstanceID, 0, len(ids))
	seen := map[string]bool{}
	for _, id := range ids {
		p, ok := cloud.ParseID(id, cloud.PrefixInstance)
		if !ok {
			return nil, malformed("InvalidInstanceID", id, cloud.PrefixInstance)
		}
		if !seen[p] {
			seen[p] = true
			parsed = append(parsed, cloud.InstanceID(p))
		}
	}
	var found []*cloud.Instance
	var missing []string
	for _, id := range parsed {
		i, _, ok := state.Instances.Get(c.read, id)
		if !ok || !c.owned(i.Account) {
			missing = append(missing, string(id))
			continue
		}
		found = append(found, i)
	}
	switch len(missing) {
	case 0:
		return found, nil
	case 1:
		return nil, wire.Errorf("InvalidInstanceID.NotFound", "The instance ID '%s' does not exist", missing[0])
	}
	return nil, wire.Errorf("InvalidInstanceID.NotFound", "The instance IDs '%s' do not exist", listed(missing))
}
