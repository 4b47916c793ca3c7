package euca

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mallee/cloud"
	"mallee/image"
)

// imageCommand is `mallee image`: what the cloud's own operator does with images. The euca-commands do what any
// of its users may.
func imageCommand() *cobra.Command {
	parent := &cobra.Command{Use: "image", Short: "Images: the catalogue, installing from it, from files and from the web, and migrating"}
	parent.AddCommand(installImageCommand(), importCommand(), exportCommand(), catalogCommand())
	return parent
}

func installImageCommand() *cobra.Command {
	var w wanted
	cmd := &cobra.Command{
		Use:   "install NAME|FILE|URL",
		Short: "Build or fetch an image, and bundle, upload and register it",
		Long: `Install an image: one of the catalogue by its NAME, which is built or downloaded; or a FILE or a URL. The file may be
a disk or a root file system, as raw, qcow2, VMDK, VHD, VHDX or OVA, or a tar archive of kernel, ramdisk and root file system, compressed or not.
What it is is found out by its bytes.

An image that is installed already is not installed again: its ids are printed. An interrupted download goes on
where it stopped.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			w.source = args[0]
			return w.install(cmd)
		},
	}
	f := cmd.Flags()
	f.StringVar(&w.name, "name", "", "what the image is registered as (default: its own name and a digest)")
	f.StringVar(&w.description, "description", "", "what the image is described as")
	f.StringVar(&w.arch, "arch", "", "x86_64, i386 or arm64 (default: what is found, or x86_64)")
	f.StringVar(&w.virtualization, "virtualization-type", "", "hvm or paravirtual (default: what is found)")
	f.StringVar(&w.kernel, "kernel", "", "the kernel image (eki-…) of a paravirtual image without one of its own")
	f.StringVar(&w.ramdisk, "ramdisk", "", "its ramdisk image (eri-…)")
	f.StringVar(&w.digest, "digest", "", "what a download has to be: sha256:HEX or sha512:HEX")
	f.BoolVar(&w.public, "public", false, "let every account launch it")
	f.BoolVar(&w.ebs, "ebs", false, "make it EBS-backed: its instances start from a volume")
	return cmd
}

// wanted is what the command line asks for.
type wanted struct {
	source               string
	name, description    string
	arch, virtualization string
	kernel, ramdisk      string
	digest               string
	public, ebs          bool
}

// check what the command line alone shows.
func (w *wanted) check() error {
	switch {
	case w.virtualization != "" && w.virtualization != string(cloud.HVM) && w.virtualization != string(cloud.Paravirtual):
		return fmt.Errorf("--virtualization-type %s: hvm and paravirtual are known", w.virtualization)
	case w.virtualization == string(cloud.HVM) && (w.kernel != "" || w.ramdisk != ""):
		return errors.New("--kernel and --ramdisk: an hvm image boots by what is on its own disk")
	case w.ramdisk != "" && w.kernel == "":
		return errors.New("--ramdisk: name the kernel too, by --kernel")
	case w.digest != "" && !isURL(w.source):
		return fmt.Errorf("--digest: %s is no address, and an image of the catalogue has its own digest", w.source)
	}
	return nil
}

func isURL(s string) bool {
	return strings.HasPrefix(s, "https://") || strings.HasPrefix(s, "http://")
}

// isFile tells a file's name from one of the catalogue, which may contain a slash too.
func isFile(s string) bool {
	if filepath.IsAbs(s) || strings.HasPrefix(s, "./") || strings.HasPrefix(s, "../") {
		return true
	}
	info, err := os.Stat(s)
	return err == nil && !info.IsDir()
}

func (w *wanted) install(cmd *cobra.Command) error {
	out, err := printerOf(cmd)
	if err != nil {
		return err
	}
	if err := w.check(); err != nil {
		return err
	}
	folder, err := FolderOf(cmd)
	if err != nil {
		return err
	}
	var found image.Listed
	if !isURL(w.source) && !isFile(w.source) {
		if found, err = catalogs(folder).Find(w.source); err != nil {
			return err
		}
	}
	client, vars, err := Connect(folder)
	if err != nil {
		return err
	}
	show := newProgress(cmd.ErrOrStderr())
	defer show.end()
	b := bringer{wanted: w, dir: folder.Path("catalog"), client: http.DefaultClient, show: show}
	parcel, done, err := b.bring(cmd.Context(), found)
	if err != nil {
		return err
	}
	defer done()
	secrets, err := readSecrets(vars)
	if err != nil {
		return err
	}
	in := installer{client: client, secrets: secrets, parcel: parcel, show: show}
	ids, err := in.all(cmd.Context())
	if err != nil {
		return fmt.Errorf("install %s: %w", parcel.name, err)
	}
	show.end()
	return out.print(ids, ids.String())
}

// catalogs of the cloud in the folder.
func catalogs(f Folder) image.Catalogs {
	return image.Catalogs{Dir: f.Path("catalogs"), HTTP: &http.Client{Timeout: requestTimeout}, Now: time.Now}
}
