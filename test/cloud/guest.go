package cloud

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/crypto/ssh"
)

// Ports at which a guest's SSH may be reached at its public address: its own,
// or where that is moved to on hosts that don't let us have it.
var Ports = []string{"22", "10022"}

// Guest is a login.
type Guest struct {
	*ssh.Client
	Port    string        // at which it was found
	HostKey ssh.PublicKey // that it showed
}

// loginTime is how long one attempt may take: guests are emulated.
const loginTime = 20 * time.Second

// Login once as root, by the private key in PEM.
func Login(ctx context.Context, address, key string) (*Guest, error) {
	return LoginAs(ctx, "root", address, key)
}

// LoginAs some user, once.
func LoginAs(ctx context.Context, user, address, key string) (*Guest, error) {
	signer, err := ssh.ParsePrivateKey([]byte(key))
	if err != nil {
		return nil, Never(fmt.Errorf("the private key can't be read: %w", err))
	}
	var errs []error
	for _, port := range Ports {
		g, err := login(ctx, user, net.JoinHostPort(address, port), signer)
		if err == nil {
			g.Port = port
			return g, nil
		}
		errs = append(errs, fmt.Errorf("port %s: %w", port, err))
	}
	return nil, errors.Join(errs...)
}

func login(ctx context.Context, user, to string, signer ssh.Signer) (*Guest, error) {
	conn, err := (&net.Dialer{Timeout: loginTime}).DialContext(ctx, "tcp", to)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(loginTime))
	g := &Guest{}
	c, channels, requests, err := ssh.NewClientConn(conn, to, &ssh.ClientConfig{
		User: user,
		Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			g.HostKey = key
			return nil
		},
	})
	if err != nil {
		conn.Close()
		return nil, err
	}
	conn.SetDeadline(time.Time{})
	g.Client = ssh.NewClient(c, channels, requests)
	return g, nil
}

// Run a command and return what it wrote to its standard output.
func (g *Guest) Run(ctx context.Context, command string) (string, error) {
	s, err := g.NewSession()
	if err != nil {
		return "", fmt.Errorf("in the guest, %s: %w", command, err)
	}
	defer s.Close()
	defer context.AfterFunc(ctx, func() { g.Close() })()
	var out, said bytes.Buffer
	s.Stdout, s.Stderr = &out, &said
	if err := s.Run(command); err != nil {
		return out.String(), fmt.Errorf("in the guest, %s: %w: %s%s", command, err, out.String(), said.String())
	}
	return out.String(), nil
}
