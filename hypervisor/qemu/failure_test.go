package qemu

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mallee/hypervisor"
)

func observe(t *testing.T, h *Hypervisor, dir string) hypervisor.Status {
	t.Helper()
	status, err := h.Observe(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return status
}

// killLater leaves nothing when the test is over.
func killLater(t testing.TB, dir string) {
	t.Cleanup(func() {
		h, err := Open(Options{Accel: testAccel, Logger: discard})
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		if err := h.Kill(context.Background(), dir); err != nil {
			t.Error(err)
		}
	})
}

// TestStartFails says what QEMU, or what is there in its place, said.
func TestStartFails(t *testing.T) {
	for _, test := range []struct{ name, script, want string }{
		{"dies at once", "echo first >&2; echo 'qemu: no such machine' >&2; exit 1", "(exit status 1) before it answered: qemu: no such machine"},
		{"dies silently", "exit 1", "says nothing in"},
		{"is killed", "kill -9 $$", "(signal: killed)"},
		{"talks nonsense", "echo nonsense is told elsewhere; exec sleep 600 >&3", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := sectorMachine(t, nil)
			killLater(t, m.Dir)
			h, err := Open(Options{Binary: fakeQEMU(t, test.script), Accel: testAccel, Logger: discard})
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			err = h.Start(ctx, m)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Start: %v, want %q in it", err, test.want)
			}
			if s := observe(t, h, m.Dir); s != hypervisor.Absent {
				t.Errorf("afterwards it is %s", s)
			}
		})
	}
}

func TestStartNamesTheDisk(t *testing.T) {
	needsQEMU(t)
	h := openTest(t)
	defer h.Close()
	m := sectorMachine(t, nil)
	m.Disks[0].Attachment.Path += ".gone"
	err := h.Start(t.Context(), m)
	if err == nil || !strings.Contains(err.Error(), m.Disks[0].Attachment.Path) {
		t.Errorf("Start: %v, want the disk that is gone", err)
	}
}

func TestStartWithoutQEMU(t *testing.T) {
	h, err := Open(Options{Binary: "no-such-qemu", Accel: testAccel, Logger: discard})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	m := sectorMachine(t, nil)
	if err := h.Start(t.Context(), m); err == nil || !strings.Contains(err.Error(), "apt-get install qemu-system-x86") {
		t.Errorf("Start: %v, want the package to install", err)
	}
	entries, err := os.ReadDir(m.Dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("in the folder: %v, %v, want the disk alone", entries, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	if _, err := Open(Options{Accel: "hax"}); err == nil {
		t.Errorf("an unknown acceleration is taken")
	}
}

// TestPidReuse has the pid file name a process that isn't QEMU: this one.
func TestPidReuse(t *testing.T) {
	for name, locked := range map[string]bool{"stale": false, "stale and locked by a stranger": true} {
		t.Run(name, func(t *testing.T) {
			h := openTest(t)
			defer h.Close()
			dir := t.TempDir()
			pid := filepath.Join(dir, pidName)
			if err := os.WriteFile(pid, []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
				t.Fatal(err)
			}
			lock, err := os.Create(filepath.Join(dir, lockName))
			if err != nil {
				t.Fatal(err)
			}
			defer lock.Close()
			want := hypervisor.Absent
			if locked {
				if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
					t.Fatal(err)
				}
				want = hypervisor.Running // there is one, only not the one in the file
			}
			if s := observe(t, h, dir); s != want {
				t.Errorf("Observe = %s, want %s", s, want)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if err := h.Kill(ctx, dir); (err != nil) != locked {
				t.Errorf("Kill: %v, want an error: %t", err, locked)
			}
		}) // and this process lives
	}
}

func TestGarbageFolders(t *testing.T) {
	h := openTest(t)
	defer h.Close()
	for name, make := range map[string]func(dir string) error{
		"empty": func(string) error { return nil },
		"garbage in every file": func(dir string) error {
			for _, file := range []string{lockName, pidName, qmpName, serialName, logName} {
				if err := os.WriteFile(filepath.Join(dir, file), []byte("\x00garbage\n-1"), 0o600); err != nil {
					return err
				}
			}
			return nil
		},
		"folders for files": func(dir string) error {
			for _, file := range []string{pidName, qmpName} {
				if err := os.Mkdir(filepath.Join(dir, file), 0o700); err != nil {
					return err
				}
			}
			return nil
		},
		"a file for the folder": func(dir string) error {
			if err := os.Remove(dir); err != nil {
				return err
			}
			return os.WriteFile(dir, nil, 0o600)
		},
	} {
		dir := filepath.Join(t.TempDir(), "machine")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := make(dir); err != nil {
			t.Fatal(err)
		}
		if s := observe(t, h, dir); s != hypervisor.Absent {
			t.Errorf("%s: %s, want absent", name, s)
		}
		if err := h.Kill(t.Context(), dir); err != nil {
			t.Errorf("%s: Kill: %v", name, err)
		}
	}
}

const startForParent = "MALLEE_TEST_START" // the machine that a child of TestOutlivesAKilledProgram starts

// TestOutlivesAKilledProgram starts a machine from a program that is killed.
func TestOutlivesAKilledProgram(t *testing.T) {
	needsQEMU(t)
	if text := os.Getenv(startForParent); text != "" {
		startAndWait(t, text)
		return
	}
	for _, end := range []unix.Signal{unix.SIGKILL, unix.SIGTERM, unix.SIGINT, unix.SIGHUP} {
		t.Run(end.String(), func(t *testing.T) {
			if signal.Ignored(end) { // by nohup, say, and so by our children
				t.Skipf("whoever runs the tests has them ignore %s", end)
			}
			m := sectorMachine(t, printSector("hello\n", halts))
			killLater(t, m.Dir)
			startInChild(t, m, end)

			h := openTest(t)
			defer h.Close()
			if s := observe(t, h, m.Dir); s != hypervisor.Running {
				t.Fatalf("Observe = %s, want running", s)
			}
			pid := h.machines[m.Dir].process.pid
			if session, err := unix.Getsid(pid); err != nil || session != pid {
				t.Errorf("QEMU %d is in session %d (%v), want its own", pid, session, err)
			}
			if err := h.Kill(t.Context(), m.Dir); err != nil {
				t.Error(err)
			}
			if s := observe(t, h, m.Dir); s != hypervisor.Absent {
				t.Errorf("Observe = %s after Kill, want absent", s)
			}
		})
	}
}

// startInChild has another program start the machine, and ends that program.
func startInChild(t *testing.T, m hypervisor.Machine, end unix.Signal) {
	t.Helper()
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestOutlivesAKilledProgram$")
	child.Env = append(os.Environ(), startForParent+"="+string(text))
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	said := bufio.NewScanner(out)
	for said.Scan() && said.Text() != "started" {
		t.Log(said.Text())
	}
	if err := child.Process.Signal(end); err != nil {
		t.Fatal(err)
	}
	if err := child.Wait(); err == nil {
		t.Errorf("the program ended by itself")
	}
}

func startAndWait(t *testing.T, text string) {
	var m hypervisor.Machine
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatal(err)
	}
	h := openTest(t)
	if err := h.Start(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	fmt.Println("started")
	<-t.Context().Done() // the parent ends us
}

// TestKillsWhatDoesNotAnswer stops QEMU, so that it neither answers nor heeds
// a signal that can be caught.
func TestKillsWhatDoesNotAnswer(t *testing.T) {
	if testing.Short() {
		t.Skip("takes many seconds of real guests")
	}
	needsQEMU(t)
	t.Parallel()
	h := openTest(t)
	defer h.Close()
	m := sectorMachine(t, printSector("hello\n", halts))
	killLater(t, m.Dir)
	if err := h.Start(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if err := h.machines[m.Dir].process.signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if s := observe(t, h, m.Dir); s != hypervisor.Running {
		t.Errorf("a machine that does not answer is %s, want running", s)
	}
	if err := h.Kill(t.Context(), m.Dir); err != nil {
		t.Error(err)
	}
	if s := observe(t, h, m.Dir); s != hypervisor.Absent {
		t.Errorf("Observe = %s after Kill, want absent", s)
	}
}

// TestCrashPokes ends QEMU from outside.
func TestCrashPokes(t *testing.T) {
	needsQEMU(t)
	h := openTest(t)
	defer h.Close()
	m := sectorMachine(t, printSector("hello\n", halts))
	killLater(t, m.Dir)
	if err := h.Start(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	process := h.machines[m.Dir].process
	if err := process.signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case <-h.Changes():
	case <-time.After(30 * time.Second):
		t.Fatal("no poke")
	}
	if s := observe(t, h, m.Dir); s != hypervisor.Absent {
		t.Errorf("Observe = %s, want absent", s)
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", process.pid)); err == nil {
		t.Errorf("QEMU %d is still there: not reaped", process.pid)
	}
}

// TestTalksAgain loses the conversation, not the machine.
func TestTalksAgain(t *testing.T) {
	needsQEMU(t)
	h := openTest(t)
	defer h.Close()
	m := sectorMachine(t, printSector("hello\n", powersOff))
	killLater(t, m.Dir)
	if err := h.Start(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	h.machines[m.Dir].monitor.close()
	deadline := time.Now().Add(30 * time.Second)
	for observe(t, h, m.Dir) != hypervisor.Exited {
		if time.Now().After(deadline) {
			t.Fatal("the machine never is Exited")
		}
	}
}

// TestModes looks for what others could read.
func TestModes(t *testing.T) {
	needsQEMU(t)
	h := openTest(t)
	defer h.Close()
	m := sectorMachine(t, printSector("hello\n", halts))
	killLater(t, m.Dir)
	if err := h.Start(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{lockName, pidName, consoleName, logName} {
		if info, err := os.Stat(filepath.Join(m.Dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v, want mode 0600", name, info, err)
		}
	}
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", h.machines[m.Dir].process.pid))
	if err != nil || bytes.Contains(environ, []byte("AWS_")) {
		t.Errorf("QEMU's environment: %q, %v", environ, err)
	}
}

// TestSerialConsole talks to the guest's serial port, and looks where a guest's
// machine can be reached.
func TestSerialConsole(t *testing.T) {
	needsQEMU(t)
	h := openTest(t)
	defer h.Close()
	m := sectorMachine(t, printSector("hello\n", halts))
	killLater(t, m.Dir)
	if err := h.Start(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	dir, err := openFolder(m.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	var conn net.Conn
	if conn, err = dir.dial(t.Context(), serialName); err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := h.Reset(t.Context(), m.Dir); err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || line != "hello\n" {
		t.Errorf("the serial console says %q, %v", line, err)
	}
}

// TestResetWhileBooting resets at moments all over the firmware's first
// milliseconds, in which it is not whole.
func TestResetWhileBooting(t *testing.T) {
	if testing.Short() {
		t.Skip("takes many seconds of real guests")
	}
	needsQEMU(t)
	h := openTest(t)
	defer h.Close()
	m := sectorMachine(t, printSector("hello\n", halts))
	killLater(t, m.Dir)
	for i := range 12 {
		if err := h.Start(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		for range 3 * i { // some 0.2 ms each
			observe(t, h, m.Dir)
		}
		if err := h.Reset(t.Context(), m.Dir); err != nil {
			t.Fatal(err)
		}
		waitConsole(t, h, m.Dir, strings.Repeat("hello\n", i+1))
		if err := h.Kill(t.Context(), m.Dir); err != nil {
			t.Fatal(err)
		}
	}
}

// TestResetHalfDone finds a guest as a program leaves it that dies in the
// middle of a reset.
func TestResetHalfDone(t *testing.T) {
	if testing.Short() {
		t.Skip("takes many seconds of real guests")
	}
	needsQEMU(t)
	for name, half := range map[string][]string{
		"stopped": {"stop"}, "reset": {"stop", "system_reset"},
	} {
		t.Run(name, func(t *testing.T) {
			h := openTest(t)
			defer h.Close()
			m := sectorMachine(t, printSector("hello\n", halts))
			killLater(t, m.Dir)
			if err := h.Start(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			waitConsole(t, h, m.Dir, "hello\n")
			for _, name := range half {
				if err := h.machines[m.Dir].execute(t.Context(), command{Name: name}, nil); err != nil {
					t.Fatal(err)
				}
			}
			if s := observe(t, h, m.Dir); s != hypervisor.Running {
				t.Errorf("Observe = %s, want running", s)
			}
			waitConsole(t, h, m.Dir, "hello\nhello\n")
		})
	}
}
