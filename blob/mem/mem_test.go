package mem_test

import (
	"testing"

	"mallee/blob"
	"mallee/blob/blobtest"
	"mallee/blob/mem"
)

func TestStore(t *testing.T) {
	blobtest.Run(t, func(*testing.T) blob.Store { return mem.New() })
}
