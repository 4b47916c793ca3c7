//go:build race

package bundle

// The race detector makes compression ten times as slow; memory doesn't depend on the size, so a smaller image shows the same.
const memorySize = 48 << 20
