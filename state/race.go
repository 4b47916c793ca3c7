//go:build race

package state

// checkMutation has every Update check that its function changed no record
// that it shares with others.
const checkMutation = true
