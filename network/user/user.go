package user

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"

	"mallee/network"
)

// User is a network.Network in this process.
type User struct {
	opts Options
	web  *web
	law  *law // the groups' rules

	mu     sync.Mutex // guards what follows; held while ports are made and removed, never by frames
	closed bool
	lans   map[string]*lan  // by Port.Network; each has a port
	ports  map[string]*port // by Port.ID

	governed map[string]map[*port]struct{} // by the group's id
}

var _ network.Network = (*User)(nil)

// New network, without ports. An error names the option that can't be.
func New(opts Options) (*User, error) {
	opts = opts.withDefaults()
	if p := opts.Prefix; !p.Addr().Is4() || p.Bits() < 8 || p.Bits() > 28 {
		return nil, fmt.Errorf("subnet %s: want IPv4 with a mask of 8 to 28 bits", p)
	}
	if opts.MTU < minMTU || opts.MTU > MaxMTU {
		return nil, fmt.Errorf("MTU %d: want %d to %d bytes", opts.MTU, minMTU, MaxMTU)
	}
	return &User{
		opts: opts, web: newWeb(opts.Metadata), law: newLaw(),
		lans: map[string]*lan{}, ports: map[string]*port{}, governed: map[string]map[*port]struct{}{},
	}, nil
}

// Ensure implements network.Network.
func (u *User) Ensure(_ context.Context, want network.Port) (network.Attachment, error) {
	at := network.Attachment{Machine: machineSocket, Switch: switchSocket, MTU: u.opts.MTU}
	u.mu.Lock()
	defer u.mu.Unlock()
	have := u.ports[want.ID]
	if have != nil && have.Equal(want) {
		return at, nil
	}
	m, err := u.check(want)
	switch {
	case err != nil:
	case have != nil && have.sameLink(want):
		err = u.adjust(have, want)
	default:
		err = u.replace(want, m)
	}
	if err != nil {
		return network.Attachment{}, fmt.Errorf("ensure the port of %q: %w", want.ID, err)
	}
	return at, nil
}

// sameLink says whether a wish leaves the guest's cable as it is.
func (p *port) sameLink(want network.Port) bool {
	want.Public, want.Groups = p.Public, p.Groups
	return p.Equal(want)
}

// adjust a running port. The caller holds mu.
func (u *User) adjust(p *port, want network.Port) error {
	if want.Public != p.Public {
		if err := p.republish(want.Public); err != nil {
			return err
		}
	}
	u.govern(p, want.Groups)
	p.recheck()
	return nil
}

// replace a port of another shape, if there is one. The caller holds mu.
func (u *User) replace(want network.Port, m mac) error {
	if err := u.removeLocked(want.ID); err != nil {
		return err
	}
	return u.open(want, m)
}

// open a port that was checked. The caller holds mu.
func (u *User) open(want network.Port, m mac) error {
	l := u.lans[want.Network]
	if l == nil {
		var err error
		if l, err = newLAN(u, want.Network); err != nil {
			return err
		}
	}
	p, err := openPort(l, want, m)
	if err != nil {
		if u.lans[want.Network] == nil {
			l.stack.close()
		}
		return err
	}
	u.lans[want.Network], u.ports[want.ID] = l, p
	u.govern(p, want.Groups)
	l.add(p)
	p.start()
	return nil
}

// check what is wished against the subnet and the other ports. The caller
// holds mu.
func (u *User) check(want network.Port) (mac, error) {
	if u.closed {
		return mac{}, errors.New("the network is closed")
	}
	m, err := parseMAC(want.MAC)
	switch {
	case err != nil:
		return mac{}, err
	case want.ID == "" || want.Name == "":
		return mac{}, errors.New("a port needs an id and a name")
	case !filepath.IsAbs(want.Dir):
		return mac{}, fmt.Errorf("folder %q is not an absolute path", want.Dir)
	case !u.assignable(want.Local):
		return mac{}, fmt.Errorf("address %s is not for instances of %s", want.Local, u.opts.Prefix)
	case want.Public.IsValid() && (!want.Public.Is4() || !want.Public.IsLoopback() || want.Public == probeAddr):
		return mac{}, fmt.Errorf("public address %s is not a loopback address 127.x.y.z", want.Public)
	}
	for _, p := range u.ports {
		if err := conflict(p, want, m); err != nil {
			return mac{}, err
		}
	}
	return m, nil
}

// conflict of a wish with another port.
func conflict(p *port, want network.Port, m mac) error {
	neighbours := p.Network == want.Network
	switch {
	case p.ID == want.ID:
		return nil
	case neighbours && p.Local == want.Local:
		return fmt.Errorf("address %s is in use by %s", want.Local, p.ID)
	case neighbours && p.mac == m:
		return fmt.Errorf("MAC address %s is in use by %s", want.MAC, p.ID)
	case want.Public.IsValid() && p.Public == want.Public:
		return fmt.Errorf("public address %s is in use by %s", want.Public, p.ID)
	case p.Dir == want.Dir:
		return fmt.Errorf("folder %s is in use by %s", want.Dir, p.ID)
	}
	return nil
}

// assignable says whether an instance may have the address: as in EC2, not the
// first four of the subnet and not its last.
func (u *User) assignable(a netip.Addr) bool {
	p := u.opts.Prefix
	reserved := p.Addr()
	for range 4 {
		if a == reserved {
			return false
		}
		reserved = reserved.Next()
	}
	return p.Contains(a) && p.Contains(a.Next())
}

// Remove implements network.Network.
func (u *User) Remove(_ context.Context, id string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.removeLocked(id); err != nil {
		return fmt.Errorf("remove the port of %q: %w", id, err)
	}
	return nil
}

// removeLocked gives back the port, and its lan with the last. The caller
// holds mu.
func (u *User) removeLocked(id string) error {
	p := u.ports[id]
	if p == nil {
		return nil
	}
	delete(u.ports, id)
	last := p.lan.remove(p)
	u.govern(p, nil)
	err := p.close()
	if last {
		delete(u.lans, p.Network)
		p.lan.stack.close()
	}
	return err
}

// List implements network.Network.
func (u *User) List() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Sorted(maps.Keys(u.ports))
}

// Endpoints says where the host reaches the port, TCP first, by the guest's port number;
// none if it has no public address or isn't there.
func (u *User) Endpoints(id string) []Endpoint {
	u.mu.Lock()
	defer u.mu.Unlock()
	p := u.ports[id]
	if p == nil {
		return nil
	}
	return slices.SortedFunc(slices.Values(p.public.endpoints), func(a, b Endpoint) int {
		return cmp.Or(cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Port, b.Port))
	})
}

// Close implements network.Network.
func (u *User) Close() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.closed = true
	var errs []error
	for _, id := range slices.Sorted(maps.Keys(u.ports)) {
		errs = append(errs, u.removeLocked(id))
	}
	return errors.Join(append(errs, u.web.server.Close())...)
}
