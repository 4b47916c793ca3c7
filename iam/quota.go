package iam

import (
	"fmt"

	"mallee/policy"
	"mallee/state"
	"mallee/wire"
)

// QuotaError tells that a policy's limit would be exceeded.
type QuotaError struct {
	Key   string // ec2:quota-vminstancenumber
	Value int64  // what it would come to
}

func (e *QuotaError) Error() string {
	return fmt.Sprintf("the quota %s does not allow %d", e.Key, e.Value)
}

// Within says whether the principal's action (ec2:RunInstances) may bring the
// account's count of that key (ec2:quota-vminstancenumber) to value: nil, or a
// *QuotaError. r is the transaction that has brought it there.
func (s *IAM) Within(r state.Reader, p Principal, action, key string, value int64) error {
	if p.System {
		return nil
	}
	rights, err := s.rights(r, p)
	if err != nil {
		return err
	}
	q := s.request(r, p, action, "*")
	if policy.Within(rights.Guard, q, key, value) && policy.Within(rights.Identity, q, key, value) {
		return nil
	}
	return &QuotaError{key, value}
}

// within says whether the call's account may have so many.
func (c *call) within(key string, count int) error {
	p := c.principal
	if p.Account != c.account { // a system administrator acts in it: as its admin
		p = Principal{Account: c.account, User: AdminUser}
	}
	if err := c.Within(c.tx, p, c.action.service+":"+c.action.name, key, int64(count)); err != nil {
		return wire.Errorf("LimitExceeded", "Quota exceeded: %v", err)
	}
	return nil
}
