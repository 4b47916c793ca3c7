package bundle

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
)

// decrypter is the plaintext of an AES-CBC stream. It holds the last block back until the stream has
// ended, for that one carries the padding.
type decrypter struct {
	in    io.Reader
	mode  cipher.BlockMode
	buf   []byte
	plain []byte // decrypted, not yet read: a part of buf
	held  []byte // not yet decrypted: the part of buf after it
	err   error  // once plain is empty
}

func newDecrypter(in io.Reader, key, iv []byte) (*decrypter, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return &decrypter{in: in, mode: cipher.NewCBCDecrypter(block, iv), buf: make([]byte, bufferSize)}, nil
}

func (d *decrypter) Read(p []byte) (int, error) {
	for len(d.plain) == 0 {
		if d.err != nil {
			return 0, d.err
		}
		d.more()
	}
	n := copy(p, d.plain)
	d.plain = d.plain[n:]
	return n, nil
}

// more refills the buffer and decrypts all whole blocks but the last.
func (d *decrypter) more() {
	kept := copy(d.buf, d.held)
	n, err := fill(d.in, d.buf[kept:])
	have := d.buf[:kept+n]
	if errors.Is(err, io.EOF) {
		d.plain, d.err = d.last(have)
		return
	}
	d.err = err
	ready := max(0, (len(have)-1)/aes.BlockSize*aes.BlockSize)
	d.mode.CryptBlocks(have[:ready], have[:ready])
	d.plain, d.held = have[:ready], have[ready:]
}

func (d *decrypter) last(have []byte) ([]byte, error) {
	if len(have) == 0 || len(have)%aes.BlockSize != 0 {
		return nil, fmt.Errorf("%w: the ciphertext isn't a whole number of blocks", ErrPadding)
	}
	d.mode.CryptBlocks(have, have)
	pad := int(have[len(have)-1])
	if pad < 1 || pad > aes.BlockSize {
		return nil, ErrPadding
	}
	body := have[:len(have)-pad]
	if !bytes.Equal(have[len(body):], bytes.Repeat([]byte{byte(pad)}, pad)) {
		return nil, ErrPadding
	}
	return body, io.EOF
}
