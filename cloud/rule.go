package cloud

import "fmt"

// Rule is the kind of rule that a request breaks; each has a code of EC2's.
type Rule int

const (
	RuleDevice      Rule = iota // of block device mappings
	RuleVolumeType              // there is no such type
	RuleMissing                 // a figure that can't be done without
	RuleCombination             // figures that don't go together
	RuleValue                   // a figure out of its bounds
)

// RuleError tells which rule a request breaks, in words for who made it.
type RuleError struct {
	Rule    Rule
	Message string
}

func (e *RuleError) Error() string { return e.Message }

func broken(rule Rule, format string, args ...any) error {
	return &RuleError{rule, fmt.Sprintf(format, args...)}
}
