package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"regexp"
	"text/template"
	"time"

	"mallee/cloud"
)

// A Machine is what an OVA says of the machine that its disk was made for. Zero values have usual ones.
type Machine struct {
	Name         string // also that of the files in the archive; letters, digits, "-", "_" and "." are kept of it
	CPUs         int
	MemoryMiB    int
	Architecture string // EC2's name
	BootMode     cloud.BootMode
}

var unfit = regexp.MustCompile(`[^A-Za-z0-9_.-]+`)

// usual fills in what isn't said.
func (m Machine) usual() Machine {
	if m.Name = unfit.ReplaceAllString(m.Name, "-"); m.Name == "" || m.Name[0] == '.' || m.Name[0] == '-' {
		m.Name = "machine" + m.Name
	}
	m.Name = m.Name[:min(len(m.Name), 80)]
	if m.CPUs <= 0 {
		m.CPUs = 1
	}
	if m.MemoryMiB <= 0 {
		m.MemoryMiB = 1024
	}
	return m
}

// descriptor is an OVF 1.1 for vmx-07 and later, which every hypervisor's import reads: a processor, memory, a SCSI
// controller with the disk, and a network card. Resource types are CIM's (DSP0004, CIM_ResourceAllocationSettingData).
var descriptor = template.Must(template.New("ovf").Funcs(template.FuncMap{"xml": escape}).Parse(`<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData" xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData" xmlns:vmw="http://www.vmware.com/schema/ovf">
  <References>
    <File ovf:href="{{xml .Name}}-disk1.vmdk" ovf:id="file1" ovf:size="{{.FileSize}}"/>
  </References>
  <DiskSection>
    <Info>Virtual disks</Info>
    <Disk ovf:capacity="{{.DiskSize}}" ovf:diskId="vmdisk1" ovf:fileRef="file1" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>
  </DiskSection>
  <NetworkSection>
    <Info>Networks</Info>
    <Network ovf:name="network"><Description>The network</Description></Network>
  </NetworkSection>
  <VirtualSystem ovf:id="{{xml .Name}}">
    <Info>A virtual machine</Info>
    <Name>{{xml .Name}}</Name>
    <OperatingSystemSection ovf:id="{{.SystemID}}" vmw:osType="{{.SystemType}}">
      <Info>The guest's operating system</Info>
    </OperatingSystemSection>
    <VirtualHardwareSection>
      <Info>Virtual hardware</Info>
      <System>
        <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>
        <vssd:InstanceID>0</vssd:InstanceID>
        <vssd:VirtualSystemIdentifier>{{xml .Name}}</vssd:VirtualSystemIdentifier>
        <vssd:VirtualSystemType>vmx-07</vssd:VirtualSystemType>
      </System>
      <Item>
        <rasd:AllocationUnits>hertz * 10^6</rasd:AllocationUnits>
        <rasd:ElementName>{{.CPUs}} processors</rasd:ElementName>
        <rasd:InstanceID>1</rasd:InstanceID>
        <rasd:ResourceType>3</rasd:ResourceType>
        <rasd:VirtualQuantity>{{.CPUs}}</rasd:VirtualQuantity>
      </Item>
      <Item>
        <rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits>
        <rasd:ElementName>{{.MemoryMiB}} MiB of memory</rasd:ElementName>
        <rasd:InstanceID>2</rasd:InstanceID>
        <rasd:ResourceType>4</rasd:ResourceType>
        <rasd:VirtualQuantity>{{.MemoryMiB}}</rasd:VirtualQuantity>
      </Item>
      <Item>
        <rasd:Address>0</rasd:Address>
        <rasd:ElementName>SCSI controller</rasd:ElementName>
        <rasd:InstanceID>3</rasd:InstanceID>
        <rasd:ResourceSubType>lsilogic</rasd:ResourceSubType>
        <rasd:ResourceType>6</rasd:ResourceType>
      </Item>
      <Item>
        <rasd:AddressOnParent>0</rasd:AddressOnParent>
        <rasd:ElementName>Disk</rasd:ElementName>
        <rasd:HostResource>ovf:/disk/vmdisk1</rasd:HostResource>
        <rasd:InstanceID>4</rasd:InstanceID>
        <rasd:Parent>3</rasd:Parent>
        <rasd:ResourceType>17</rasd:ResourceType>
      </Item>
      <Item>
        <rasd:AddressOnParent>1</rasd:AddressOnParent>
        <rasd:AutomaticAllocation>true</rasd:AutomaticAllocation>
        <rasd:Connection>network</rasd:Connection>
        <rasd:ElementName>Network card</rasd:ElementName>
        <rasd:InstanceID>5</rasd:InstanceID>
        <rasd:ResourceSubType>E1000</rasd:ResourceSubType>
        <rasd:ResourceType>10</rasd:ResourceType>
      </Item>
      <vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="{{.Firmware}}"/>
    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
`))

func escape(s string) (string, error) {
	var b bytes.Buffer
	err := xml.EscapeText(&b, []byte(s))
	return b.String(), err
}

// describe the machine with its disk; sizes are bytes.
func (m Machine) describe(fileSize, diskSize int64) ([]byte, error) {
	// CIM's numbers for a Linux that nobody names: 36, and 101 for one of 64 bits.
	about := struct {
		Machine
		FileSize, DiskSize   int64
		SystemID             int
		SystemType, Firmware string
	}{m, fileSize, diskSize, 101, "otherLinux64Guest", "bios"}
	if m.Architecture == "i386" {
		about.SystemID, about.SystemType = 36, "otherLinuxGuest"
	}
	if m.BootMode == cloud.UEFI {
		about.Firmware = "efi"
	}
	var b bytes.Buffer
	err := descriptor.Execute(&b, about)
	return b.Bytes(), err
}

// writeOVA packs description, manifest and disk, in this order, so that a reader can check each part
// as it comes. Equal arguments make equal bytes.
func writeOVA(ctx context.Context, dst io.Writer, disk *os.File, diskSize int64, m Machine, progress Progress) error {
	m = m.usual()
	info, err := disk.Stat()
	if err != nil {
		return err
	}
	text, err := m.describe(info.Size(), diskSize)
	if err != nil {
		return err
	}
	sum, err := sumOf(ctx, disk, sha256.New(), info.Size(), progress)
	if err != nil {
		return err
	}
	if _, err := disk.Seek(0, io.SeekStart); err != nil {
		return err
	}
	textSum := sha256.Sum256(text)
	manifest := fmt.Sprintf("SHA256(%s.ovf)= %s\nSHA256(%s-disk1.vmdk)= %s\n", m.Name, hex.EncodeToString(textSum[:]), m.Name, sum)
	out := tar.NewWriter(dst)
	for _, f := range []struct {
		name string
		size int64
		r    io.Reader
	}{
		{m.Name + ".ovf", int64(len(text)), bytes.NewReader(text)},
		{m.Name + ".mf", int64(len(manifest)), bytes.NewReader([]byte(manifest))},
		{m.Name + "-disk1.vmdk", info.Size(), disk},
	} {
		if err := writeMember(ctx, out, f.name, f.size, f.r, progress); err != nil {
			return fmt.Errorf("writing %s into the OVA: %w", f.name, err)
		}
	}
	return out.Close()
}

func writeMember(ctx context.Context, out *tar.Writer, name string, size int64, r io.Reader, progress Progress) error {
	h := &tar.Header{Name: name, Size: size, Mode: 0o644, Typeflag: tar.TypeReg, ModTime: time.Unix(epoch.Unix(), 0), Format: tar.FormatUSTAR}
	if size >= 8<<30 {
		h.Format = tar.FormatGNU // what hypervisors read of sizes that USTAR can't say
	}
	if err := out.WriteHeader(h); err != nil {
		return err
	}
	buf := make([]byte, copyBuffer)
	for done := int64(0); done < size; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := r.Read(buf[:min(copyBuffer, size-done)])
		if _, werr := out.Write(buf[:n]); werr != nil {
			return werr
		}
		done += int64(n)
		progress("packing the OVA", done, size)
		if err != nil && done < size {
			return err
		}
	}
	return nil
}
