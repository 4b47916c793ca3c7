package image

import (
	"encoding/binary"
	"fmt"
	"io"
)

const swapPage = 4096 // bytes; the page size of x86_64

// writeSwap writes the header that mkswap would: version 1, the number of the last page, a UUID
// and a label (Linux, include/linux/swap.h). The rest of a swap area may hold anything.
func writeSwap(w io.WriterAt, off, size int64, id [16]byte, label string) error {
	if size < 10*swapPage || size/swapPage > 1<<32 {
		return fmt.Errorf("a swap area of %d bytes: it has 10 pages of %d at least", size, swapPage)
	}
	page := make([]byte, swapPage)
	binary.LittleEndian.PutUint32(page[1024:], 1)
	binary.LittleEndian.PutUint32(page[1028:], uint32(size/swapPage-1))
	copy(page[1036:1052], id[:])
	copy(page[1052:1068], label)
	copy(page[swapPage-10:], "SWAPSPACE2")
	_, err := w.WriteAt(page, off)
	return err
}
