package file

import (
	"crypto/aes"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"

	"golang.org/x/crypto/xts"

	"mallee/block"
)

// What follows is LUKS's on-disk format 1.2.3 (the header, its key slots and the
// anti-forensic splitter) with the figures that QEMU writes: AES-256 in XTS mode,
// SHA-256, eight slots of which the first holds the key. It is written here
// because qemu-img measures the processor for a second or two first, to choose the
// rounds that make a weak passphrase strong, and fails on a machine that is too busy to be measured. A random
// key needs no such rounds.
const (
	luksMagic     = "LUKS\xba\xbe"
	luksKeySize   = 64 // bytes of the master key: two of AES-256, for XTS
	luksStripes   = 4000
	luksRounds    = 1000 // the least that the format allows
	luksSector    = 512
	luksSlots     = 8
	luksActive    = 0x00ac71f3
	luksInactive  = 0x0000dead
	luksFirstSlot = 4096 // bytes from the header's beginning
	luksSlotSize  = (luksKeySize*luksStripes + 4095) / 4096 * 4096
	luksSize      = luksFirstSlot + luksSlots*luksSlotSize // bytes before the payload
	luksClusters  = (luksSize + clusterSize - 1) / clusterSize
)

type luksHeader struct {
	Magic         [6]byte
	Version       uint16
	Cipher        [32]byte
	Mode          [32]byte
	Hash          [32]byte
	PayloadSector uint32
	KeySize       uint32
	Digest        [20]byte // of the master key
	DigestSalt    [32]byte
	DigestRounds  uint32
	UUID          [40]byte
	Slots         [luksSlots]luksSlot
}

type luksSlot struct {
	Active  uint32
	Rounds  uint32
	Salt    [32]byte
	Sector  uint32
	Stripes uint32
}

// luks is the encryption's part of a fresh image, at an offset of it: a new master key, wrapped
// by the disk's key.
func luks(key []byte, offset int64, random io.Reader) ([]piece, error) {
	master := make([]byte, luksKeySize)
	split := make([]byte, luksKeySize*luksStripes)
	var h luksHeader
	var uuid [16]byte
	for _, b := range [][]byte{master, split, h.DigestSalt[:], h.Slots[0].Salt[:], uuid[:]} {
		if _, err := io.ReadFull(random, b); err != nil {
			return nil, fmt.Errorf("making a key: %w", err)
		}
	}
	h.fill(uuid)
	digest, err := pbkdf2.Key(sha256.New, string(master), h.DigestSalt[:], luksRounds, len(h.Digest))
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	copy(h.Digest[:], digest)
	splitKey(split, master)
	if err := wrapKey(split, key, h.Slots[0].Salt[:]); err != nil {
		return nil, fmt.Errorf("wrapping a key: %w", err)
	}
	head, err := binary.Append(nil, binary.BigEndian, h)
	if err != nil {
		panic("block/file: the LUKS header has a fixed size: " + err.Error())
	}
	return []piece{{offset, head}, {offset + luksFirstSlot, split}}, nil
}

// fill sets what isn't random.
func (h *luksHeader) fill(uuid [16]byte) {
	copy(h.Magic[:], luksMagic)
	h.Version = 1
	copy(h.Cipher[:], "aes")
	copy(h.Mode[:], "xts-plain64")
	copy(h.Hash[:], "sha256")
	h.PayloadSector = luksSize / luksSector
	h.KeySize = luksKeySize
	h.DigestRounds = luksRounds
	uuid[6], uuid[8] = uuid[6]&0x0f|0x40, uuid[8]&0x3f|0x80
	copy(h.UUID[:], fmt.Sprintf("%x-%x-%x-%x-%x", uuid[:4], uuid[4:6], uuid[6:8], uuid[8:10], uuid[10:]))
	for i := range h.Slots {
		s := &h.Slots[i]
		s.Active = luksInactive
		s.Sector = uint32((luksFirstSlot + i*luksSlotSize) / luksSector)
		s.Stripes = luksStripes
	}
	h.Slots[0].Active, h.Slots[0].Rounds = luksActive, luksRounds
}

// splitKey spreads the key over stripes, of which all but the last are random, so that the
// loss of any part is the loss of the key.
func splitKey(stripes, key []byte) {
	state := make([]byte, len(key))
	last := len(stripes) - len(key)
	for at := 0; at < last; at += len(key) {
		xor(state, stripes[at:])
		for i := 0; i < len(state); i += sha256.Size {
			numbered := binary.BigEndian.AppendUint32(nil, uint32(i/sha256.Size))
			sum := sha256.Sum256(append(numbered, state[i:i+sha256.Size]...))
			copy(state[i:], sum[:])
		}
	}
	xor(state, key)
	copy(stripes[last:], state)
}

func xor(dst, src []byte) {
	for i := range dst {
		dst[i] ^= src[i]
	}
}

// wrapKey encrypts the stripes with what the passphrase gives.
func wrapKey(stripes, key, salt []byte) error {
	derived, err := pbkdf2.Key(sha256.New, block.Passphrase(key), salt, luksRounds, luksKeySize)
	if err != nil {
		return err
	}
	c, err := xts.NewCipher(aes.NewCipher, derived)
	if err != nil {
		return err
	}
	for number := range len(stripes) / luksSector {
		sector := stripes[number*luksSector:][:luksSector]
		c.Encrypt(sector, sector, uint64(number))
	}
	return nil
}
