package euca

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"mallee/cloud"
)

// sshCommand logs in to an instance by the system's own ssh.
func sshCommand() *cobra.Command {
	c := command{
		name: "ssh", short: "Log in to an instance by SSH, or run a command in it",
		takes: "INSTANCE [COMMAND...]",
		options: []option{
			text("i,identity", "FILE", "private key of the instance's key pair (default ssh's own)"),
			text("l,login", "NAME", "user in the instance (default root)"),
		},
		run: login,
	}
	cmd := c.cobra()
	cmd.Use, cmd.Hidden, cmd.Version = "ssh INSTANCE [-- COMMAND...]", false, ""
	return cmd
}

// login becomes ssh, whose status is the program's.
func login(s *session) error {
	binary, err := exec.LookPath("ssh")
	if err != nil {
		return errors.New("ssh is not on this machine (on Debian: apt-get install openssh-client)")
	}
	path, err := s.flags.GetString("data")
	if err != nil {
		return err
	}
	folder, err := OpenFolder(path)
	if err != nil {
		return err
	}
	id, ok := cloud.ParseID(s.args[0], cloud.PrefixInstance)
	if !ok {
		return fmt.Errorf("%q is no instance's id: i-0123abcd, say", s.args[0])
	}
	at, err := reachedAt(s, folder, id)
	if err != nil {
		return err
	}
	known, sure, err := knownHost(s, folder, id)
	if err != nil {
		return err
	}
	args := append(sshOptions(id, at, known, sure), s.sshUser(at)...)
	return syscall.Exec(binary, append(append([]string{"ssh"}, args...), s.args[1:]...), os.Environ())
}

// sshUser is as whom and with which key.
func (s *session) sshUser(at netip.AddrPort) (args []string) {
	if file := s.text("identity"); file != "" {
		args = append(args, "-i", file, "-o", "IdentitiesOnly=yes")
	}
	return append(args, "--", cmp.Or(s.text("login"), "root")+"@"+at.Addr().String())
}

// sshOptions go by the instance's id and not by its address, which the next
// instance may have. Where its console has told its keys, no other is taken.
func sshOptions(id string, at netip.AddrPort, known string, sure bool) []string {
	strict := "accept-new"
	if sure {
		strict = "yes"
	}
	return []string{
		"-p", fmt.Sprint(at.Port()), "-o", "HostKeyAlias=" + id, "-o", "CheckHostIP=no",
		"-o", `UserKnownHostsFile="` + known + `"`, "-o", "GlobalKnownHostsFile=/dev/null", "-o", "StrictHostKeyChecking=" + strict,
	}
}

// reachedAt finds the instance's SSH: at its public address, and where this
// machine runs it, at the port to which it was moved.
func reachedAt(s *session, folder Folder, id string) (netip.AddrPort, error) {
	s.params = url.Values{"InstanceId.1": {id}}
	reply, err := s.call("DescribeInstances")
	if err != nil {
		return netip.AddrPort{}, err
	}
	for r := range reply.each("reservationSet") {
		for i := range r.each("instancesSet") {
			at := cmp.Or(i.get("ipAddress"), i.get("privateIpAddress"))
			address, err := netip.ParseAddr(at)
			if err != nil {
				return netip.AddrPort{}, fmt.Errorf("the instance %s is %s and has no address", id, i.get("instanceState/name"))
			}
			return movedTo(folder, i.get("instanceId"), netip.AddrPortFrom(address, 22)), nil
		}
	}
	return netip.AddrPort{}, fmt.Errorf("the cloud knows no instance %s", id)
}

// movedTo is where a port is reached, by what the instance's machine says if it
// is on this host.
func movedTo(folder Folder, id string, at netip.AddrPort) netip.AddrPort {
	var ports []struct {
		Port   uint16
		Listen netip.AddrPort
	}
	dir, err := machineFolder(folder, id)
	if err != nil {
		return at
	}
	text, err := os.ReadFile(filepath.Join(dir, "ports.json"))
	if err != nil || json.Unmarshal(text, &ports) != nil {
		return at // another host's, or not reached yet, which ssh will say
	}
	for _, p := range ports {
		if p.Port == at.Port() && p.Listen.Addr() == at.Addr() {
			return p.Listen
		}
	}
	return at
}

// machineFolder of an instance on this machine.
func machineFolder(folder Folder, id string) (string, error) {
	name, ok := cloud.ParseID(id, cloud.PrefixInstance)
	if !ok {
		return "", fmt.Errorf("%q is no instance's id: i-0123abcd, say", id)
	}
	return folder.Path("node", "machines", name), nil
}

// knownHost is a file with what is known of the instance's host keys; sure says
// that they are all that are to be trusted. A guest shows them on its console,
// where only its cloud can read: that is learned once, before the console has
// scrolled away.
func knownHost(s *session, folder Folder, id string) (path string, sure bool, err error) {
	path = folder.Path("known_hosts", id)
	if info, err := os.Stat(path); err == nil && info.Size() > 0 {
		return path, true, nil
	}
	s.params = url.Values{"InstanceId": {id}}
	reply, err := s.call("GetConsoleOutput")
	if err != nil {
		return "", false, err
	}
	console, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(reply.get("output")), ""))
	if err != nil {
		return "", false, fmt.Errorf("the console's output is not base64: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", false, err
	}
	lines := hostKeys(id, string(console))
	if len(lines) == 0 {
		return path, false, nil // ssh takes the first it sees, and writes it there
	}
	err = os.WriteFile(path, []byte(strings.Join(lines, "")), 0o600)
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("keep the instance's host keys: %w", err)
	}
	return path, true, err
}

// hostKeys that a console shows, each as a line of a known_hosts file.
func hostKeys(id, console string) (lines []string) {
	for line := range strings.Lines(console) {
		at := strings.Index(line, "ssh-")
		if ec := strings.Index(line, "ecdsa-sha2-"); at < 0 || ec >= 0 && ec < at {
			at = ec
		}
		if at < 0 {
			continue
		}
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(strings.TrimSpace(line[at:])))
		if err == nil {
			lines = append(lines, id+" "+string(ssh.MarshalAuthorizedKey(key)))
		}
	}
	return lines
}
