package state

import (
	"testing"

	"mallee/cloud"
)

// TestOldGroupsGetTheirRules: before there were rules, all groups were default
// ones, and had none on record.
func TestOldGroupsGetTheirRules(t *testing.T) {
	old := []byte(`{"v":1,"d":{"id":"sg-12345678","account":"111122223333","name":"default","description":"default group","created_at":"2026-11-22T03:04:05Z"}}`)
	r, err := SecurityGroups.info.open("sg-12345678", old, 7)
	if err != nil {
		t.Fatal(err)
	}
	g := r.value.(*cloud.SecurityGroup)
	if len(g.Rules) != 2 || g.Rules[0].Group != g.ID || !g.Rules[1].Egress || g.Rules[1].Prefix.String() != "0.0.0.0/0" {
		t.Errorf("it has %+v", g.Rules)
	}
	written, err := SecurityGroups.info.encode(&cloud.SecurityGroup{ID: g.ID, Account: g.Account, Name: "web"})
	if err != nil {
		t.Fatal(err)
	}
	if r, err = SecurityGroups.info.open("sg-12345678", written, 8); err != nil || len(r.value.(*cloud.SecurityGroup).Rules) != 0 {
		t.Errorf("a group without rules is read as %+v, %v", r, err)
	}
}
