package cloud

import (
	"net/netip"
	"time"
)

// Address is a public address that an account keeps, and puts on an instance of
// its own: EC2's elastic IP address.
type Address struct {
	ID          AllocationID  `json:"id"`
	Account     AccountID     `json:"account"`
	IP          netip.Addr    `json:"ip"`
	AllocatedAt time.Time     `json:"allocated_at"`
	Association AssociationID `json:"association,omitempty"` // empty while no instance has it
	Instance    InstanceID    `json:"instance,omitempty"`    // whose Public it is
}
