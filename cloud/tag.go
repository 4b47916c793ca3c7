package cloud

// Tag is one key and value on a resource of an account.
type Tag struct {
	Account  AccountID `json:"account"`
	Resource string    `json:"resource"` // the id
	Type     string    `json:"type"`     // EC2's resource type: instance, image, key-pair, reservation
	Key      string    `json:"key"`
	Value    string    `json:"value"`
}

// TagSet is all tags of a resource: one record, so that their number can be
// limited without a guard and they go with the resource in one step.
type TagSet struct {
	Account  AccountID         `json:"account"`
	Resource string            `json:"resource"`
	Type     string            `json:"type"`
	Tags     map[string]string `json:"tags"`
}
