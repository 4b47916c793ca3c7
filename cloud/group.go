package cloud

import "time"

// DefaultGroup is the security group that every account has, and that a
// launch takes which names no other.
const DefaultGroup = "default"

// SecurityGroup says what may reach the instances in it.
type SecurityGroup struct {
	ID          GroupID   `json:"id"`
	Account     AccountID `json:"account"`
	Name        string    `json:"name"`
	Description string    `json:"description"`
	CreatedAt   time.Time `json:"created_at"`
}

// Ref of the group, as an instance keeps it.
func (g *SecurityGroup) Ref() Group { return Group{ID: g.ID, Name: g.Name} }
