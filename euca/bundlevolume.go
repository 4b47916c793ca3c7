package euca

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"mallee/bundle"
)

// volumeOptions say what of a machine is bundled.
var volumeOptions = []option{
	text("p,prefix", "NAME", "name of the bundle (default image)"),
	text("d,destination", "DIR", "where the bundle goes (default: a new folder in $TMPDIR or /var/tmp)"),
	text("r,arch", "ARCH", "what the image runs on").required().among(architectures...),
	text("v,volume", "DIR|DEVICE", "folder whose files are bundled, or block device or disk file that is, as it is (default /)"),
	whole("s,size", "MiB", "size of the image's file system (default 10240)"),
	text("e,exclude", "PATH,...", "leave out; * stands for any part of a name, and a pattern without / for a name anywhere"),
	text("i,include", "PATH,...", "leave in what would be left out"),
	toggle("no-filter", "leave in what is left out by default: secrets, and what is a running system's own"),
	toggle("all", "file systems of all kinds that are mounted below, not the local ones alone"),
	toggle("inherit", "take kernel, ramdisk, product codes and devices from the instance that this is (default)"),
	toggle("no-inherit", "don't: this is no instance"),
	text("metadata-url", "URL", "address of the metadata service (default "+metadataURL+")"),
	text("file-system", "TYPE", "kind of the image's file system (default ext4)").among("ext2", "ext3", "ext4"),
	text("fstab", "FILE", "becomes the image's /etc/fstab"),
	toggle("generate-fstab", "make an /etc/fstab for the image"),
	text("grub-config", "FILE", "becomes the image's /boot/grub/menu.lst"),
	text("P,partition", "TABLE", "none: the image is a file system").among("mbr", "gpt", "none"),
	text("script", "FILE", "not supported"),
}

const metadataURL = "http://169.254.169.254/2012-01-12/meta-data"

// bundleVolume needs neither root nor mounts: the file system is written by
// mke2fs and debugfs, from the files that the user can read.
func bundleVolume(s *session) error {
	if err := checkVolume(s); err != nil {
		return err
	}
	job := &bundling{}
	if err := s.describe(job); err != nil {
		return err
	}
	if !s.given("no-inherit") {
		if err := s.inherit(&job.Options); err != nil {
			return err
		}
	}
	job.Prefix = cmp.Or(s.text("prefix"), "image")
	volume := cmp.Or(s.text("volume"), "/")
	info, err := os.Stat(volume)
	if err != nil {
		return fmt.Errorf("argument -v/--volume: %w", err)
	}
	if !info.IsDir() {
		return s.bundleDevice(job, volume)
	}
	dir, err := os.MkdirTemp(temporaryFolder(), "volume-")
	if err != nil {
		return fmt.Errorf("make a folder for the image: %w", err)
	}
	defer os.RemoveAll(dir)
	image := filepath.Join(dir, job.Prefix)
	if err := s.makeVolume(volume, image); err != nil {
		return err
	}
	return s.bundleDevice(job, image)
}

func checkVolume(s *session) error {
	if err := errors.Join(s.together("inherit", "no-inherit"), s.together("fstab", "generate-fstab")); err != nil {
		return err
	}
	switch {
	case s.text("partition") == "mbr" || s.text("partition") == "gpt":
		return fmt.Errorf("argument -P/--partition: no boot loader would be on the disk; bundle the whole disk as it is, as by -v /dev/vda, or a file system to boot with a kernel image")
	case s.given("script"):
		return errors.New("argument --script: nothing is mounted that a script could change; copy the files, change them, and bundle the copy by -v")
	}
	return nil
}

// bundleDevice bundles a disk or file as it is.
func (s *session) bundleDevice(job *bundling, name string) error {
	mounts, err := readMounts()
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if m.device == name {
			return fmt.Errorf("%s is mounted at %s, and what is on it changes while it is read: unmount it, or bundle the folder", name, m.dir)
		}
	}
	f, size, err := openDisk(name)
	if err != nil {
		return err
	}
	defer f.Close()
	job.src, job.size = f, size
	return s.bundleInto(job)
}

// inherit what the metadata service tells and no option does.
func (s *session) inherit(o *bundle.Options) error {
	m := metadata{cmp.Or(s.text("metadata-url"), metadataURL), http.Client{Timeout: time.Second, Transport: &http.Transport{}}}
	var err error
	get := func(path string) (text string) {
		if err == nil {
			text, err = m.get(s.ctx, path)
		}
		return text
	}
	o.KernelID, o.RamdiskID = cmp.Or(o.KernelID, get("kernel-id")), cmp.Or(o.RamdiskID, get("ramdisk-id"))
	if o.ProductCodes == nil {
		o.ProductCodes = strings.Fields(get("product-codes"))
	}
	if o.BlockDeviceMappings == nil {
		for _, virtual := range strings.Fields(get("block-device-mapping/")) {
			if !strings.HasPrefix(virtual, "ebs") {
				o.BlockDeviceMappings = append(o.BlockDeviceMappings, bundle.Mapping{Virtual: virtual, Device: get("block-device-mapping/" + virtual)})
			}
		}
	}
	if err != nil {
		return fmt.Errorf("the metadata service tells nothing (where this is no instance, say --no-inherit): %w", err)
	}
	return nil
}

// metadata service of an instance.
type metadata struct {
	url    string
	client http.Client
}

// get a value; "" where there is none.
func (m *metadata) get(ctx context.Context, path string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, m.url+"/"+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := m.client.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		return "", nil
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, resp.Status)
	}
	return strings.TrimSpace(string(text)), err
}

// mount is a line of /proc/self/mounts.
type mount struct{ device, dir, kind string }

func readMounts() (all []mount, err error) {
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 2 {
			all = append(all, mount{octal.Replace(fields[0]), octal.Replace(fields[1]), fields[2]})
		}
	}
	return all, nil
}

// octal is how blanks are written in /proc/self/mounts.
var octal = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// localKinds of file systems are bundled with what they are mounted in.
var localKinds = []string{"btrfs", "ext2", "ext3", "ext4", "jfs", "xfs"}

// maxVolume is the largest file system that is made, in MiB.
const maxVolume = 16 << 20

// makeVolume makes the file system of a folder's files in a new file.
func (s *session) makeVolume(volume, image string) error {
	root, err := filepath.Abs(volume)
	if err == nil {
		root, err = filepath.EvalSymlinks(root)
	}
	if err != nil {
		return err
	}
	mib, err := strconv.ParseInt(cmp.Or(s.text("size"), "10240"), 10, 64)
	if err != nil || mib < 1 || mib > maxVolume {
		return fmt.Errorf("argument -s/--size: a file system has 1 to %d MiB", maxVolume)
	}
	v := &volumeTree{root: root, kind: cmp.Or(s.text("file-system"), "ext4"), size: mib << 20, id: newUUID()}
	if v.keep, err = s.volumeFilter(root, filepath.Dir(image)); err != nil {
		return err
	}
	show := s.progress()
	defer show.end()
	show.show("looking for files below "+root, 0, 0)
	if err := v.walk(s.ctx); err != nil {
		return err
	}
	if err := s.replaceFiles(v, filepath.Dir(image)); err != nil {
		return err
	}
	gone, err := v.write(s.ctx, image, func(done, total int64) { show.show(fmt.Sprintf("copying %d files", len(v.entries)), done, total) })
	if gone > 0 {
		s.note("%d files were gone when they were to be copied", gone)
	}
	return err
}

// replaceFiles that options name; what was there before stays as NAME.bak.
func (s *session) replaceFiles(v *volumeTree, scratch string) error {
	fstab := s.text("fstab")
	if s.given("generate-fstab") {
		fstab = filepath.Join(scratch, "fstab")
		text := fmt.Sprintf("UUID=%s\t/\t%s\tdefaults\t0 1\nproc\t/proc\tproc\tdefaults\t0 0\nsysfs\t/sys\tsysfs\tdefaults\t0 0\ndevpts\t/dev/pts\tdevpts\tgid=5,mode=620\t0 0\n", v.id, v.kind)
		if err := os.WriteFile(fstab, []byte(text), 0o600); err != nil {
			return err
		}
	}
	for path, file := range map[string]string{"etc/fstab": fstab, "boot/grub/menu.lst": s.text("grub-config")} {
		if file == "" {
			continue
		}
		whole, err := filepath.Abs(file)
		if err == nil {
			err = v.replace(path, whole)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// unwanted in an image: secrets, editors' leftovers, and what a running system
// has of its own.
var unwanted = []string{
	"/dev/*", "/proc/*", "/sys/*", "/run/*", "/tmp/*", "/var/tmp/*", "/mnt/*", "/media/*", "/lost+found",
	"/etc/ssh/ssh_host_*", "/etc/udev/rules.d/70-persistent-net.rules", "/etc/udev/rules.d/75-persistent-net-generator.rules",
	"#*#", ".#*", "*.swp", "*.swo", "*~", "*.priv", "*-pk.pem", "id_rsa", "id_dsa", "id_ecdsa", "id_ed25519",
	"authorized_keys", ".bash_history", "eucarc",
}

// volumeFilter tells what of a folder belongs into the image, by its path there,
// which begins with a slash. What is below scratch never does.
func (s *session) volumeFilter(root, scratch string) (func(path string, d fs.DirEntry) bool, error) {
	in, out := listed(s.text("include")), listed(s.text("exclude"))
	if !s.given("no-filter") {
		out = append(out, unwanted...)
	}
	for _, pattern := range slices.Concat(in, out) {
		if _, err := filepath.Match(pattern, ""); err != nil {
			return nil, fmt.Errorf("pattern %q: %w", pattern, err)
		}
	}
	var foreign []string // folders on which something else is mounted
	mounts, err := readMounts()
	if err != nil {
		return nil, err
	}
	for _, m := range mounts {
		if below, ok := strings.CutPrefix(m.dir, strings.TrimSuffix(root, "/")+"/"); ok && below != "" && !slices.Contains(localKinds, m.kind) && !s.given("all") {
			foreign = append(foreign, "/"+below)
		}
	}
	own := []string{scratch}
	if dir := s.text("destination"); dir != "" {
		if dir, err = filepath.Abs(dir); err != nil {
			return nil, err
		}
		own = append(own, dir)
	}
	return func(path string, _ fs.DirEntry) bool {
		switch {
		case slices.Contains(own, filepath.Join(root, path)), slices.Contains(foreign, filepath.Dir(path)):
			return false
		case slices.ContainsFunc(in, func(p string) bool { return named(p, path) }):
			return true
		}
		return !slices.ContainsFunc(out, func(p string) bool { return named(p, path) })
	}, nil
}

// named tells whether a pattern means a path.
func named(pattern, path string) bool {
	if !strings.Contains(pattern, "/") {
		path = filepath.Base(path)
	} else if !strings.HasPrefix(pattern, "/") {
		pattern = "/" + pattern
	}
	ok, _ := filepath.Match(strings.TrimSuffix(pattern, "/"), path) // it was tried before
	return ok
}
