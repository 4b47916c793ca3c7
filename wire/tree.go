package wire

import (
	"slices"
	"strings"
)

// Bounds of a parameter's name. The longest path through EC2's published model has
// 11 parts, numbers included, and 138 bytes (a spot fleet's Cpu.References).
const (
	maxName  = 256 // bytes
	maxDepth = 12  // parts between dots
)

// node is one part of the parameters' names: Placement.AvailabilityZone=one is
// the node Placement without a value, and below it AvailabilityZone with one.
type node struct {
	name  string // in full, as the client wrote it
	value string
	given bool // the form has a value under this very name
	used  bool // a field took the value
	kids  map[string]*node
}

// ignored tells the parameters that belong to the protocol and not to the action:
// the dispatcher and the signature (versions 2 and 4) read them.
func ignored(name string) bool {
	switch name {
	case "Action", "Version", "AWSAccessKeyId", "Signature", "SignatureMethod",
		"SignatureVersion", "Timestamp", "Expires", "SecurityToken":
		return true
	}
	return strings.HasPrefix(name, "X-Amz-")
}

// newTree sorts the form into a tree. Its size is bounded by the form's own,
// because each node costs the client at least two bytes of a name and no
// name has more than maxDepth of them.
func newTree(form Form) (*node, error) {
	root := &node{}
	for name, value := range form {
		if ignored(name) {
			continue
		}
		if len(name) > maxName || strings.Count(name, ".") >= maxDepth {
			return nil, UnknownParameter(name)
		}
		leaf := root.descend(name)
		leaf.value, leaf.given = value, true
	}
	return root, nil
}

// descend returns the node of that name below the root, and makes what is missing.
func (n *node) descend(name string) *node {
	for start := 0; start <= len(name); {
		end := len(name)
		if dot := strings.IndexByte(name[start:], '.'); dot >= 0 {
			end = start + dot
		}
		n = n.kid(name[start:end], name[:end])
		start = end + 1
	}
	return n
}

func (n *node) kid(part, full string) *node {
	kid := n.kids[part]
	if kid == nil {
		kid = &node{name: full}
		if n.kids == nil {
			n.kids = map[string]*node{}
		}
		n.kids[part] = kid
	}
	return kid
}

// parts returns the names directly below, sorted.
func (n *node) parts() []string {
	parts := make([]string, 0, len(n.kids))
	for part := range n.kids {
		parts = append(parts, part)
	}
	slices.Sort(parts)
	return parts
}

// below is the full name of a field that may not be there.
func (n *node) below(part string) string {
	if n.name == "" {
		return part
	}
	return n.name + "." + part
}

// leftover appends the names of all parameters that no field took.
func (n *node) leftover(names []string) []string {
	if n.given && !n.used {
		names = append(names, n.name)
	}
	for _, kid := range n.kids {
		names = kid.leftover(names)
	}
	return names
}
