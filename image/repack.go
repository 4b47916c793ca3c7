package image

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// A .deb is an ar archive of three members: its version, what dpkg keeps of the package, and the files.
// Packages come compressed, and an emulated processor takes minutes to unpack what the host's takes
// seconds for; so the machine that installs them gets them repacked without compression, which dpkg reads
// as well. Times later than the image's are brought back to it: compiled Python remembers its source's.

const (
	arMagic  = "!<arch>\n"
	arHeader = 60 // bytes before each member
)

// repack writes the package src, uncompressed, into a new file.
func repack(ctx context.Context, src, dst string) error {
	var control bytes.Buffer
	if err := debMember(ctx, src, "--ctrl-tarfile", &control); err != nil {
		return err
	}
	out, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	var head bytes.Buffer
	head.WriteString(arMagic)
	arMember(&head, "debian-binary", []byte("2.0\n"))
	arMember(&head, "control.tar", control.Bytes())
	if _, err := out.Write(head.Bytes()); err != nil {
		return err
	}
	// The size comes into the header when it is known.
	start := int64(head.Len() + arHeader)
	if _, err := out.Seek(start, io.SeekStart); err != nil {
		return err
	}
	if err := debMember(ctx, src, "--fsys-tarfile", out); err != nil {
		return err
	}
	end, err := out.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if _, err := out.WriteAt(arHead("data.tar", end-start), start-arHeader); err != nil {
		return err
	}
	return out.Close() // a tar archive has an even size, so nothing is padded
}

func arMember(w *bytes.Buffer, name string, data []byte) {
	w.Write(arHead(name, int64(len(data))))
	w.Write(data)
	if len(data)%2 != 0 {
		w.WriteByte('\n')
	}
}

func arHead(name string, size int64) []byte {
	return fmt.Appendf(nil, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", name, epoch.Unix(), 0, 0, "100644", size)
}

// debMember copies one of a package's two archives, with its times brought back.
func debMember(ctx context.Context, file, which string, w io.Writer) error {
	tool, err := exec.LookPath("dpkg-deb")
	if err != nil {
		return &MissingToolError{Tool: "dpkg-deb", Package: "dpkg"}
	}
	var msg bytes.Buffer
	cmd := exec.CommandContext(ctx, tool, which, file)
	cmd.Stderr = &msg
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting dpkg-deb: %w", err)
	}
	copyErr := copyTar(w, out)
	io.Copy(io.Discard, out)
	if err := cmd.Wait(); err != nil {
		return commandError(cmd, err, msg.String())
	}
	if copyErr != nil {
		return fmt.Errorf("repacking package %s: %w", file, copyErr)
	}
	return nil
}

// copyTar copies an archive in the form that dpkg reads, which is GNU's.
func copyTar(w io.Writer, r io.Reader) error {
	in, out := tar.NewReader(r), tar.NewWriter(w)
	for {
		h, err := in.Next()
		if err == io.EOF {
			return out.Close()
		}
		if err != nil {
			return err
		}
		h.Format, h.PAXRecords = tar.FormatGNU, nil
		h.ModTime, h.AccessTime, h.ChangeTime = notAfter(h.ModTime, epoch), time.Time{}, time.Time{}
		if err := out.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(out, in); err != nil {
			return err
		}
	}
}

// notAfter is t in whole seconds, or the limit where t is later.
func notAfter(t, limit time.Time) time.Time {
	if t.After(limit) {
		return limit
	}
	return t.Truncate(time.Second).UTC()
}
