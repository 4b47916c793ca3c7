package node

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mallee/cloud"
)

// running is a rig whose one instance is up; reboot asks for the nth reboot.
func running(t *testing.T) (r *rig, reboot func(n int)) {
	r = newRig(t)
	r.boots = stubborn
	r.assign(instance(1))
	r.lasts()
	r.order()
	return r, func(n int) {
		i := instance(1)
		i.Reboots = n
		r.assign(i)
	}
}

// effects are those since the last call that change a machine.
func (r *rig) effects() string { return r.order("observe", "make port") }

func (r *rig) wantEffects(when, want string) {
	r.Helper()
	r.wantPhase(cloud.PhaseUp)
	if got := r.effects(); got != want {
		r.Errorf("%s: %q, want %q", when, got, want)
	}
}

func TestRebootOfAGuestThatObeys(t *testing.T) {
	r, reboot := running(t)
	reboot(1)
	r.wantEffects("asked", "power down")
	r.wantEffects("while it shuts down", "")
	r.world.PowerOff(r.machineDir("i-00000001"))
	r.wantEffects("when it has", "reset")
	r.wantEffects("after", "")
	r.now = r.now.Add(time.Hour)
	r.wantEffects("long after", "")
	reboot(2)
	r.wantEffects("asked again", "power down")
}

func TestRebootOfAGuestThatIgnoresIt(t *testing.T) {
	r, reboot := running(t)
	reboot(1)
	r.wantEffects("asked", "power down")
	r.now = r.now.Add(askEvery - time.Second)
	r.wantEffects("soon after", "")
	r.now = r.now.Add(time.Second)
	r.wantEffects("it may not have heard", "power down")
	r.now = r.now.Add(powerDownGrace - askEvery - time.Second)
	r.wantEffects("a second before its time is over", "power down")
	reboot(2) // is made with the first
	r.wantEffects("another reboot", "")
	r.now = r.now.Add(time.Second)
	r.wantEffects("its time is over", "reset")
	r.now = r.now.Add(time.Hour)
	r.wantEffects("later", "")
}

func TestRebootThatCannotBeAsked(t *testing.T) {
	r, reboot := running(t)
	reboot(1)
	r.fail["power down"] = errors.New("no answer")
	r.wantEffects("asked", "power down")
	r.fail["power down"] = nil
	r.wantEffects("asked again", "power down")
	r.wantEffects("then waited for", "")
}

// That the reset was made can't be written down: the guest must not pay for it
// with a second one.
func TestRebootIsNotMadeTwice(t *testing.T) {
	r, reboot := running(t)
	reboot(1)
	r.wantEffects("asked", "power down")
	r.world.PowerOff(r.machineDir("i-00000001"))
	block := r.memoPath("i-00000001") + ".new"
	if err := os.MkdirAll(filepath.Join(block, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	r.wantEffects("reset", "reset")
	if m := r.first(); !strings.Contains(m.Reason.Message, "remember the machine") {
		t.Errorf("reason %+v", m.Reason)
	}
	r.now = r.now.Add(time.Hour)
	r.wantEffects("later", "")
	if err := os.RemoveAll(block); err != nil {
		t.Fatal(err)
	}
	r.wantEffects("when it can be written", "")
	r.open()
	r.wantEffects("in the next program", "")
}

// A machine that is started needs no reboot that was asked for before.
func TestStartIsAReboot(t *testing.T) {
	r, reboot := running(t)
	reboot(1)
	r.wantEffects("asked", "power down")
	r.world.Crash(r.machineDir("i-00000001"))
	r.wantEffects("it crashes instead", "make disk, start")
	r.now = r.now.Add(time.Hour)
	r.wantEffects("later", "")
}

// A program that dies while a guest shuts down leaves the reboot to the next.
func TestRebootOverARestart(t *testing.T) {
	r, reboot := running(t)
	reboot(1)
	r.wantEffects("asked", "power down")
	r.world.PowerOff(r.machineDir("i-00000001"))
	r.open()
	r.wantEffects("in the next program", "reset")
	r.wantEffects("after", "")
}
