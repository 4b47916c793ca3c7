package user

import (
	"context"

	"mallee/network"
)

// Groups implements network.Network.
func (u *User) Groups(_ context.Context, groups []network.Group) error {
	return network.CheckGroups(groups)
}
