package cloud

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestParseID(t *testing.T) {
	for _, c := range []struct {
		in, prefixes, want string
	}{
		{"i-0123abcd", "i", "i-0123abcd"},
		{"i-0123ABCD", "i", "i-0123abcd"},
		{"I-0123abcd", "i", "i-0123abcd"},
		{"i-0123456789abcdef0", "i", "i-0123456789abcdef0"},
		{"emi-0123abcd", "emi eki eri", "emi-0123abcd"},
		{"ami-0123abcd", "emi", "emi-0123abcd"},
		{"aki-0123abcd", "emi eki", "eki-0123abcd"},
		{"ari-0123abcd", "eri", "eri-0123abcd"},
		{"ami-0123abcd", "eki", ""},
		{"r-0123abcd", "i", ""},
		{"i-0123abc", "i", ""},
		{"i-0123abcde", "i", ""},
		{"i-0123abcg", "i", ""},
		{"i-0123abcd\n", "i", ""},
		{" i-0123abcd", "i", ""},
		{"i-", "i", ""},
		{"0123abcd", "i", ""},
		{"-0123abcd", "", ""},
		{"", "i", ""},
		{"i-../../etc", "i", ""},
	} {
		got, ok := ParseID(c.in, strings.Fields(c.prefixes)...)
		if got != c.want || ok != (c.want != "") {
			t.Errorf("%q of %s: %q, %t, want %q", c.in, c.prefixes, got, ok, c.want)
		}
	}
}

func FuzzParseID(f *testing.F) {
	f.Add("i-0123ABCD")
	f.Add("ami-0123456789abcdef0")
	f.Fuzz(func(t *testing.T, s string) {
		id, ok := ParseID(s, PrefixInstance, PrefixMachineImage)
		if again, still := ParseID(id, PrefixInstance, PrefixMachineImage); ok && (!still || again != id) {
			t.Errorf("%q is %q, which is %q", s, id, again)
		}
	})
}

func TestNewID(t *testing.T) {
	id, err := NewID(strings.NewReader("\x01\x23\xab\xcd"), PrefixInstance)
	if err != nil || id != "i-0123abcd" {
		t.Errorf("%s, %v", id, err)
	}
	if _, err := NewID(strings.NewReader("\x01"), PrefixInstance); err == nil {
		t.Error("an id of too little randomness")
	}
}

// The table in the comment of State, whole.
func TestState(t *testing.T) {
	phases := []Phase{"", PhasePreparing, PhaseUp, PhaseExited, PhaseFailed, PhaseGone}
	for _, c := range []struct {
		wish         Wish
		upSince      bool // seen up since the wish
		gone, others InstanceState
	}{
		{WishRunning, false, Pending, Pending},
		{WishRunning, true, Running, Running},
		{WishStopped, false, Stopped, Stopping},
		{WishStopped, true, Stopped, Stopping},
		{WishTerminated, false, Terminated, ShuttingDown},
		{WishTerminated, true, Terminated, ShuttingDown},
	} {
		for _, phase := range phases {
			i, seen := Instance{Wish: c.wish, Wishes: 3}, Observation{Phase: phase, UpWish: 1}
			if c.upSince {
				seen.UpWish = 3
			}
			want := c.others
			if phase == PhaseGone {
				want = c.gone
			}
			if got := i.State(seen); got != want {
				t.Errorf("wish %s, phase %q, up since %t: %s, want %s", c.wish, phase, c.upSince, got, want)
			}
		}
	}
}

func TestStateCodes(t *testing.T) {
	for state, code := range map[InstanceState]int{Pending: 0, Running: 16, ShuttingDown: 32, Terminated: 48, Stopping: 64, Stopped: 80} {
		if got := state.Code(); got != code {
			t.Errorf("%s: %d, want %d", state, got, code)
		}
	}
}

func TestWant(t *testing.T) {
	now, why := time.Unix(1, 0), Reason{Code: ReasonUserTerminated}
	i := Instance{Wish: WishRunning, Wishes: 1}
	if got := i.Want(WishRunning, why, now); got.Wishes != 1 || got.Reason != (Reason{}) {
		t.Errorf("the same wish again: %+v", got)
	}
	stopped := i.Want(WishStopped, why, now)
	if stopped.Wishes != 2 || stopped.Wish != WishStopped || stopped.Reason != why || !stopped.WishedAt.Equal(now) || i.Wish != WishRunning {
		t.Errorf("stopped: %+v of %+v", stopped, i)
	}
	over := stopped.Want(WishTerminated, why, now)
	if got := over.Want(WishRunning, Reason{}, now); got.Wish != WishTerminated || got.Wishes != 3 {
		t.Errorf("after its termination: %+v", got)
	}
}

func TestHostName(t *testing.T) {
	if got := (&Instance{Local: netip.MustParseAddr("172.31.0.10")}).HostName(); got != "ip-172-31-0-10" {
		t.Error(got)
	}
}

func TestZones(t *testing.T) {
	if got := fmt.Sprint(Zones([]Node{{Zone: "z2"}, {Zone: "z1"}, {Zone: "z2"}})); got != "[z1 z2]" {
		t.Error(got)
	}
}

func TestTypeNamed(t *testing.T) {
	if _, ok := TypeNamed(DefaultType); !ok {
		t.Error("the default type is not there")
	}
	if _, ok := TypeNamed("m9.huge"); ok {
		t.Error("a type that is not there")
	}
}
