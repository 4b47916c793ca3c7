//go:build !race

package state

// checkMutation is off: encoding every record read would cost more than reading.
const checkMutation = false
