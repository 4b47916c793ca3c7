package euca

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"mallee/hypervisor/qemu"
)

func doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Say what this host has and lacks, and the command that mends each",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out, err := printerOf(cmd)
			if err != nil {
				return err
			}
			folder, err := FolderOf(cmd)
			if err != nil {
				return err
			}
			findings := examine(cmd.Context(), folder)
			if err := out.print(findings, table(findings)); err != nil {
				return err
			}
			for _, f := range findings {
				if f.Verdict == lacking {
					return errors.New("mallee can't run instances on this host yet: see what is lacking above")
				}
			}
			return nil
		},
	}
}

// verdict on one thing that Mallee uses.
type verdict string

const (
	fine    verdict = "ok"
	slower  verdict = "could be better" // works, but less well
	lacking verdict = "lacking"         // instances can't run without it
)

// finding is what doctor says of one thing.
type finding struct {
	Thing   string  `json:"thing"`
	Verdict verdict `json:"verdict"`
	Detail  string  `json:"detail"`
	Mend    string  `json:"mend,omitempty"` // the command that mends it
}

// tools that instances and the catalogue's images need, and Debian's package of each.
var tools = []struct {
	name, pkg, use string
	verdict        verdict // where it is missing
}{
	{"qemu-system-x86_64", "qemu-system-x86", "runs instances", lacking},
	{"mke2fs", "e2fsprogs", "formats ephemeral disks", lacking},
	{"apt-get", "apt", "brings the catalogue's packages", slower},
	{"dpkg-deb", "dpkg", "unpacks the catalogue's packages", slower},
	{"ssh", "openssh-client", "logs into instances", slower},
}

func examine(ctx context.Context, folder Folder) []finding {
	var all []finding
	for _, t := range tools {
		all = append(all, examineTool(t.name, t.pkg, t.use, t.verdict))
	}
	all = append(all, examineCeph()...)
	all = append(all, examineAccel(ctx)...)
	return append(all, examineMemory(), examineDisk(folder), examinePorts(), examineLoopback())
}

func examineTool(name, pkg, use string, missing verdict) finding {
	if path, err := lookTool(name); err == nil {
		return finding{name, fine, path + " " + use, ""}
	}
	return finding{name, missing, "not installed; it " + use, "apt-get install " + pkg}
}

// lookTool finds a program, also where only root's PATH has it.
func lookTool(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	if path, err := exec.LookPath("/usr/sbin/" + name); err == nil {
		return path, nil
	}
	return exec.LookPath("/sbin/" + name)
}

// examineAccel runs a small guest under TCG and one under KVM.
func examineAccel(ctx context.Context) []finding {
	emulation := finding{"emulation (TCG)", fine, "a guest has run", ""}
	if err := qemu.Try(ctx, "", qemu.TCG); err != nil {
		emulation = finding{"emulation (TCG)", lacking, err.Error(), "apt-get install qemu-system-x86"}
	}
	proof := qemu.Probe(ctx, "", qemu.Proof{})
	kvm := finding{"acceleration (KVM)", fine, "a guest has run", ""}
	if proof.Accel != qemu.KVM {
		kvm = finding{"acceleration (KVM)", slower, proof.Why, "enable virtualization in the firmware, or nested virtualization in the host's hypervisor"}
		if errors.Is(syscall.Access("/dev/kvm", 2), syscall.EACCES) {
			kvm.Mend = "adduser " + cmp.Or(os.Getenv("USER"), "YOU") + " kvm, and log in again"
		}
	}
	return []finding{emulation, kvm}
}

func examineMemory() finding {
	var info syscall.Sysinfo_t
	if err := syscall.Sysinfo(&info); err != nil {
		return finding{"memory", slower, err.Error(), ""}
	}
	mib := int64(info.Totalram) * int64(info.Unit) >> 20
	f := finding{"memory", fine, fmt.Sprintf("%d MiB", mib), ""}
	if mib < 2048 {
		f.Verdict, f.Mend = slower, "an m1.small takes 512 MiB: more memory runs more instances"
	}
	return f
}

func examineDisk(folder Folder) finding {
	path := string(folder)
	var fs syscall.Statfs_t
	for syscall.Statfs(path, &fs) != nil && path != "/" {
		path = path[:max(strings.LastIndexByte(path, '/'), 1)]
	}
	gib := fs.Bavail * uint64(fs.Bsize) >> 30
	f := finding{"disk", fine, fmt.Sprintf("%d GiB free for %s", gib, folder), ""}
	if gib < 5 {
		f.Verdict, f.Mend = slower, "choose a folder with more room by --data"
	}
	return f
}

// examinePorts tries at which port of its public address an instance's SSH is
// reached. The address is one that no cloud gives to an instance.
func examinePorts() finding {
	l, err := net.Listen("tcp", "127.255.255.254:22")
	switch {
	case err == nil:
		l.Close()
		return finding{"low ports", fine, "instances answer at their own ports: ssh -i KEY root@127.x.y.z", ""}
	case errors.Is(err, syscall.EACCES):
		return finding{"low ports", slower, "this user may not listen at low ports, which are moved up by 10000: ssh -p 10022 -i KEY root@127.x.y.z",
			"sysctl net.ipv4.ip_unprivileged_port_start=22"}
	}
	return finding{"low ports", slower, "port 22 is taken at every address, by the host's own sshd perhaps; instances have 10022: ssh -p 10022 -i KEY root@127.x.y.z",
		"set ListenAddress in /etc/ssh/sshd_config to the host's own addresses"}
}

func examineLoopback() finding {
	l, err := net.Listen("tcp", "127.16.0.1:0")
	if err != nil {
		return finding{"public addresses", lacking, "can't listen on 127.16.0.1: " + err.Error(), "ip addr add 127.0.0.1/8 dev lo; ip link set lo up"}
	}
	l.Close()
	return finding{"public addresses", fine, "any 127.x.y.z can be listened on", ""}
}

func table(findings []finding) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, f := range findings {
		fmt.Fprintf(w, "%s\t%s\t%s\n", f.Thing, f.Verdict, f.Detail)
		if f.Mend != "" {
			fmt.Fprintf(w, "\t\t→ %s\n", f.Mend)
		}
	}
	w.Flush()
	return strings.TrimSuffix(b.String(), "\n")
}
