package image

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// A guest is given this long for each step: the emulated processor shares a busy host.
const guestPatience = 3 * time.Minute

// forwardVariable, in the environment of this test binary, makes it a pipe to that address.
const forwardVariable = "MALLEE_TEST_FORWARD"

// forward joins standard input and output, which QEMU connects to the guest, with a TCP connection.
func forward(addr string) {
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		os.Exit(1)
	}
	go func() {
		io.Copy(conn, os.Stdin)
		conn.(*net.TCPConn).CloseWrite()
	}()
	io.Copy(os.Stdout, conn)
}

// metadata is as much of the service as the guest asks for.
type metadata struct {
	mu       sync.Mutex
	version2 bool // insist on tokens
	values   map[string]string
}

func (m *metadata) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r.URL.Path == "/latest/api/token" && m.version2 {
		if r.Method != http.MethodPut || r.Header.Get("X-aws-ec2-metadata-token-ttl-seconds") == "" {
			http.Error(w, "a token is had by PUT, with its time to live", http.StatusBadRequest)
			return
		}
		fmt.Fprint(w, "dG9rZW4=")
		return
	}
	if m.version2 && r.Header.Get("X-aws-ec2-metadata-token") != "dG9rZW4=" {
		http.Error(w, "no token", http.StatusUnauthorized)
		return
	}
	value, ok := m.values[strings.TrimPrefix(r.URL.Path, "/latest/")]
	if !ok {
		http.NotFound(w, r)
		return
	}
	io.WriteString(w, value)
}

func (m *metadata) set(name, value string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.values[name] = value
}

// guest is a virtual machine as guests.md's measurements run one.
type guest struct {
	t       *testing.T
	cmd     *exec.Cmd
	ended   chan error
	qmp     *json.Decoder
	conn    net.Conn
	mu      sync.Mutex
	console bytes.Buffer
	changed chan struct{} // closed and replaced when console grows; guarded by mu, as console is
	start   time.Time
}

// startGuest runs QEMU with its network that needs no privilege: DHCP, the service at the metadata
// address (through a process of this binary for each connection), and a port forwarded to SSH.
func startGuest(t *testing.T, service http.Handler, args ...string) *guest {
	t.Helper()
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil && os.Getenv("CI") != "true" {
		t.Skip("no qemu-system-x86_64: apt-get install qemu-system-x86")
	}
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(service)
	t.Cleanup(server.Close)
	socket := filepath.Join(t.TempDir(), "qmp")
	netdev := "user,id=n,net=169.254.0.0/16,hostfwd=tcp:127.0.0.1:0-:22,guestfwd=tcp:169.254.169.254:80-cmd:" + os.Args[0]
	front := []string{"-M", "q35", "-accel", "tcg", "-m", "128", "-smp", "1", "-nodefaults", "-no-user-config", "-display", "none",
		"-serial", "stdio", "-qmp", "unix:" + socket + ",server=on,wait=off",
		"-netdev", netdev, "-device", "virtio-net-pci,netdev=n,mac=d0:0d:00:00:00:01,romfile="}
	g := &guest{t: t, cmd: exec.Command(qemu, append(front, args...)...), ended: make(chan error, 1), changed: make(chan struct{}), start: time.Now()}
	g.cmd.Env = append(os.Environ(), forwardVariable+"="+server.Listener.Addr().String())
	g.cmd.Stdout = g
	g.cmd.Stderr = g
	if err := g.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { g.ended <- g.cmd.Wait() }()
	t.Cleanup(func() {
		g.cmd.Process.Kill()
		if t.Failed() {
			t.Logf("console:\n%s", g.text())
		}
	})
	g.connect(socket)
	return g
}

func (g *guest) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.console.Write(p)
	close(g.changed)
	g.changed = make(chan struct{})
	return len(p), nil
}

func (g *guest) text() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.console.String()
}

// wait returns the submatches of an expression on the console, when it has been there n times.
func (g *guest) wait(expr string, n int) []string {
	g.t.Helper()
	re, timeout := regexp.MustCompile(expr), time.After(guestPatience)
	for {
		g.mu.Lock()
		all, changed := re.FindAllStringSubmatch(g.console.String(), -1), g.changed
		g.mu.Unlock()
		if len(all) >= n {
			return all[n-1]
		}
		select {
		case <-changed:
		case err := <-g.ended:
			g.ended <- err
			g.t.Fatalf("QEMU ended (%v) before the console had %d times %q", err, n, expr)
		case <-timeout:
			g.t.Fatalf("after %v the console has not %d times %q", guestPatience, n, expr)
		}
	}
}

func (g *guest) connect(socket string) {
	g.t.Helper()
	deadline := time.Now().Add(guestPatience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for g.conn == nil {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			g.conn = conn
		} else if time.Now().After(deadline) {
			g.t.Fatalf("connecting to QEMU: %v\n%s", err, g.text())
		}
		<-tick.C
	}
	g.t.Cleanup(func() { g.conn.Close() })
	g.conn.SetDeadline(time.Now().Add(10 * time.Minute))
	g.qmp = json.NewDecoder(bufio.NewReader(g.conn))
	g.execute("qmp_capabilities", nil)
}

// execute runs a QMP command and passes over events.
func (g *guest) execute(command string, arguments any) json.RawMessage {
	g.t.Helper()
	request, _ := json.Marshal(map[string]any{"execute": command, "arguments": arguments})
	if arguments == nil {
		request, _ = json.Marshal(map[string]any{"execute": command})
	}
	if _, err := g.conn.Write(request); err != nil {
		g.t.Fatal(err)
	}
	for {
		var reply struct {
			Return json.RawMessage `json:"return"`
			Error  json.RawMessage `json:"error"`
		}
		if err := g.qmp.Decode(&reply); err != nil {
			g.t.Fatalf("%s: %v", command, err)
		}
		if reply.Error != nil {
			g.t.Fatalf("%s: %s", command, reply.Error)
		}
		if reply.Return != nil {
			return reply.Return
		}
	}
}

// sshAddress asks QEMU which port of the host it forwards.
func (g *guest) sshAddress() string {
	g.t.Helper()
	var text string
	json.Unmarshal(g.execute("human-monitor-command", map[string]string{"command-line": "info usernet"}), &text)
	m := regexp.MustCompile(`TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)`).FindStringSubmatch(text)
	if m == nil {
		g.t.Fatalf("no forwarded port in %q", text)
	}
	return "127.0.0.1:" + m[1]
}

// login connects over SSH to a guest that must have the host key of that fingerprint.
func (g *guest) login(signer ssh.Signer, fingerprint string) *ssh.Client {
	g.t.Helper()
	config := &ssh.ClientConfig{
		User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, Timeout: guestPatience,
		HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			if got := ssh.FingerprintSHA256(key); got != fingerprint {
				return fmt.Errorf("host key %s, the console showed %s", got, fingerprint)
			}
			return nil
		},
	}
	client, err := ssh.Dial("tcp", g.sshAddress(), config)
	if err != nil {
		g.t.Fatalf("logging in: %v", err)
	}
	g.t.Cleanup(func() { client.Close() })
	return client
}

// run executes a command in the guest.
func (g *guest) run(client *ssh.Client, command string) string {
	g.t.Helper()
	session, err := client.NewSession()
	if err != nil {
		g.t.Fatal(err)
	}
	defer session.Close()
	out, err := session.CombinedOutput(command)
	var missing *ssh.ExitMissingError
	if err != nil && !errors.As(err, &missing) { // a guest that goes down says no status
		g.t.Fatalf("%s: %v: %s", command, err, out)
	}
	return string(out)
}

// mustEnd waits for the guest to power itself off.
func (g *guest) mustEnd() {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), guestPatience)
	defer cancel()
	select {
	case err := <-g.ended:
		if err != nil {
			g.t.Errorf("QEMU ended with %v", err)
		}
	case <-ctx.Done():
		g.t.Errorf("the guest did not power off in %v", guestPatience)
	}
}

func newKey(t *testing.T) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func newMetadata(signer ssh.Signer, version2 bool, userData string) *metadata {
	return &metadata{version2: version2, values: map[string]string{
		"meta-data/instance-id":               "i-0a1b2c3d",
		"meta-data/local-ipv4":                "169.254.0.15",
		"meta-data/public-ipv4":               "127.0.0.5",
		"meta-data/local-hostname":            "euca-10-0-0-5.eucalyptus.internal",
		"meta-data/public-keys/":              "0=mykey",
		"meta-data/public-keys/0/openssh-key": strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))),
		"user-data":                           userData,
	}}
}

const (
	readyLine  = `mallee-tiny: ready instance-id=(\S+) local-ipv4=(\S+) public-ipv4=(\S+)\r?\n`
	keyLine    = `-----BEGIN SSH HOST KEY FINGERPRINTS-----\r?\n256 (SHA256:\S+) root@\S+ \(ED25519\)`
	bootedLine = `mallee-tiny: booted\r?\n`
)

// ready waits for the guest's first lines and returns its host key's fingerprint.
func (g *guest) ready() string {
	g.t.Helper()
	g.wait(bootedLine, 1)
	booted := time.Since(g.start)
	line := g.wait(readyLine, 1)
	g.t.Logf("booted after %.1f s, ready after %.1f s", booted.Seconds(), time.Since(g.start).Seconds())
	if line[1] != "i-0a1b2c3d" || line[2] != "169.254.0.15" || line[3] != "127.0.0.5" {
		g.t.Errorf("ready line is %q", line[0])
	}
	return g.wait(keyLine, 1)[1]
}

func (g *guest) expect(client *ssh.Client, commands map[string]string) {
	g.t.Helper()
	for command, want := range commands {
		if got := g.run(client, command); strings.TrimSpace(got) != want {
			g.t.Errorf("%s: %q, want %q", command, got, want)
		}
	}
}

func drive(file, serial string) []string {
	return []string{"-blockdev", "driver=raw,node-name=" + serial + ",file.driver=file,file.filename=" + file,
		"-device", "virtio-blk-pci,drive=" + serial + ",serial=" + serial}
}

func newFile(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(t.TempDir(), name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestParavirtualBoots(t *testing.T) {
	if testing.Short() {
		t.Skip("builds or boots a whole image")
	}
	t.Parallel()
	a, signer := artifacts(t, "tiny-pv"), newKey(t)
	disk := newFile(t, "disk")
	root, err := os.Open(a.Root)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	info, _ := root.Stat()
	if err := Paravirtual(t.Context(), disk, root, info.Size(), 5<<30); err != nil {
		t.Fatal(err)
	}
	service := newMetadata(signer, true, "#!/bin/sh\necho data of $(hostname)\nexit 3\n")
	g := startGuest(t, service, append(drive(disk.Name(), "root"), "-kernel", a.Kernel, "-initrd", a.Ramdisk,
		"-append", ParavirtualArguments+" "+TinyArguments)...)
	fingerprint := g.ready()
	g.wait(`data of euca-10-0-0-5.eucalyptus.internal\r?\n`, 1)
	g.wait(`user data ended with status 3`, 1)
	client := g.login(signer, fingerprint)
	g.expect(client, map[string]string{
		"id -un":                                 "root",
		"grep -c /mnt /proc/self/mounts":         "1",
		"tail -n +2 /proc/swaps | cut -d' ' -f1": "/dev/vda3",
		"stat -c %u%g%a /root /root/.ssh /root/.ssh/authorized_keys /etc/shadow | tr '\\n' ' '":       "00700 00700 00600 00600",
		"interface=lo ip=127.0.0.2 mask=8 mtu=9000 /etc/mallee/dhcp renew; cat /sys/class/net/lo/mtu": "9000",
	})
	g.run(client, "reboot")
	g.wait(bootedLine, 2)
	g.wait(readyLine, 2)
	if again := g.wait(keyLine, 2)[1]; again != fingerprint {
		t.Errorf("host key %s after a reboot, %s before", again, fingerprint)
	}
	if n := strings.Count(g.text(), "user data ended"); n != 1 {
		t.Errorf("user data ran %d times in two boots", n)
	}
	g.execute("system_powerdown", nil)
	g.mustEnd()
}

func TestDiskBoots(t *testing.T) {
	if testing.Short() {
		t.Skip("builds or boots a whole image")
	}
	t.Parallel()
	a, signer := artifacts(t, "tiny"), newKey(t)
	root, second := newFile(t, "root"), newFile(t, "ephemeral")
	source, err := os.Open(a.Disk)
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	if _, err := io.Copy(root, source); err != nil {
		t.Fatal(err)
	}
	if err := Ephemeral(t.Context(), second, 5<<30-64<<20); err != nil {
		t.Fatal(err)
	}
	service := newMetadata(signer, false, "plain")
	g := startGuest(t, service, append(drive(root.Name(), "root"), drive(second.Name(), "ephemeral0")...)...)
	fingerprint := g.ready()
	client := g.login(signer, fingerprint)
	g.expect(client, map[string]string{
		"grep /mnt /proc/self/mounts | cut -d' ' -f1": "/dev/vdb",
		"hostname": "euca-10-0-0-5.eucalyptus.internal",
	})
	// The same disk as another instance, as after making an image of it: its identity is new.
	service.set("meta-data/instance-id", "i-0000beef")
	g.run(client, "reboot")
	if id := g.wait(readyLine, 2)[1]; id != "i-0000beef" {
		t.Errorf("after the reboot the instance is %s", id)
	}
	if again := g.wait(keyLine, 2)[1]; again == fingerprint {
		t.Errorf("two instances have the host key %s", again)
	}
	g.execute("system_powerdown", nil)
	g.wait(`mallee-tiny: shutting down`, 1)
	g.mustEnd()
}

func TestGuestSaysWhatItLacks(t *testing.T) {
	if testing.Short() {
		t.Skip("builds or boots a whole image")
	}
	t.Parallel()
	a := artifacts(t, "tiny-pv")
	g := startGuest(t, http.NotFoundHandler(), "-kernel", a.Kernel, "-initrd", a.Ramdisk, "-append", ParavirtualArguments+" "+TinyArguments)
	g.wait(`no root device '/dev/vda1'`, 1)
	g.mustEnd()
}

// A guest that starts before its network is there says so, and gets what it lacks when it comes.
func TestLateNetwork(t *testing.T) {
	if testing.Short() {
		t.Skip("builds or boots a whole image")
	}
	t.Parallel()
	a := artifacts(t, "tiny-pv")
	disk := newFile(t, "disk")
	if root, err := os.ReadFile(a.Root); err != nil {
		t.Fatal(err)
	} else if _, err := disk.Write(root); err != nil {
		t.Fatal(err)
	}
	g := startGuest(t, newMetadata(newKey(t), true, ""), append(drive(disk.Name(), "root"),
		"-kernel", a.Kernel, "-initrd", a.Ramdisk, "-append", "root=LABEL=tiny ro console=ttyS0 "+TinyArguments)...)
	g.execute("set_link", map[string]any{"name": "n", "up": false})
	g.wait(`mallee-tiny: no DHCP lease on eth0 yet; still trying`, 1)
	g.execute("set_link", map[string]any{"name": "n", "up": true})
	g.wait(readyLine, 1)
	g.execute("system_powerdown", nil)
	g.mustEnd()
}
