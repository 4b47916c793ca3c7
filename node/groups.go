package node

import (
	"context"
	"time"

	"mallee/cloud"
	"mallee/link"
	"mallee/network"
)

// regroup tells the network what the assignment says of security groups. It is
// told all of it each time, so that the next pass is the retry.
func (n *Node) regroup(ctx context.Context) {
	n.mu.Lock()
	told, groups := n.assignment.Generation > 0, n.assignment.Groups
	n.mu.Unlock()
	if !told {
		return // to know of none is not to be told that there are none
	}
	err := n.Network.Groups(ctx, networkGroups(groups))
	n.mu.Lock()
	defer n.mu.Unlock()
	n.grouping.retryAt = time.Time{}
	if err != nil && ctx.Err() == nil {
		n.grouping.retryAt = n.Now().Add(time.Second)
		n.Log.Error("security groups are not as they should be", "err", err)
	}
}

// networkGroups are groups as the network takes them.
func networkGroups(groups []link.Group) []network.Group {
	all := make([]network.Group, 0, len(groups))
	for _, g := range groups {
		to := network.Group{ID: string(g.ID), Network: string(g.Account), Members: g.Members}
		for _, r := range g.Rules {
			switch {
			case r.Group != "" && r.GroupAccount != g.Account:
				// accounts don't share a network, so that no packet comes from such a peer
			case r.Egress:
				to.Egress = append(to.Egress, networkRule(r))
			default:
				to.Ingress = append(to.Ingress, networkRule(r))
			}
		}
		all = append(all, to)
	}
	return all
}

func networkRule(r cloud.GroupRule) network.Rule {
	return network.Rule{Protocol: r.Protocol, From: r.From, To: r.To, Prefix: r.Prefix, Group: string(r.Group)}
}

// groupIDs of an instance. They are never nil, which would leave its port to
// nobody's rules: an instance without groups is let nothing through.
func groupIDs(i cloud.Instance) []string {
	ids := make([]string, 0, len(i.Groups))
	for _, g := range i.Groups {
		ids = append(ids, string(g.ID))
	}
	return ids
}
