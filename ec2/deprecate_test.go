package ec2

import (
	"slices"
	"strings"
	"testing"
	"time"

	"mallee/cloud"
	"mallee/state"
)

// listed images, by the ids that DescribeImages tells.
func listedImages(c *aCloud, system bool, parameters ...string) string {
	who := c.user
	if system {
		who = c.admin
	}
	var ids []string
	for _, i := range get[describeImagesReply](c, who, "DescribeImages", parameters...).Images {
		ids = append(ids, i.ID)
	}
	return strings.Join(ids, " ")
}

func TestDeprecation(t *testing.T) {
	c := ready(t)
	at := c.now.Add(time.Hour)
	get[reply](c, c.admin, "EnableImageDeprecation", "ImageId="+hvmImage, "DeprecateAt="+at.Add(20*time.Second).Format(time.RFC3339))
	i := get[describeImagesReply](c, c.user, "DescribeImages", "ImageId.1="+hvmImage).Images[0]
	if !i.DeprecateAt.Equal(at.Round(time.Minute)) {
		t.Errorf("deprecated at %v", i.DeprecateAt)
	}
	c.now = at.Add(time.Minute)
	for _, test := range []struct {
		name       string
		system     bool
		parameters []string
		shown      bool
	}{
		{"to others", false, nil, false},
		{"to others, by its owner", false, []string{"Owner.1=eucalyptus"}, false},
		{"to others who include them", false, []string{"IncludeDeprecated=true"}, true},
		{"to others who name it", false, []string{"ImageId.1=" + hvmImage}, true},
		{"to its owner", true, nil, true},
	} {
		if shown := strings.Contains(listedImages(c, test.system, test.parameters...), hvmImage); shown != test.shown {
			t.Errorf("deprecated, it is shown %s: %v", test.name, shown)
		}
	}
	c.run(c.user) // it can be launched as before
	get[reply](c, c.admin, "DisableImageDeprecation", "ImageId="+hvmImage)
	if !strings.Contains(listedImages(c, false), hvmImage) {
		t.Error("no longer deprecated, it isn't shown")
	}
}

func TestDeprecationRefusals(t *testing.T) {
	c := ready(t)
	at := func(image string, years, minutes int) []string {
		when := c.now.AddDate(years, 0, 0).Add(time.Duration(minutes) * time.Minute)
		return []string{"ImageId=" + image, "DeprecateAt=" + when.Format(time.RFC3339)}
	}
	for _, test := range []struct {
		parameters []string
		code, says string
	}{
		{at(privateImage, 0, -1), "InvalidParameterValue", "in the past"},
		{at(privateImage, 10, 1), "InvalidParameterValue", "at the latest"},
		{at(hvmImage, 0, 1), "AuthFailure", hvmImage},
		{[]string{"ImageId=" + privateImage, "DeprecateAt=soon"}, "InvalidParameterValue", "soon"},
	} {
		if r := c.refused(c.user, "EnableImageDeprecation", test.parameters...); r.Code != test.code || !strings.Contains(r.Message, test.says) {
			t.Errorf("%v: %+v", test.parameters, r)
		}
	}
	if r := c.refused(c.admin, "EnableImageDeprecation", at(hvmImage, 2, 1)...); r.Code != "InvalidParameterValue" {
		t.Errorf("a public image in more than two years: %+v", r)
	}
	get[reply](c, c.admin, "EnableImageDeprecation", at(hvmImage, 2, 0)...)
	get[reply](c, c.user, "EnableImageDeprecation", at(privateImage, 10, 0)...)
	get[reply](c, c.user, "EnableImageDeprecation", at(privateImage, 0, 0)...)
}

func TestDisabledImagesAreHidden(t *testing.T) {
	c := ready(t)
	get[reply](c, c.admin, "DisableImage", "ImageId="+hvmImage)
	get[reply](c, c.user, "DisableImage", "ImageId="+privateImage)
	if got := listedImages(c, false, "IncludeDisabled=true", "Filter.1.Name=state", "Filter.1.Value.1=disabled"); got != privateImage {
		t.Errorf("disabled images of the caller: %s", got)
	}
	if got := listedImages(c, false); strings.Contains(got, privateImage) || strings.Contains(got, hvmImage) {
		t.Errorf("listed: %s", got)
	}
	if r := c.refused(c.user, "DescribeImages", "ImageId.1="+hvmImage); r.Code != "InvalidAMIID.NotFound" {
		t.Errorf("somebody else's: %+v", r)
	}
	get[reply](c, c.user, "EnableImage", "ImageId="+privateImage)
	if !strings.Contains(listedImages(c, false), privateImage) {
		t.Error("enabled, it isn't listed")
	}
}

func TestDeregistrationProtection(t *testing.T) {
	c := ready(t)
	image := "ImageId=" + privateImage
	told := func() string {
		return get[describeImagesReply](c, c.user, "DescribeImages", "ImageId.1="+privateImage).Images[0].Protection
	}
	step := func(action, want string, parameters ...string) {
		t.Helper()
		get[reply](c, c.user, action, append(parameters, image)...)
		if told() != want {
			t.Errorf("%s %v: %s, want %s", action, parameters, told(), want)
		}
	}
	refused := func() {
		t.Helper()
		if r := c.refused(c.user, "DeregisterImage", image); r.Code != "OperationNotPermitted" || !strings.Contains(r.Message, privateImage) {
			t.Errorf("deregistered: %+v", r)
		}
	}
	step("EnableImageDeregistrationProtection", "enabled-without-cooldown")
	refused()
	step("DisableImageDeregistrationProtection", "disabled")
	step("EnableImageDeregistrationProtection", "enabled-with-cooldown", "WithCooldown=true")
	refused()
	step("DisableImageDeregistrationProtection", "disabled-with-cooldown")
	refused()
	c.now = c.now.Add(time.Hour)
	step("DisableImageDeregistrationProtection", "disabled-with-cooldown") // which isn't made longer
	c.now = c.now.Add(cloud.ProtectionCooldown - time.Hour)
	if told() != "disabled" {
		t.Errorf("after the cooldown it is %s", told())
	}
	get[deregisterImageReply](c, c.user, "DeregisterImage", image)
}

// TestDeregisterWithSnapshots deletes those of one's own that nothing else needs.
func TestDeregisterWithSnapshots(t *testing.T) {
	c := ready(t).withSnapshots()
	register := func(name string, parameters ...string) string {
		t.Helper()
		parameters = append(parameters, "Name="+name, "BlockDeviceMapping.1.DeviceName=/dev/sda1", "BlockDeviceMapping.1.Ebs.SnapshotId="+completeSnapshot)
		return get[registerImageReply](c, c.user, "RegisterImage", parameters...).ImageID
	}
	one := register("one", "BlockDeviceMapping.2.DeviceName=/dev/sdf", "BlockDeviceMapping.2.Ebs.SnapshotId="+publicSnapshot)
	two, three := register("two"), register("three")
	deregister := func(id string, parameters ...string) []deletedSnapshot {
		t.Helper()
		out := get[deregisterImageReply](c, c.user, "DeregisterImage", append(parameters, "ImageId="+id)...)
		if out.Snapshots == nil {
			return nil
		}
		return *out.Snapshots
	}
	there := func() bool {
		_, _, ok := state.Snapshots.Get(c.Store.View(), completeSnapshot)
		return ok
	}
	if got := deregister(one, "DeleteAssociatedSnapshots=true"); !slices.Equal(got, []deletedSnapshot{{completeSnapshot, "skipped"}, {publicSnapshot, "missing-permissions"}}) {
		t.Errorf("of a shared snapshot and a stranger's: %+v", got)
	}
	if got := deregister(two); got != nil || !there() {
		t.Errorf("nobody asked to delete snapshots: %+v", got)
	}
	if got := deregister(three, "DeleteAssociatedSnapshots=true"); !slices.Equal(got, []deletedSnapshot{{completeSnapshot, "success"}}) || there() {
		t.Errorf("of the last image of the snapshot: %+v", got)
	}
}
