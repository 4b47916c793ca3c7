package ec2

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"mallee/cloud"
	"mallee/state"
)

// other is an account that is neither who runs the cloud nor ordinary.
const other cloud.AccountID = "444455556666"

// withAccounts puts those that images can be shared with into the state.
func (c *aCloud) withAccounts() *aCloud {
	c.write(func(tx *state.Tx) {
		state.Accounts.Put(tx, cloud.Account{ID: ordinary, Alias: "ordinary"})
		state.Accounts.Put(tx, cloud.Account{ID: other, Alias: "other"})
	})
	return c
}

// shared says with whom an image is.
func shared(c *aCloud, id cloud.ImageID) string {
	i, _, _ := state.Images.Get(c.Store.View(), id)
	return fmt.Sprint(i.Public, i.LaunchableBy)
}

// TestLaunchPermission in the forms of all clients.
func TestLaunchPermission(t *testing.T) {
	c := ready(t).withAccounts()
	add := []string{"OperationType=add"}
	for _, test := range []struct {
		parameters []string
		want       string
	}{
		{[]string{"LaunchPermission.Add.1.UserId=" + string(other)}, "false [444455556666]"},
		{[]string{"LaunchPermission.Add.1.UserId=" + string(other)}, "false [444455556666]"}, // once more is no change
		{[]string{"LaunchPermission.Add.1.UserId=" + string(c.admin.Account), "LaunchPermission.Add.2.Group=all", "LaunchPermission.Remove.1.UserId=" + string(other)}, "true [" + string(c.admin.Account) + "]"},
		{[]string{"LaunchPermission.Remove.1.Group=all"}, "false [" + string(c.admin.Account) + "]"},
		{[]string{"Attribute=launchPermission", "OperationType=remove", "UserId.1=" + string(c.admin.Account), "UserId.2=999999999999"}, "false []"},
		{append(add, "Attribute=launchPermission", "UserGroup.1=all"), "true []"},
		{append(add, "UserId.1="+string(other)), "true [444455556666]"},
		{[]string{"OperationType=remove", "UserGroup.1=all"}, "false [444455556666]"},
	} {
		get[reply](c, c.user, "ModifyImageAttribute", append(test.parameters, "ImageId="+privateImage)...)
		if got := shared(c, privateImage); got != test.want {
			t.Fatalf("%v: %s, want %s", test.parameters, got, test.want)
		}
	}
	out := get[imageAttributeReply](c, c.user, "DescribeImageAttribute", "ImageId="+privateImage, "Attribute=launchPermission")
	if len(out.Permissions.Items) != 1 || out.Permissions.Items[0].UserID != string(other) {
		t.Errorf("it is told as %+v", out.Permissions)
	}
	get[reply](c, c.user, "ResetImageAttribute", "ImageId="+privateImage, "Attribute=launchPermission")
	if got := shared(c, privateImage); got != "false []" {
		t.Errorf("reset: %s", got)
	}
}

func TestModifyImageAttribute(t *testing.T) {
	c := ready(t).withAccounts()
	for _, test := range []struct {
		parameters []string
		attribute  string
		want       string // in the reply
	}{
		{[]string{"Description.Value=a <b>"}, "description", "<description><value>a &lt;b&gt;</value></description>"},
		{[]string{"Attribute=description", "Value="}, "description", "<description></description>"},
		{[]string{"ProductCode.1=A1B2", "OperationType=add"}, "productCodes", "<productCodes><item><productCode>A1B2</productCode></item></productCodes>"},
		{[]string{"Attribute=productCodes", "ProductCode.1=A1B2", "ProductCode.2=c-3"}, "productCodes", "<productCode>A1B2</productCode></item><item><productCode>c-3</productCode>"},
		{[]string{"ImdsSupport.Value=v2.0"}, "imdsSupport", "<imdsSupport><value>v2.0</value></imdsSupport>"},
		{nil, "lastLaunchedTime", "<lastLaunchedTime></lastLaunchedTime>"},
		{nil, "bootMode", "<bootMode></bootMode>"},
		{nil, "sriovNetSupport", "<sriovNetSupport></sriovNetSupport>"},
		{nil, "tpmSupport", "<tpmSupport></tpmSupport>"},
		{nil, "uefiData", "<uefiData></uefiData>"},
		{nil, "kernel", "<kernel></kernel>"},
		{nil, "launchPermission", "<launchPermission></launchPermission>"},
		{nil, "deregistrationProtection", "<deregistrationProtection><value>disabled</value></deregistrationProtection>"},
		{nil, "blockDeviceMapping", "<item><deviceName>sda1</deviceName><virtualName>emi</virtualName></item><item><deviceName>sdb</deviceName><virtualName>ephemeral0</virtualName></item><item><deviceName>/dev/sda1</deviceName><virtualName>root</virtualName></item>"},
	} {
		if test.parameters != nil {
			get[reply](c, c.user, "ModifyImageAttribute", append(test.parameters, "ImageId="+privateImage)...)
		}
		_, body := c.send(c.user, "DescribeImageAttribute", "ImageId="+privateImage, "Attribute="+test.attribute)
		if !strings.Contains(body, test.want) {
			t.Errorf("%v: the %s is %s", test.parameters, test.attribute, body)
		}
	}
	_, body := c.send(c.admin, "DescribeImageAttribute", "ImageId="+pvImage, "Attribute=blockDeviceMapping")
	if !strings.Contains(body, "<deviceName>sda3</deviceName><virtualName>swap</virtualName>") {
		t.Errorf("a paravirtual image's devices are %s", body)
	}
	get[reply](c, c.admin, "ModifyImageAttribute", "ImageId="+privateImage, "Description.Value=by who runs the cloud")
}

func TestImageAttributeRefusals(t *testing.T) {
	c := ready(t).withAccounts()
	c.write(func(tx *state.Tx) {
		state.Images.Edit(tx, hugeImage, func(i *cloud.Image) { i.Account, i.Public, i.Disabled = ordinary, false, true })
		state.Images.Edit(tx, goneImage, func(i *cloud.Image) { i.Account = ordinary })
		state.Images.Edit(tx, pvImage, func(i *cloud.Image) { i.Public = false })
	})
	modify := func(p ...string) []string {
		return append([]string{"ModifyImageAttribute", "ImageId=" + privateImage}, p...)
	}
	for _, test := range []refusalCase{
		{modify(), "MissingParameter", "LaunchPermission"},
		{modify("Attribute=colour"), "InvalidParameterValue", "colour"},
		{modify("Attribute=kernel", "Value="+kernelImage), "InvalidParameterValue", "fixed"},
		{modify("Attribute=blockDeviceMapping"), "InvalidParameterValue", "blockDeviceMapping"},
		{modify("Attribute=bootMode", "Value=uefi"), "InvalidParameterValue", "bootMode"},
		{modify("Attribute=description"), "MissingParameter", "Value"},
		{modify("Description.Value=" + strings.Repeat("d", 256)), "InvalidParameterValue", "Description.Value"},
		{modify("Description.Value=a\x07"), "InvalidParameterValue", "Control characters"},
		{modify("Description.Value=d", "ImdsSupport.Value=v2.0"), "InvalidParameterCombination", "2"},
		{modify("Description.Value=d", "Attribute=description", "Value=e"), "InvalidParameterCombination", "One attribute"},
		{modify("Description.Value=d", "UserId.1="+string(other)), "InvalidParameterCombination", "UserId"},
		{modify("ImdsSupport.Value=v1.0"), "InvalidParameterValue", "v2.0"},
		{modify("ProductCode.1=A1", "OperationType=remove"), "InvalidParameterCombination", "added only"},
		{modify("ProductCode.1=A B"), "InvalidAMIAttributeItemValue", "A B"},
		{modify("Attribute=productCodes"), "InvalidParameterCombination", "ProductCode.1"},
		{modify("Attribute=launchPermission", "UserId.1="+string(other)), "MissingParameter", "OperationType"},
		{modify("Attribute=launchPermission", "OperationType=add"), "MissingParameter", "UserId"},
		{modify("OperationType=grant", "UserId.1="+string(other)), "InvalidParameterValue", "grant"},
		{modify("LaunchPermission.Add.1.UserId=123"), "InvalidAMIAttributeItemValue", "Not a valid userId : 123"},
		{modify("LaunchPermission.Add.1.UserId=999999999999"), "InvalidAMIAttributeItemValue", "Not a valid userId : 999999999999"},
		{modify("LaunchPermission.Remove.1.UserId=me"), "InvalidAMIAttributeItemValue", "Not a valid userId : me"},
		{modify("LaunchPermission.Add.1.Group=some"), "InvalidAMIAttributeItemValue", `"some"`},
		{modify("LaunchPermission.Add.1.Group=all", "LaunchPermission.Add.1.UserId="+string(other)), "InvalidParameterCombination", "not both"},
		{modify("LaunchPermission.Add.1.Group="), "MissingParameter", "Group"},
		{modify("LaunchPermission.Add.1.OrganizationArn=arn:x"), "UnsupportedOperation", "organizations"},
		{modify("OperationType=add", "OrganizationArn.1=arn:x"), "UnsupportedOperation", "organizations"},
		{modify("ImageId="+hugeImage, "LaunchPermission.Add.1.Group=all"), "InvalidAMIID.Unavailable", "can't be shared"},
		{modify("ImageId="+goneImage, "Description.Value=d"), "InvalidAMIID.Unavailable", "no longer available"},
		{modify("ImageId="+hvmImage, "Description.Value=d"), "AuthFailure", "Not authorized for image:" + hvmImage},
		{modify("ImageId="+pvImage, "Description.Value=d"), "InvalidAMIID.NotFound", "The image id '[" + pvImage + "]' does not exist"},
		{[]string{"DescribeImageAttribute", "ImageId=" + privateImage, "Attribute=colour"}, "InvalidParameterValue", "colour"},
		{[]string{"DescribeImageAttribute", "ImageId=" + hvmImage, "Attribute=kernel"}, "AuthFailure", hvmImage},
		{[]string{"DescribeImageAttribute", "ImageId=" + pvImage, "Attribute=kernel"}, "InvalidAMIID.NotFound", pvImage},
		{[]string{"ResetImageAttribute", "ImageId=" + privateImage, "Attribute=description"}, "InvalidParameterValue", "launchPermission"},
		{[]string{"ResetImageAttribute", "ImageId=" + pvImage, "Attribute=launchPermission"}, "InvalidAMIID.NotFound", pvImage},
	} {
		if r := c.refused(c.user, test.request[0], test.request[1:]...); r.Code != test.code || !strings.Contains(r.Message, test.says) {
			t.Errorf("%.120v: %+v", test.request, r)
		}
	}
}

// TestSharesAreBounded over many requests.
func TestSharesAreBounded(t *testing.T) {
	c := ready(t)
	c.write(func(tx *state.Tx) {
		state.Accounts.Put(tx, cloud.Account{ID: other})
		state.Images.Edit(tx, privateImage, func(i *cloud.Image) {
			for n := range maxShares {
				i.LaunchableBy = append(i.LaunchableBy, cloud.AccountID(fmt.Sprintf("%012d", n)))
			}
		})
	})
	if r := c.refused(c.user, "ModifyImageAttribute", "ImageId="+privateImage, "LaunchPermission.Add.1.UserId="+string(other)); r.Code != "ResourceLimitExceeded" {
		t.Errorf("%+v", r)
	}
	get[reply](c, c.user, "ModifyImageAttribute", "ImageId="+privateImage, "LaunchPermission.Add.1.UserId="+string(other), "LaunchPermission.Remove.1.UserId=000000000007")
}

// TestPrivateImagesAreUnknown: what another account's private image is told as
// is, to the byte, what an id that nothing has is told as, in every action that
// takes an image's id.
func TestPrivateImagesAreUnknown(t *testing.T) {
	c := ready(t)
	const nobodys, secret = "emi-77777777", "emi-88888888"
	const noKernel, secretKernel = "eki-77777777", "eki-88888888"
	c.write(func(tx *state.Tx) {
		i, _, _ := state.Images.Get(tx, hvmImage)
		hidden := *i
		hidden.ID, hidden.Public = secret, false
		state.Images.Put(tx, hidden)
		k, _, _ := state.Images.Get(tx, kernelImage)
		kernel := *k
		kernel.ID, kernel.Public = secretKernel, false
		state.Images.Put(tx, kernel)
	})
	for name := range actions {
		for n, p := range requiredOf(name) {
			field, value, _ := strings.Cut(p, "=")
			if !strings.HasPrefix(value, "emi-") {
				continue
			}
			ask := func(id string) string {
				parameters := requiredOf(name)
				parameters[n] = field + "=" + id
				_, body := c.send(c.user, name, parameters...)
				return strings.ReplaceAll(body, id, "ID")
			}
			if of, none := ask(secret), ask(nobodys); of != none || !strings.Contains(of, ".NotFound") {
				t.Errorf("%s of a private image: %s\nof none: %s", name, of, none)
			}
		}
	}
	for _, p := range [][]string{
		{"DescribeImages", "ImageId.1=ID"},
		{"RunInstances", "ImageId=" + pvImage, "KernelId=ID"},
		{"RunInstances", "ImageId=" + pvImage, "KernelId=ID", "DryRun=true"},
	} {
		ask := func(id string) string {
			_, body := c.send(c.user, p[0], strings.Split(strings.ReplaceAll(strings.Join(p[1:], "\n"), "ID", id), "\n")...)
			return strings.ReplaceAll(body, id, "ID")
		}
		of, none := ask(secretKernel), ask(noKernel)
		if of != none || !strings.Contains(of, "InvalidAMIID.NotFound") {
			t.Errorf("%v of a private image: %s\nof none: %s", p, of, none)
		}
	}
}

// TestOnlyTheLaunchPermissionLetsLaunch, and ends when it is taken.
func TestOnlyTheLaunchPermissionLetsLaunch(t *testing.T) {
	c := ready(t).withAccounts()
	stranger := iamUser("admin")
	stranger.Account = other
	launch := func() int {
		status, _ := c.send(stranger, "RunInstances", "ImageId="+privateImage)
		return status
	}
	if launch() == 200 {
		t.Error("a private image is launched by a stranger")
	}
	get[reply](c, c.user, "ModifyImageAttribute", "ImageId="+privateImage, "LaunchPermission.Add.1.UserId="+string(other))
	if launch() != 200 {
		t.Error("a shared image isn't launched")
	}
	if r := c.refused(stranger, "ModifyImageAttribute", "ImageId="+privateImage, "LaunchPermission.Add.1.Group=all"); r.Code != "AuthFailure" {
		t.Errorf("shared on by who it was shared with: %+v", r)
	}
	get[reply](c, c.user, "DisableImage", "ImageId="+privateImage)
	if r := c.refused(stranger, "RunInstances", "ImageId="+privateImage); r.Code != "InvalidAMIID.NotFound" {
		t.Errorf("disabled: %+v", r)
	}
	if r := c.refused(c.user, "RunInstances", "ImageId="+privateImage); r.Code != "InvalidAMIID.Unavailable" {
		t.Errorf("disabled, for its owner: %+v", r)
	}
	get[reply](c, c.user, "EnableImage", "ImageId="+privateImage)
	if r := c.refused(stranger, "RunInstances", "ImageId="+privateImage); r.Code != "InvalidAMIID.NotFound" {
		t.Errorf("enabled, it is shared again: %+v", r)
	}
	get[reservationReply](c, c.user, "RunInstances", "ImageId="+privateImage)
}

// TestLastLaunchIsNoted, and not by every launch.
func TestLastLaunchIsNoted(t *testing.T) {
	c := ready(t)
	last := func() time.Time {
		i, _, _ := state.Images.Get(c.Store.View(), privateImage)
		return i.LastLaunched
	}
	get[reservationReply](c, c.user, "RunInstances", "ImageId="+privateImage)
	first := last()
	c.now = c.now.Add(time.Minute)
	get[reservationReply](c, c.user, "RunInstances", "ImageId="+privateImage)
	if !first.Equal(startTime()) || !last().Equal(first) {
		t.Errorf("launched at %v, then at %v", first, last())
	}
	c.now = c.now.Add(time.Hour)
	get[reservationReply](c, c.user, "RunInstances", "ImageId="+privateImage)
	out := get[imageAttributeReply](c, c.user, "DescribeImageAttribute", "ImageId="+privateImage, "Attribute=lastLaunchedTime")
	if out.LastLaunched.Value != timestamp(c.now) {
		t.Errorf("an hour later it is told as %s", out.LastLaunched.Value)
	}
	if seen := get[describeImagesReply](c, c.user, "DescribeImages", "ImageId.1="+hvmImage).Images[0]; seen.LastLaunched != nil || seen.Protection != "" {
		t.Errorf("others learn of the owner's launches: %+v", seen)
	}
}
