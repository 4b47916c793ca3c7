package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"mallee/cloud"
)

// description is an OVF that names a disk.
func description(href string) []byte {
	return []byte(`<?xml version="1.0"?><Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:vmw="http://www.vmware.com/schema/ovf">
<References><File ovf:href="data.vmdk" ovf:id="file2"/><File ovf:href="` + href + `" ovf:id="file1"/></References>
<DiskSection><Disk ovf:capacity="1" ovf:diskId="vmdisk2" ovf:fileRef="file2"/><Disk ovf:capacity="1" ovf:diskId="vmdisk1" ovf:fileRef="file1"/></DiskSection>
<VirtualSystem ovf:id="vm"><OperatingSystemSection vmw:osType="debian10_64Guest"/><VirtualHardwareSection>
<Item><HostResource>ovf:/disk/vmdisk1</HostResource></Item><Item><HostResource>ovf:/disk/vmdisk2</HostResource></Item>
<vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="efi"/></VirtualHardwareSection></VirtualSystem></Envelope>`)
}

func hexSum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

func TestPrepareOVA(t *testing.T) {
	raw := rawDisk(t)
	boot, data := read(t, made(t, raw, "-O", "vmdk", "-o", "subformat=streamOptimized")), read(t, made(t, saved(t, bareRoot(t)), "-O", "vmdk"))
	text := description("boot.vmdk")
	manifest := fmt.Sprintf("SHA256(vm.ovf)= %s\nSHA256(boot.vmdk)= %s\nSHA256(data.vmdk)= %s\n", hexSum(text), hexSum(boot), hexSum(data))
	plain := archived(t, entry{name: "vm.ovf", data: text}, entry{name: "data.vmdk", data: data}, entry{name: "boot.vmdk", data: boot})
	signed := archived(t, entry{name: "vm.ovf", data: text}, entry{name: "vm.mf", data: []byte(manifest)}, entry{name: "data.vmdk", data: data}, entry{name: "boot.vmdk", data: boot})
	for name, file := range map[string][]byte{"plain": plain, "with a manifest": signed, "compressed": zipped(signed)} {
		t.Run(name, func(t *testing.T) {
			found, p, err := prepared(t, saved(t, file), small)
			if err != nil {
				t.Fatal(err)
			}
			if found.Archive != "ova" || p.Found.Disks != 2 || p.Found.BootMode != cloud.UEFI || p.Found.Architecture != "x86_64" || p.Found.Virtualization != cloud.HVM {
				t.Errorf("inspected as %+v, prepared as %+v", found, p.Found)
			}
			if digest(t, p.Files.Disk) != digest(t, raw) || len(p.More) != 1 || !bytes.Equal(read(t, p.More[0])[:1<<20], bareRoot(t)) {
				t.Errorf("other disks come out: %+v", p)
			}
		})
	}
	boot[len(boot)/2] ^= 1
	_, _, err := prepared(t, saved(t, archived(t, entry{name: "vm.ovf", data: text}, entry{name: "vm.mf", data: []byte(manifest)}, entry{name: "data.vmdk", data: data}, entry{name: "boot.vmdk", data: boot})), small)
	refused(t, err, "its manifest says")
	manifest = strings.ReplaceAll(manifest, "boot.vmdk", "other.vmdk")
	_, _, err = prepared(t, saved(t, archived(t, entry{name: "vm.ovf", data: text}, entry{name: "vm.mf", data: []byte(manifest)}, entry{name: "data.vmdk", data: data}, entry{name: "boot.vmdk", data: boot})), small)
	refused(t, err, "no digest of")
}

func TestHostileOVA(t *testing.T) {
	vmdk := empty(t, "vmdk")
	with := func(text []byte) []byte {
		return archived(t, entry{name: "vm.ovf", data: text}, entry{name: "data.vmdk", data: vmdk})
	}
	flat := []byte("# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\nRW 2048 FLAT \"/etc/passwd\" 0\n")
	tests := []struct {
		name string
		file []byte
		want string
	}{
		{"disk outside", with(description("../../../etc/passwd")), `"../../../etc/passwd"`},
		{"disk with an absolute name", with(description("/etc/passwd")), `"/etc/passwd"`},
		{"disk elsewhere", with(description("http://169.254.169.254/latest")), "elsewhere"},
		{"disk by a file address", with(description("file:///etc/passwd")), "elsewhere"},
		{"disk that isn't there", with(description("boot.vmdk")), "isn't in the archive"},
		{"descriptor as a disk", archived(t, entry{name: "vm.ovf", data: description("boot.vmdk")}, entry{name: "data.vmdk", data: vmdk}, entry{name: "boot.vmdk", data: flat}), "/etc/passwd"},
		{"no XML", with([]byte("<Envelope")), "no XML"},
		{"entities", with([]byte(`<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><Envelope><References>&x;</References></Envelope>`)), "no XML"},
		{"endless description", with(bytes.Repeat([]byte(" "), maxDescription+1)), "is the most"},
		{"no disks", with([]byte("<Envelope/>")), "names no disk"},
		{"disk with a parent", with(bytes.ReplaceAll(description("boot.vmdk"), []byte(`fileRef="file1"`), []byte(`fileRef="file1" ovf:parentRef="p"`))), "child of another"},
		{"disk compressed by itself", with(bytes.ReplaceAll(description("boot.vmdk"), []byte(`ovf:id="file1"`), []byte(`ovf:id="file1" ovf:compression="gzip"`))), "compressed by itself"},
		{"a member that leads out", archived(t, entry{name: "vm.ovf", data: description("boot.vmdk")}, entry{name: "../x", data: vmdk}), "leads out"},
		{"a link for a disk", archived(t, entry{name: "vm.ovf", data: description("boot.vmdk")}, entry{name: "boot.vmdk", kind: tar.TypeSymlink, link: "/dev/sda"}), "/dev/sda"},
		{"cut in a disk", with(description("data.vmdk"))[:30000], "cut off"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, _, err := prepared(t, saved(t, test.file), small)
			refused(t, err, test.want)
		})
	}
}
