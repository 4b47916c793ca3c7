package user

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
)

// EndpointsFile, in a machine's folder, says to whoever looks for the machine
// from the host where its ports are reached: a list of Endpoints in JSON, on one
// line. It is there for as long as somebody listens.
const EndpointsFile = "ports.json"

// Endpoint is one way in from the host: what arrives at Listen reaches the
// guest's Port.
type Endpoint struct {
	Port   uint16         `json:"port"`
	Listen netip.AddrPort `json:"listen"`
	Proto  string         `json:"protocol,omitempty"` // udp; TCP if empty
}

// moved says whether the guest's port is reached by another number.
func (e Endpoint) moved() bool { return e.Port != e.Listen.Port() }

// writeEndpoints for readers that find all of them or none. It isn't made
// durable: a program that starts after a loss of power writes it anew, and a
// launch needn't wait for the disk.
func writeEndpoints(dir string, endpoints []Endpoint) error {
	text, err := json.Marshal(endpoints)
	if err != nil {
		return fmt.Errorf("say where ports are reached: %w", err)
	}
	path := filepath.Join(dir, EndpointsFile)
	if err = os.WriteFile(path+".new", append(text, '\n'), 0o600); err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		os.Remove(path + ".new")
		return fmt.Errorf("say where ports are reached: %w", err)
	}
	return nil
}

// removeEndpoints when nobody listens any more. Where it can't be removed the
// folder, which goes after it, can't be either, and says why.
func removeEndpoints(dir string) { os.Remove(filepath.Join(dir, EndpointsFile)) }
