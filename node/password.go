package node

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"

	"mallee/cloud"
)

const (
	// mostPassword is the longest that is taken, in bytes before base64: what a key
	// of 8192 bits encrypts to.
	mostPassword = 1 << 10
	// passwordTail is how much of a console's end may hold the password, in bytes:
	// the guest may have said more since the last look.
	passwordTail = 1 << 20
)

// readPassword looks on the console of a Windows instance for the administrator's
// password, which EC2's agent in the guest makes at the first boot, encrypts to the
// key pair's public key and prints as <Password>BASE64</Password>. It is looked for
// only where something new was printed, and what was found stays, also when it has
// scrolled away. A guest can print what it likes: it is the owner's own.
func (n *Node) readPassword(i cloud.Instance, m *machine) error {
	if i.Platform != cloud.Windows || i.KeyName == "" {
		return nil
	}
	console, err := n.Hypervisor.Console(n.machineDir(i.ID))
	if err != nil {
		return fmt.Errorf("look for the password: %w", err)
	}
	defer console.Close() // only read
	end, err := console.Seek(0, io.SeekEnd)
	if err != nil || end == m.heardTo {
		return err
	}
	if _, err := console.Seek(max(0, end-passwordTail), io.SeekStart); err != nil {
		return fmt.Errorf("look for the password: %w", err)
	}
	said, err := io.ReadAll(io.LimitReader(console, passwordTail))
	if err != nil {
		return fmt.Errorf("look for the password: %w", err)
	}
	m.heardTo = end
	if found := passwordIn(said); found != "" {
		n.notePassword(m, found)
	}
	return nil
}

// notePassword, and tell the cloud if it is new.
func (n *Node) notePassword(m *machine, found string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if m.password != found {
		m.password = found
		n.touch()
	}
}

// passwordIn what was said: the last one that is whole, as base64 in one line;
// empty if there is none.
func passwordIn(said []byte) string {
	for len(said) > 0 {
		at := bytes.LastIndex(said, []byte("<Password>"))
		if at < 0 {
			return ""
		}
		text, _, whole := bytes.Cut(said[at+len("<Password>"):], []byte("</Password>"))
		text = bytes.Join(bytes.Fields(text), nil)
		raw, err := base64.StdEncoding.DecodeString(string(text))
		if whole && err == nil && len(raw) > 0 && len(raw) <= mostPassword {
			return string(text)
		}
		said = said[:at]
	}
	return ""
}
