package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// maxMembers is how many files an archive of images may have. A root file system as an
// archive has thousands, and isn't an image.
const maxMembers = 256

// A member is a file of an archive, with what its beginning says that it is.
type member struct {
	name string
	size int64
	off  int64 // where its bytes are, in an archive that isn't compressed
	info Info
}

// walk calls visit for each file of a tar archive. It refuses what a tar archive of files doesn't need:
// links, devices, names that lead out of a folder, the same name twice.
func walk(ctx context.Context, r io.Reader, limits Limits, visit func(h *tar.Header, r io.Reader) error) error {
	archive := tar.NewReader(r)
	seen := map[string]bool{}
	for n := 0; ; n++ {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		h, err := archive.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return archiveError(err)
		}
		if n > maxMembers {
			return refuse("the archive has more than %d files: it is no archive of an image. A root file system has to be an image itself, not the files in it", maxMembers)
		}
		if err := checkMember(h, limits); err != nil {
			return err
		}
		if h.Typeflag == tar.TypeDir {
			continue
		}
		if name := path.Clean(h.Name); seen[name] {
			return refuse("the archive has two files named %q", name)
		}
		seen[path.Clean(h.Name)] = true
		if err := visit(h, memberReader{archive}); err != nil {
			return err
		}
	}
}

// memberReader puts an archive's errors into words.
type memberReader struct{ r io.Reader }

func (m memberReader) Read(b []byte) (int, error) {
	n, err := m.r.Read(b)
	if err != nil && err != io.EOF {
		err = archiveError(err)
	}
	return n, err
}

// archiveError blames the archive, unless it is known whose fault the error is.
func archiveError(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, tar.ErrFieldTooLong) {
		return refuse("the archive is damaged or cut off: %v", err)
	}
	return err
}

func checkMember(h *tar.Header, limits Limits) error {
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeDir, tar.TypeGNUSparse:
	case tar.TypeSymlink, tar.TypeLink:
		return refuse("the archive has a link in it, %q to %q, which isn't followed", printable([]byte(h.Name)), printable([]byte(h.Linkname)))
	default:
		return refuse("the archive has %q in it, which is no file (type %q)", printable([]byte(h.Name)), h.Typeflag)
	}
	if err := checkName(h.Name); err != nil {
		return err
	}
	if h.Size < 0 || h.Size > limits.VirtualSize {
		return refuse("the archive says that %q has %d bytes; the limit is %d", printable([]byte(h.Name)), h.Size, limits.VirtualSize)
	}
	return nil
}

// checkName refuses what isn't the plain name of a file in a folder.
func checkName(name string) error {
	clean := path.Clean(name)
	if name == "" || strings.HasPrefix(name, "/") || strings.ContainsAny(name, "\x00\\") || clean == ".." || strings.HasPrefix(clean, "../") ||
		strings.Contains("/"+name+"/", "/../") {
		return refuse("the archive has the name %q in it, which leads out of the archive", printable([]byte(name)))
	}
	return nil
}

// list the files of an archive, each with what it is.
func list(ctx context.Context, r io.Reader, limits Limits) (all []member, err error) {
	at, _ := r.(io.Seeker)
	head := make([]byte, headSize)
	err = walk(ctx, r, limits, func(h *tar.Header, r io.Reader) error {
		m := member{name: path.Clean(h.Name), size: h.Size, off: -1}
		if at != nil && !sparse(h) {
			if m.off, err = at.Seek(0, io.SeekCurrent); err != nil {
				return err
			}
		}
		n, err := io.ReadFull(r, head[:min(h.Size, headSize)])
		if err != nil {
			return fmt.Errorf("reading %q in the archive: %w", m.name, err)
		}
		m.info = probeParts(head[:n], nil, h.Size)
		all = append(all, m)
		return nil
	})
	return all, err
}

// sparse tells whether a member's bytes don't lie in the archive as they are.
func sparse(h *tar.Header) bool {
	for name := range h.PAXRecords {
		if strings.HasPrefix(name, "GNU.sparse.") {
			return true
		}
	}
	return h.Typeflag == tar.TypeGNUSparse
}

// A choice is which files of an archive are the image. Names are "" where there is none.
type choice struct {
	disk                  string
	kernel, ramdisk, root string
}

// rootFileSystems are those that a Linux may have its root on; others in an archive are floppies and the like.
const rootFileSystems = "ext2 ext3 ext4 xfs btrfs squashfs erofs f2fs "

// choose the image among an archive's files, by what they are, not by what they are called. Two names
// count: Eucalyptus's archives of old have kernels for either hypervisor, in kvm-kernel and xen-kernel, of which
// ours is the first.
func choose(all []member) (choice, error) {
	kvm := false
	for _, m := range all {
		kvm = kvm || inFolder(m.name, "kvm-kernel") && m.info.NotAKernel() == nil
	}
	var disks, kernels, ramdisks, roots []string
	for _, m := range all {
		switch name := strings.ToLower(path.Base(m.name)); {
		case kvm && inFolder(m.name, "xen-kernel"), m.size == 0:
		case m.info.NotAKernel() == nil:
			kernels = append(kernels, m.name)
		case m.info.Ramdisk, m.info.NotARamdisk() == nil && (strings.Contains(name, "initr") || strings.Contains(name, "ramdisk")):
			ramdisks = append(ramdisks, m.name)
		case m.info.Partitions != "", examiners[m.info.Format] != nil:
			disks = append(disks, m.name)
		case strings.Contains(rootFileSystems, m.info.FileSystem+" ") && m.info.FileSystem != "":
			roots = append(roots, m.name)
		}
	}
	for what, names := range map[string][]string{"disks": disks, "root file systems": roots} {
		if len(names) > 1 {
			return choice{}, refuse("the archive has several %s (%s): which one is the image, nothing tells", what, quoted(names))
		}
	}
	switch {
	case len(disks) == 1:
		return choice{disk: disks[0]}, nil
	case len(roots) == 0:
		return choice{}, refuse("the archive has neither a disk nor a root file system among its %d files", len(all))
	case len(kernels) > 1 || len(ramdisks) > 1:
		return choice{}, refuse("the archive has several kernels or ramdisks (%s): which of them the image runs with, nothing tells", quoted(append(kernels, ramdisks...)))
	}
	return choice{root: roots[0], kernel: first(kernels), ramdisk: first(ramdisks)}, nil
}

func inFolder(name, folder string) bool {
	return strings.Contains("/"+path.Dir(name)+"/", "/"+folder+"/")
}

func first(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return names[0]
}

func quoted(names []string) string {
	var b bytes.Buffer
	for i, n := range names[:min(len(names), 4)] {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%q", printable([]byte(n)))
	}
	return b.String()
}
