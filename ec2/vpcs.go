package ec2

import (
	"mallee/cloud"
	"mallee/wire"
)

// vpcOf an account: its default VPC, which is there before anything made it.
func vpcOf(account cloud.AccountID) string {
	return cloud.DerivedID(cloud.PrefixVPC, "vpc default of "+string(account))
}

// checkVPC refuses any but the account's own; none stands for that.
func (c *call) checkVPC(id string) error {
	if id == "" {
		return nil
	}
	parsed, ok := cloud.ParseID(id, cloud.PrefixVPC)
	switch {
	case !ok:
		return malformed("InvalidVpcID", id, cloud.PrefixVPC)
	case parsed != vpcOf(c.account()):
		return wire.Errorf("InvalidVpcID.NotFound", "The vpc ID '%s' does not exist", parsed)
	}
	return nil
}
