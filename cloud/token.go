package cloud

import "time"

// ClientToken remembers what a call with a token of the client's made, so that
// the same call again makes nothing more. It lives as long as what was made.
type ClientToken struct {
	Account AccountID `json:"account"`
	Action  string    `json:"action"`
	Token   string    `json:"token"`
	Digest  string    `json:"digest"` // of the call's parameters, hex
	Made    string    `json:"made"`   // the id
	At      time.Time `json:"at"`
}
