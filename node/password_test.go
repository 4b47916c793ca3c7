package node

import (
	"encoding/base64"
	"strings"
	"testing"

	"mallee/cloud"
)

func TestPasswordIn(t *testing.T) {
	one, two := base64.StdEncoding.EncodeToString([]byte("one")), base64.StdEncoding.EncodeToString([]byte("twotwo"))
	long := base64.StdEncoding.EncodeToString(make([]byte, mostPassword+1))
	for said, want := range map[string]string{
		"":                                  "",
		"<Password>" + one:                  "",
		"<Password></Password>":             "",
		"<Password>b%d</Password>":          "",
		"</Password>" + one:                 "",
		"<Password>" + one + "</Passw":      "",
		"<Password>" + long + "</Password>": "",
		"<Password>" + one + "</Password>":  one,
		"boot\r\n<Password>\r\n" + two[:4] + "\r\n" + two[4:] + "\r\n</Password>\r\nready":      two,
		"<Password>" + one + "</Password>\n<Password>" + two + "</Password>":                    two,
		"<Password>" + one + "</Password>\n<Password>" + two:                                    one,
		"<Password>" + one + "</Password>\n" + strings.Repeat("<Password>?</Password>", 10_000): one,
	} {
		if got := passwordIn([]byte(said)); got != want {
			t.Errorf("%.60q says %q, want %q", said, got, want)
		}
	}
}

// The password is reported when it was printed, by the next program too, and only
// of an instance that is Windows and has a key pair.
func TestPasswordIsReported(t *testing.T) {
	r := newRig(t)
	windows := instance(1)
	windows.Platform, windows.KeyName = cloud.Windows, "mine"
	keyless, other := instance(2), instance(3)
	keyless.Platform, other.KeyName = cloud.Windows, "mine"
	r.assign(windows, keyless, other)
	r.wantPhase(cloud.PhaseUp)
	const word = "c2VjcmV0"
	_, changed := r.Report()
	for _, i := range []cloud.Instance{windows, keyless, other} {
		r.world.Print(r.machineDir(i.ID), "<Password>\n"+word+"\n</Password>\n")
	}
	r.Step(t.Context())
	select {
	case <-changed:
	default:
		t.Error("the password is no news")
	}
	r.wantPasswords(word, "", "")
	r.open()
	r.Step(t.Context())
	r.wantPasswords(word, "", "")
}

func (r *rig) wantPasswords(want ...string) {
	r.Helper()
	report, _ := r.Report()
	for n, m := range report.Machines {
		if m.Password != want[n] {
			r.Errorf("the password of %s is reported as %q, want %q", m.Instance, m.Password, want[n])
		}
	}
}

func TestScreenshot(t *testing.T) {
	r := newRig(t)
	if _, err := r.Screenshot(t.Context(), "i-00000001", false); err == nil {
		t.Error("a screenshot of nobody")
	}
	r.assign(instance(1))
	r.wantPhase(cloud.PhaseUp)
	if picture, err := r.Screenshot(t.Context(), "i-00000001", true); err != nil || !strings.HasPrefix(string(picture), "\x89PNG") {
		t.Errorf("screenshot %.10q, %v", picture, err)
	}
}
