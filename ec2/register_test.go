package ec2

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"mallee/bundle"
	"mallee/cloud"
	"mallee/state"
)

func TestRegisterAndDeregister(t *testing.T) {
	c := ready(t)
	c.bundled("b1/tiny.manifest.xml", nil)
	id := get[registerImageReply](c, c.admin, "RegisterImage", "Name=tiny (1.0)", "ImageLocation=/b1/tiny.manifest.xml", "Description=small", "VirtualizationType=hvm",
		"TagSpecification.1.ResourceType=image", "TagSpecification.1.Tag.1.Key=k", "BlockDeviceMapping.1.DeviceName=/dev/sdb", "BlockDeviceMapping.1.VirtualName=ephemeral0").ImageID
	i := get[describeImagesReply](c, c.admin, "DescribeImages", "ImageId.1="+id).Images[0]
	if i.Location != "b1/tiny.manifest.xml" || i.Public || i.Virtualization != "hvm" || i.Architecture != "x86_64" || i.RootDevice != "/dev/sda" ||
		i.State != "available" || i.OwnerAlias != "eucalyptus" || i.Tags[0].Key != "k" || i.Mappings[0].VirtualName != "ephemeral0" || i.Type != "machine" {
		t.Errorf("registered as %+v", i)
	}
	stored, _, _ := state.Images.Get(c.Store.View(), cloud.ImageID(id))
	if stored.ManifestDigest != bundle.Pin(c.objects["b1/tiny.manifest.xml"]) || stored.Size != 15 || len(stored.Digest) != 40 {
		t.Errorf("on record as %+v", stored)
	}
	if r := c.refused(c.user, "DescribeImages", "ImageId.1="+id); r.Code != "InvalidAMIID.NotFound" {
		t.Errorf("another account learns of it: %+v", r)
	}
	if r := c.refused(c.admin, "RegisterImage", "Name=tiny (1.0)", "ImageLocation=b1/tiny.manifest.xml", "VirtualizationType=hvm"); r.Code != "InvalidAMIName.Duplicate" || !strings.Contains(r.Message, id) {
		t.Errorf("the name again: %+v", r)
	}
	instance := get[reservationReply](c, c.admin, "RunInstances", "ImageId="+id).Instances[0].ID
	get[reply](c, c.admin, "DeregisterImage", "ImageId="+id)
	if r := c.refused(c.admin, "RunInstances", "ImageId="+id); r.Code != "InvalidAMIID.Unavailable" {
		t.Errorf("deregistered, it runs: %+v", r)
	}
	get[registerImageReply](c, c.admin, "RegisterImage", "Name=tiny (1.0)", "ImageLocation=b1/tiny.manifest.xml", "VirtualizationType=hvm")
	if r := c.refused(c.admin, "DeregisterImage", "ImageId="+id); r.Code != "InvalidAMIID.Unavailable" {
		t.Errorf("removed under an instance: %+v", r)
	}
	c.write(func(tx *state.Tx) {
		i, _, _ := state.Instances.Get(tx, cloud.InstanceID(instance))
		state.Release(tx, i)
		state.Forget(tx, i)
	})
	get[reply](c, c.admin, "DeregisterImage", "ImageId="+id)
	if r := c.refused(c.admin, "DeregisterImage", "ImageId="+id); r.Code != "InvalidAMIID.NotFound" {
		t.Errorf("once removed: %+v", r)
	}
}

func TestImageNames(t *testing.T) {
	for name, want := range map[string]bool{
		"abc": true, "ab": false, strings.Repeat("n", 128): true, strings.Repeat("n", 129): false, "": false,
		"my image [v1.2] (a/b) o'neill@home_x-y": true, "   ": true, "a*b": false, "a\nb": false, "naïve": false, "a,b": false, `a"b`: false, `a\b`: false,
	} {
		if got := nameForm.MatchString(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
	c := ready(t)
	c.bundled("b1/good", nil)
	name := "it's [me]@home"
	id := get[registerImageReply](c, c.admin, "RegisterImage", "Name="+name, "ImageLocation=b1/good", "VirtualizationType=hvm").ImageID
	found := get[describeImagesReply](c, c.admin, "DescribeImages", "Filter.1.Name=name", "Filter.1.Value.1="+name).Images
	if len(found) != 1 || found[0].ID != id || found[0].Name != name {
		t.Errorf("by its name: %+v", found)
	}
}

func TestRegisterTrio(t *testing.T) {
	c := newCloud(t).withNodes("one", 1, cloud.Size{VCPUs: 10, MemoryMiB: 10240, DiskGiB: 100})
	c.bundled("b1/vmlinuz.manifest.xml", func(o *bundle.Options) { o.Kind = bundle.Kernel })
	c.bundled("b1/initrd.manifest.xml", func(o *bundle.Options) { o.Kind = bundle.Ramdisk })
	kernel := get[registerImageReply](c, c.admin, "RegisterImage", "Name=vmlinuz", "ImageLocation=b1/vmlinuz.manifest.xml").ImageID
	ramdisk := get[registerImageReply](c, c.admin, "RegisterImage", "Name=initrd", "ImageLocation=b1/initrd.manifest.xml").ImageID
	if !strings.HasPrefix(kernel, "eki-") || !strings.HasPrefix(ramdisk, "eri-") {
		t.Fatalf("registered as %s and %s", kernel, ramdisk)
	}
	c.bundled("b1/root.manifest.xml", func(o *bundle.Options) { o.KernelID, o.RamdiskID = kernel, ramdisk })
	image := get[registerImageReply](c, c.admin, "RegisterImage", "Name=root", "ImageLocation=b1/root.manifest.xml").ImageID
	i := get[describeImagesReply](c, c.admin, "DescribeImages", "ImageId.1="+image).Images[0]
	if i.Kernel != kernel || i.Ramdisk != ramdisk || i.Virtualization != "paravirtual" || i.RootDevice != "/dev/sda1" {
		t.Errorf("registered as %+v", i)
	}
	run := get[reservationReply](c, c.admin, "RunInstances", "ImageId="+image).Instances[0]
	if run.Kernel != kernel || run.Ramdisk != ramdisk {
		t.Errorf("runs with %s and %s", run.Kernel, run.Ramdisk)
	}
	for _, test := range []struct {
		parameters []string
		code, says string
	}{
		{[]string{"KernelId=eki-ffffffff"}, "InvalidAMIID.NotFound", "eki-ffffffff"},
		{[]string{"KernelId=" + ramdisk}, "InvalidAMIID.Malformed", ramdisk},
		{[]string{"RamdiskId=nonsense"}, "InvalidAMIID.Malformed", "nonsense"},
		{[]string{"KernelId=" + kernel, "VirtualizationType=hvm"}, "InvalidParameterCombination", "KernelId"},
	} {
		r := c.refused(c.admin, "RegisterImage", append(test.parameters, "Name=other", "ImageLocation=b1/root.manifest.xml")...)
		if r.Code != test.code || !strings.Contains(r.Message, test.says) {
			t.Errorf("%v: %+v", test.parameters, r)
		}
	}
	get[reply](c, c.admin, "DeregisterImage", "ImageId="+kernel)
	if r := c.refused(c.admin, "RunInstances", "ImageId="+image); r.Code != "InvalidAMIID.NotFound" || !strings.Contains(r.Message, kernel) {
		t.Errorf("without its kernel: %+v", r)
	}
}

func TestRegisterRefuses(t *testing.T) {
	c := ready(t).withSnapshots()
	c.bundled("b1/good", nil)
	c.bundled("b1/foreign", func(o *bundle.Options) { o.Account = string(ordinary) })
	c.bundled("b1/kernel", func(o *bundle.Options) { o.Kind = bundle.Kernel })
	c.bundled("b1/sparc", func(o *bundle.Options) { o.Architecture = "sparc64" })
	c.bundled("b1/whole-disk", func(o *bundle.Options) { o.BlockDeviceMappings = []bundle.Mapping{{Virtual: "ami", Device: "sda"}} })
	c.bundled("b1/unsigned", func(o *bundle.Options) { o.UserKey = nil })
	other, certificate := strangerKey(t)
	c.bundled("b1/forged", func(o *bundle.Options) { o.UserKey, o.UserCert = other, certificate })
	c.bundled("b1/elsewhere", func(o *bundle.Options) { o.CloudCert = certificate })
	c.objects["b1/garbage"] = []byte("hello")
	c.objects["b1/bomb"] = []byte(`<!DOCTYPE x [<!ENTITY a "aaaa">]><manifest>&a;</manifest>`)
	c.objects["b1/long"] = make([]byte, bundle.MaxManifestSize+1)
	c.objects["b1/tampered"] = bytes.Replace(c.objects["b1/good"], []byte("x86_64"), []byte("i386"), 1)
	before := c.Store.View().Revision()
	for _, test := range slices.Concat(manifestRefusals(), deviceRefusals()) {
		parameters := append([]string{"Name=tiny", "ImageLocation=b1/good", "VirtualizationType=hvm"}, test.request...)
		if r := c.refused(c.admin, "RegisterImage", parameters...); r.Code != test.code || !strings.Contains(r.Message, test.says) {
			t.Errorf("%.60v: %+v", test.request, r)
		}
	}
	if r := c.refused(c.user, "RegisterImage", "Name=tiny", "ImageLocation=b1/good", "VirtualizationType=hvm"); r.Code != "AuthFailure" {
		t.Errorf("somebody else's bundle: %+v", r)
	}
	c.MaxImageSize = 10
	if r := c.refused(c.admin, "RegisterImage", "Name=tiny", "ImageLocation=b1/good", "VirtualizationType=hvm"); r.Code != "InvalidManifest" || !strings.Contains(r.Message, "10") {
		t.Errorf("too large an image: %+v", r)
	}
	if after := c.Store.View().Revision(); after != before {
		t.Errorf("a refused registration wrote: revision %d became %d", before, after)
	}
	c.AllowUnsigned, c.MaxImageSize = true, DefaultMaxImageSize
	get[registerImageReply](c, c.admin, "RegisterImage", "Name=tiny", "ImageLocation=b1/unsigned", "VirtualizationType=hvm")
}

// mapped are the parameters of one block device.
func mapped(device string, parameters ...string) []string {
	all := []string{"BlockDeviceMapping.1.DeviceName=" + device}
	for _, p := range parameters {
		if p != "" {
			all = append(all, "BlockDeviceMapping.1."+p)
		}
	}
	return all
}

// manifestRefusals are of what the request or the manifest says.
func manifestRefusals() []refusalCase {
	return []refusalCase{
		{[]string{"Name=ab"}, "InvalidAMIName.Malformed", "ab"},
		{[]string{"Name=a*b*c"}, "InvalidAMIName.Malformed", "a*b*c"},
		{[]string{"Name=" + strings.Repeat("n", 129)}, "InvalidAMIName.Malformed", "nnn"},
		{[]string{"Name="}, "MissingParameter", "Name"},
		{[]string{"Description=" + strings.Repeat("d", 256)}, "InvalidParameterValue", "Description"},
		{[]string{"ImageLocation="}, "MissingParameter", "ImageLocation"},
		{[]string{"ImageLocation=", "RootDeviceName=/dev/sda1"}, "MissingParameter", "/dev/sda1"},
		{[]string{"ImageLocation=b1"}, "InvalidParameterValue", "ImageLocation"},
		{[]string{"ImageLocation=/b/x"}, "InvalidParameterValue", "ImageLocation"},
		{[]string{"ImageLocation=b1/missing"}, "InvalidManifest", "b1/missing"},
		{[]string{"ImageLocation=b1/secret/m"}, "InvalidManifest", "may not be read"},
		{[]string{"ImageLocation=b1/long"}, "InvalidManifest", "longer than"},
		{[]string{"ImageLocation=b1/garbage"}, "InvalidManifest", "b1/garbage"},
		{[]string{"ImageLocation=b1/bomb"}, "InvalidManifest", "document type"},
		{[]string{"ImageLocation=b1/foreign"}, "AuthFailure", string(ordinary)},
		{[]string{"ImageLocation=b1/unsigned"}, "InvalidManifest", "not signed"},
		{[]string{"ImageLocation=b1/forged"}, "InvalidManifest", "signature"},
		{[]string{"ImageLocation=b1/tampered"}, "InvalidManifest", "signature"},
		{[]string{"ImageLocation=b1/elsewhere"}, "InvalidManifest", "another cloud"},
		{[]string{"ImageLocation=b1/sparc"}, "InvalidManifest", "sparc64"},
		{[]string{"ImageLocation=b1/kernel"}, "InvalidParameterCombination", "kernel"},
		{[]string{"Architecture=sparc64"}, "InvalidParameterValue", "Architecture"},
		{[]string{"VirtualizationType=xen"}, "InvalidParameterValue", "VirtualizationType"},
		{[]string{"VirtualizationType=paravirtual"}, "MissingParameter", "KernelId"},
		{[]string{"VirtualizationType=paravirtual", "KernelId=" + kernelImage}, "MissingParameter", "RamdiskId"},
		{[]string{"Platform=windows", "VirtualizationType=paravirtual"}, "InvalidParameterCombination", "windows"},
		{[]string{"Platform=beos"}, "InvalidParameterValue", "Platform"},
		{[]string{"RootDeviceName=sda;rm"}, "InvalidParameterValue", "RootDeviceName"},
		{[]string{"BootMode=bios"}, "InvalidParameterValue", "BootMode"},
		{[]string{"BootMode=legacy-bios", "Architecture=arm64"}, "InvalidParameterCombination", "arm64"},
		{append(paravirtual(), "BootMode=uefi"), "InvalidParameterCombination", "BootMode"},
		{[]string{"BootMode=uefi", "ImageLocation=b1/kernel", "VirtualizationType="}, "InvalidParameterValue", "VirtualizationType"},
		{[]string{"EnaSupport=perhaps"}, "InvalidParameterValue", "EnaSupport"},
		{[]string{"SriovNetSupport=yes"}, "InvalidParameterValue", "SriovNetSupport"},
		{[]string{"ImdsSupport=v1.0"}, "InvalidParameterValue", "ImdsSupport"},
		{[]string{"TpmSupport=v2.0"}, "UnsupportedOperation", "TpmSupport"},
		{[]string{"UefiData=QU1B"}, "UnsupportedOperation", "UefiData"},
		{[]string{"BillingProduct.1=bp-1"}, "UnsupportedOperation", "BillingProduct"},
		{append(paravirtual(), "ImageLocation=b1/whole-disk"), "InvalidManifest", "b1/whole-disk maps ami to sda,"},
		{[]string{"TagSpecification.1.ResourceType=instance", "TagSpecification.1.Tag.1.Key=k"}, "InvalidParameterValue", "instance"},
	}
}

// deviceRefusals are of block device mappings.
func deviceRefusals() []refusalCase {
	return []refusalCase{
		{mapped("/dev/sdb", ""), "MissingParameter", "BlockDeviceMapping.1.VirtualName"},
		{[]string{"BlockDeviceMapping.1.VirtualName=ephemeral0"}, "MissingParameter", "BlockDeviceMapping.1.DeviceName"},
		{mapped("disk1", "NoDevice="), "InvalidBlockDeviceMapping", "disk1"},
		{mapped("/dev/sdb", "VirtualName=ephemeral9"), "InvalidBlockDeviceMapping", "ephemeral9"},
		{mapped("/dev/sdb", "VirtualName=ephemeral0", "NoDevice="), "InvalidParameterCombination", "BlockDeviceMapping.1"},
		{append(mapped("/dev/sdb", "NoDevice="), "BlockDeviceMapping.2.DeviceName=sdb", "BlockDeviceMapping.2.NoDevice="), "InvalidBlockDeviceMapping", "more than one"},
		{mapped("/dev/sdf1", "Ebs.VolumeSize=1"), "InvalidBlockDeviceMapping", "/dev/sdf1"},
		{mapped("/dev/sdf", "Ebs.VolumeSize=0"), "InvalidParameterValue", "BlockDeviceMapping.1.Ebs.VolumeSize"},
		{mapped("/dev/sdf", "Ebs.VolumeSize=-1"), "InvalidParameterValue", "(-1)"},
		{mapped("/dev/sdf", "Ebs.VolumeSize=16385"), "InvalidParameterValue", "16384GiB"},
		{mapped("/dev/sdf", "Ebs.DeleteOnTermination=true"), "MissingParameter", "a size or a snapshot"},
		{mapped("/dev/sdf", "Ebs.VolumeSize=1", "Ebs.VolumeType=gp9"), "UnknownVolumeType", "gp9"},
		{mapped("/dev/sdf", "Ebs.VolumeSize=1", "Ebs.Iops=100"), "InvalidParameterCombination", "iops"},
		{mapped("/dev/sdf", "Ebs.VolumeSize=1", "Ebs.KmsKeyId=k"), "UnsupportedOperation", "BlockDeviceMapping.1.Ebs.KmsKeyId"},
		{mapped("/dev/sdf", "Ebs.SnapshotId=s"), "InvalidSnapshotID.Malformed", `"s"`},
		{mapped("/dev/sdf", "Ebs.SnapshotId=snap-99999999"), "InvalidSnapshot.NotFound", "snap-99999999"},
		{mapped("/dev/sda", "Ebs.SnapshotId="+publicSnapshot), "InvalidParameterCombination", "not both"},
		{append(paravirtual(), mapped("sdb", "VirtualName=ephemeral0")...), "InvalidBlockDeviceMapping", "ephemeral0 at /dev/sda2"},
	}
}

// paravirtual parameters, complete.
func paravirtual() []string {
	return []string{"VirtualizationType=paravirtual", "KernelId=" + kernelImage, "RamdiskId=" + ramdiskImage}
}

// TestWholeDisksAndPartitions by what the manifest says of the image itself.
func TestWholeDisksAndPartitions(t *testing.T) {
	c := ready(t)
	for n, test := range []struct {
		mappings       []bundle.Mapping
		virtualization string
	}{
		{nil, "paravirtual"},
		{[]bundle.Mapping{{Virtual: "ami", Device: "sda1"}, {Virtual: "root", Device: "/dev/sda"}}, "paravirtual"},
		{[]bundle.Mapping{{Virtual: "ami", Device: "/dev/xvda2"}}, "paravirtual"},
		{[]bundle.Mapping{{Virtual: "ami", Device: ""}}, "paravirtual"},
		{[]bundle.Mapping{{Virtual: "ami", Device: "sda"}}, "hvm"},
	} {
		location := "b1/mapped" + itoa(n)
		c.bundled(location, func(o *bundle.Options) { o.BlockDeviceMappings = test.mappings })
		parameters := []string{"Name=mapped " + itoa(n), "ImageLocation=" + location, "VirtualizationType=" + test.virtualization}
		if test.virtualization == "paravirtual" {
			parameters = append(parameters, "KernelId="+kernelImage, "RamdiskId="+ramdiskImage)
		}
		get[registerImageReply](c, c.admin, "RegisterImage", parameters...)
	}
}

// TestKernelsAreForAdministrators of the cloud.
func TestKernelsAreForAdministrators(t *testing.T) {
	c := ready(t)
	c.AllowUnsigned = true
	c.bundled("b1/kernel", func(o *bundle.Options) {
		o.Kind, o.Account, o.UserKey = bundle.Kernel, string(ordinary), nil
	})
	r := c.refused(c.user, "RegisterImage", "Name=kernel", "ImageLocation=b1/kernel")
	if r.Code != "UnauthorizedOperation" || r.Message != "Only administrators can register kernel images." {
		t.Errorf("%+v", r)
	}
}

func TestDescribeImages(t *testing.T) {
	c := ready(t)
	c.write(func(tx *state.Tx) {
		state.Images.Edit(tx, kernelImage, func(i *cloud.Image) { i.Public, i.LaunchableBy = false, []cloud.AccountID{ordinary} })
		state.Images.Edit(tx, ramdiskImage, func(i *cloud.Image) { i.Public = false })
	})
	for _, test := range []struct {
		parameters []string
		want       string
	}{
		{nil, "eki-00000001 emi-00000001 emi-00000002 emi-00000003 emi-00000004"},
		{[]string{"Owner.1=self"}, "emi-00000003"},
		{[]string{"Owner.1=eucalyptus"}, "eki-00000001 emi-00000001 emi-00000002 emi-00000004"},
		{[]string{"Owner.1=amazon"}, ""},
		{[]string{"Owner.1=" + string(ordinary)}, "emi-00000003"},
		{[]string{"Owner.1=" + string(c.admin.Account)}, "eki-00000001 emi-00000001 emi-00000002 emi-00000004"},
		{[]string{"Owner.1=self", "Filter.1.Name=image-type", "Filter.1.Value.1=kernel"}, ""},
		{[]string{"Owner.1=" + string(ordinary), "Owner.2=eucalyptus", "Filter.1.Name=image-type", "Filter.1.Value.1=machine", "Filter.2.Name=is-public", "Filter.2.Value.1=false"}, "emi-00000003"},
		{[]string{"ExecutableBy.1=all"}, "emi-00000001 emi-00000002 emi-00000004"},
		{[]string{"ExecutableBy.1=self"}, "eki-00000001"},
		{[]string{"ImageId.1=EMI-00000001", "ImageId.2=aki-00000001"}, "eki-00000001 emi-00000001"},
	} {
		var ids []string
		for _, i := range get[describeImagesReply](c, c.user, "DescribeImages", test.parameters...).Images {
			ids = append(ids, i.ID)
		}
		if got := strings.Join(ids, " "); got != test.want {
			t.Errorf("%v: %s", test.parameters, got)
		}
	}
	if r := c.refused(c.user, "DescribeImages", "ImageId.1="+goneImage, "ImageId.2="+ramdiskImage); r.Message != "The image ids '[emi-00000005, eri-00000001]' do not exist" {
		t.Errorf("%+v", r)
	}
	if n := len(get[describeImagesReply](c, c.admin, "DescribeImages", "ImageId.1=verbose").Images); n != 7 {
		t.Errorf("who runs the cloud sees %d images", n)
	}
	if r := c.refused(c.user, "DescribeImages", "ImageId.1=verbose"); r.Code != "InvalidAMIID.Malformed" {
		t.Errorf("verbose is for nobody else: %+v", r)
	}
}

// strangerKey is a key and certificate that the cloud doesn't know.
func strangerKey(t *testing.T) (*rsa.PrivateKey, *x509.Certificate) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: startTime().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return key, certificate
}
