package nbd

import (
	"errors"
	"syscall"
)

// What follows is doc/proto.md's; numbers are big-endian on the wire.
const (
	magicServer  = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption  = 0x49484156454f5054 // "IHAVEOPT"
	magicReply   = 0x0003e889045565a9 // to an option
	magicRequest = 0x25609513
	magicSimple  = 0x67446698
	magicChunk   = 0x668e33ef

	handshakeFixed    = 1 << 0
	handshakeNoZeroes = 1 << 1

	optExportName      = 1
	optAbort           = 2
	optList            = 3
	optInfo            = 6
	optGo              = 7
	optStructuredReply = 8
	optListMeta        = 9
	optSetMeta         = 10

	repAck     = 1
	repInfo    = 3
	repMeta    = 4
	repError   = 1 << 31
	errUnsup   = repError + 1
	errPolicy  = repError + 2
	errInvalid = repError + 3
	errPlat    = repError + 4
	errUnknown = repError + 6
	errTooBig  = repError + 9

	infoExport    = 0
	infoBlockSize = 3

	flagHasFlags    = 1 << 0
	flagReadOnly    = 1 << 1
	flagFlush       = 1 << 2
	flagFUA         = 1 << 3
	flagTrim        = 1 << 5
	flagWriteZeroes = 1 << 6
	flagMultiConn   = 1 << 8

	cmdRead        = 0
	cmdWrite       = 1
	cmdDisconnect  = 2
	cmdFlush       = 3
	cmdTrim        = 4
	cmdWriteZeroes = 6
	cmdBlockStatus = 7

	cmdFUA    = 1 << 0
	cmdNoHole = 1 << 1
	cmdReqOne = 1 << 3

	chunkDone   = 1 << 0
	chunkNone   = 0
	chunkData   = 1
	chunkHole   = 2
	chunkStatus = 5
	chunkError  = 1<<15 + 1

	statusHole = 1 << 0
	statusZero = 1 << 1
)

// Bounds of what a client may make us do. The longest payload is what the
// protocol lets a client assume.
const (
	maxPayload     = 32 << 20 // bytes of a READ or WRITE, and of all those of a connection together
	maxRequests    = 64       // of a connection at once
	maxName        = 4096     // bytes of an export's name, the protocol's bound
	maxOption      = 16 << 10 // bytes of an option
	maxOptions     = 64       // of a negotiation
	maxExtents     = 1024     // of a reply to BLOCK_STATUS
	pieceSize      = 512 << 10
	baseAllocation = "base:allocation"
	allocationID   = 1
)

// errno is the protocol's number for an error.
func errno(err error) uint32 {
	var no syscall.Errno
	switch {
	case err == nil:
		return 0
	case !errors.As(err, &no):
		return uint32(syscall.EIO)
	}
	switch no {
	case syscall.EDQUOT, syscall.EFBIG:
		return uint32(syscall.ENOSPC)
	case syscall.EROFS:
		return uint32(syscall.EPERM)
	case syscall.EPERM, syscall.ENOMEM, syscall.EINVAL, syscall.ENOSPC, syscall.EOVERFLOW, syscall.ENOTSUP, syscall.ESHUTDOWN:
		return uint32(no)
	}
	return uint32(syscall.EIO)
}

// request is the header of one; of a WRITE its length of bytes follow.
type request struct {
	Magic  uint32
	Flags  uint16
	Type   uint16
	Cookie uint64
	Offset uint64
	Length uint32
}

const requestSize = 28 // bytes
