package main

import (
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"os"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"

	"mallee/cloud"
	"mallee/euca"
)

// overcommit is how many virtual processors are offered for each real one.
const overcommit = 16

// settings are the command line's, checked.
type settings struct {
	folder   euca.Folder
	listen   string
	accel    string
	capacity cloud.Size   // zero figures: what the host has
	public   netip.Prefix // zero: the cloud's own choice
	ceph     ceph         // zero: volumes are files
}

func settingsOf(cmd *cobra.Command) (s settings, err error) {
	if s.folder, err = euca.FolderOf(cmd); err != nil {
		return s, err
	}
	f := cmd.Flags()
	s.listen, _ = f.GetString("listen")
	s.accel, _ = f.GetString("accel")
	if s.accel != "auto" && s.accel != "kvm" && s.accel != "tcg" {
		return s, fmt.Errorf("--accel %s: auto, kvm and tcg are known", s.accel)
	}
	s.capacity.VCPUs, _ = f.GetInt("vcpus")
	s.capacity.MemoryMiB, _ = f.GetInt("memory")
	s.capacity.DiskGiB, _ = f.GetInt("disk")
	if c := s.capacity; min(c.VCPUs, c.MemoryMiB, c.DiskGiB) < 0 {
		return s, errors.New("--vcpus, --memory and --disk can't be negative")
	}
	if text, _ := f.GetString("public"); text != "" {
		if s.public, err = parsePublic(text); err != nil {
			return s, err
		}
	}
	if s.ceph, err = cephOf(cmd); err != nil {
		return s, err
	}
	return s, os.MkdirAll(string(s.folder), 0o700)
}

// ownServices is where the host's own services listen: 127.0.0.1, 127.0.0.53,
// 127.0.1.1.
var ownServices = netip.MustParsePrefix("127.0.0.0/16")

// parsePublic reads a range of loopback addresses that holds some to give out
// (the first and the last are not), and none of the host's own services.
func parsePublic(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil || !p.Addr().Is4() || !p.Addr().IsLoopback() || p.Bits() > 30 || p.Overlaps(ownServices) {
		return p, fmt.Errorf("--public %s: want a range of 127.0.0.0/8 outside %s, such as 127.31.0.0/16", text, ownServices)
	}
	return p.Masked(), nil
}

// publicPool is a range of the host's loopback addresses that is this cloud's
// own as long as its account number is: two clouds of one host rarely meet.
func (s settings) publicPool(account cloud.AccountID) netip.Prefix {
	if s.public.IsValid() {
		return s.public
	}
	sum := fnv.New32a()
	sum.Write([]byte(account))
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{127, byte(16 + sum.Sum32()%224), 0, 0}), 16)
}

// offered is what this host offers to instances: where the command line doesn't
// say, its processors 16 times over, its memory less 1 GiB, and the size of the
// folder's file system.
func (s settings) offered() (cloud.Size, error) {
	c := s.capacity
	if c.VCPUs == 0 {
		c.VCPUs = overcommit * runtime.NumCPU()
	}
	if c.MemoryMiB == 0 {
		var info syscall.Sysinfo_t
		if err := syscall.Sysinfo(&info); err != nil {
			return c, fmt.Errorf("how much memory the host has: %w", err)
		}
		c.MemoryMiB = max(int(uint64(info.Totalram)*uint64(info.Unit)>>20)-1024, 512)
	}
	if c.DiskGiB == 0 {
		var fs syscall.Statfs_t
		if err := syscall.Statfs(string(s.folder), &fs); err != nil {
			return c, fmt.Errorf("how large the disk of %s is: %w", s.folder, err)
		}
		c.DiskGiB = max(int(fs.Blocks*uint64(fs.Bsize)>>30), 1)
	}
	return c, nil
}
