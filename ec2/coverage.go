package ec2

import (
	"cmp"
	"slices"

	"mallee/wire"
)

// Coverage is what the table says of an action, for the document that is
// generated from it and the tests that hold it against Amazon's model.
type Coverage struct {
	Action     string
	Resource   string   // EC2's type of what it is about; empty where there is none
	Writes     bool     // it changes something
	Parameters []string // sorted; N stands for the numbers of a list
	Filters    []string // sorted
	Taggable   []string // what its TagSpecification may be for
	MaxResults [2]int   // the bounds; zero where it has no pages
}

// Covered tells of every action, by name.
func Covered() []Coverage {
	var all []Coverage
	for _, a := range actions {
		c := Coverage{Action: a.name, Resource: a.resource, Writes: a.writes, Parameters: wire.Names(a.in()), Filters: a.filters, Taggable: a.taggable}
		slices.Sort(c.Parameters)
		if a.pages != nil {
			c.MaxResults = [2]int{a.pages.min, a.pages.max}
		}
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b Coverage) int { return cmp.Compare(a.Action, b.Action) })
	return all
}
