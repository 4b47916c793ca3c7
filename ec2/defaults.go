package ec2

import (
	"slices"

	"mallee/wire"
)

// only lets a parameter pass whose value asks for nothing but what is done
// anyway, and refuses any other in words: to ignore it would be a lie.
func only(name, value string, served ...string) error {
	if slices.Contains(served, value) {
		return nil
	}
	return wire.UnsupportedOperation("The value %s of the parameter %s is not supported by this cloud", wire.Shorten(value), name)
}

// never refuses a parameter that can't be honoured, whatever its value.
func never(name, value, why string) error {
	if value == "" {
		return nil
	}
	return wire.UnsupportedOperation("The parameter %s is not supported: %s", name, why)
}

// firstError of several checks.
func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
