package ec2

import (
	"encoding/base64"
	"testing"
	"time"

	"mallee/cloud"
	"mallee/state"
)

func TestScreenshot(t *testing.T) {
	c := ready(t)
	id := c.run(c.user, "MaxCount=1")[0]
	if r := c.refused(c.user, "GetConsoleScreenshot", "InstanceId="+id); r.Code != "IncorrectInstanceState" {
		t.Errorf("a screenshot of what is pending is refused as %+v", r)
	}
	c.seenUp(id)
	if r := c.refused(c.user, "GetConsoleScreenshot", "InstanceId="+id); r.Code != "IncorrectInstanceState" {
		t.Errorf("a screenshot of what its node starts again is refused as %+v", r)
	}
	c.console[cloud.InstanceID(id)] = ""
	for wake, want := range map[string]string{"": "false", "WakeUp=true": "true"} {
		parameters := []string{"InstanceId=" + id}
		if wake != "" {
			parameters = append(parameters, wake)
		}
		out := get[screenshotReply](c, c.user, "GetConsoleScreenshot", parameters...)
		picture, err := base64.StdEncoding.DecodeString(out.Picture)
		if err != nil || string(picture) != "a picture of "+id+", woken "+want || out.InstanceID != id {
			t.Errorf("screenshot of %s: %q, %v", id, picture, err)
		}
	}
}

func TestPasswordData(t *testing.T) {
	c := ready(t)
	id := c.run(c.user, "MaxCount=1")[0]
	if out := get[passwordReply](c, c.user, "GetPasswordData", "InstanceId="+id); out.Password != "" || out.InstanceID != id {
		t.Errorf("before there is a password: %+v", out)
	}
	seen := c.now.Add(-time.Minute)
	c.write(func(tx *state.Tx) {
		state.Observations.Put(tx, cloud.Observation{Instance: cloud.InstanceID(id), Phase: cloud.PhaseUp, UpWish: 1, At: seen, Password: "c2VjcmV0"})
	})
	if out := get[passwordReply](c, c.user, "GetPasswordData", "InstanceId="+id); out.Password != "c2VjcmV0" || !out.Timestamp.Equal(seen) {
		t.Errorf("with a password: %+v", out)
	}
}
