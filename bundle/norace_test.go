//go:build !race

package bundle

const memorySize = 200 << 20
