package iam

import (
	"errors"

	"mallee/policy"
	"mallee/state"
	"mallee/wire"
)

func noSuch(noun, name string) error {
	return wire.Errorf("NoSuchEntity", "The %s with name %s cannot be found.", noun, wire.Shorten(name))
}

func exists(noun, name string) error {
	return wire.Errorf("EntityAlreadyExists", "A %s with name %s already exists.", noun, wire.Shorten(name))
}

func conflict(format string, args ...any) error {
	return wire.Errorf("DeleteConflict", format, args...)
}

func tooMany(quota string, most int) error {
	return wire.Errorf("LimitExceeded", "Cannot exceed quota for %s: %d", quota, most)
}

// invalid value of a parameter.
func invalid(name, value, format string, args ...any) error {
	return asIAM(wire.InvalidParameterValue(name, value, format, args...))
}

// asIAM gives an error of decoding the code that IAM and STS have for it.
func asIAM(err error) error {
	var e *wire.Error
	if errors.As(err, &e) && (e.Code == "MissingParameter" || e.Code == "InvalidParameterValue" || e.Code == "InvalidParameterCombination") {
		return wire.Errorf("ValidationError", "%s", e.Message)
	}
	return err
}

// wireError translates the errors of other rooms that a client can do something
// about.
func wireError(err error) error {
	var bad *policy.MalformedError
	switch {
	case errors.As(err, &bad):
		return wire.Errorf("MalformedPolicyDocument", "%s", bad.Message)
	case errors.Is(err, state.ErrConflict):
		return wire.Errorf("ConcurrentModification", "Too many requests change the same things at once; try again")
	case errors.Is(err, state.ErrTooBig):
		return wire.Errorf("LimitExceeded", "The request makes more at once than one transaction holds")
	case errors.Is(err, state.ErrNoSpace):
		return wire.Errorf("ServiceUnavailable", "The store of this cloud is full; whoever runs it has to make room")
	}
	return err
}
