package image

import (
	"context"
	"embed"
	"fmt"
	"strings"

	"mallee/cloud"
)

// A Recipe describes one image of the catalogue.
type Recipe struct {
	Name           string // what the user types
	Description    string // one line, also the registered image's description
	Architecture   string // EC2's name: x86_64
	Virtualization cloud.Virtualization

	version  int      // raised when the recipe's own code changes what it writes
	packages []want   // what the build needs, of which only a few files are looked at
	system   *system  // a Debian system to install, where the image has one
	files    embed.FS // our own part of the image
	config   string   // GRUB's
	assemble func(ctx context.Context, b *bench) error
}

// Catalog lists the images that Build can make.
var Catalog = []Recipe{
	{
		Name:           "tiny",
		Description:    "Mallee tiny: Debian cloud kernel, BusyBox and Dropbear on a bootable disk",
		Architecture:   "x86_64",
		Virtualization: cloud.HVM,
		version:        2,
		packages:       append([]want{{name: "grub-common", deep: true}, {name: "grub-pc-bin"}}, guestPackages...),
		files:          guestFiles,
		config:         tinyBoot,
		assemble:       assembleDisk,
	},
	{
		Name:           "tiny-pv",
		Description:    "Mallee tiny: Debian cloud kernel, BusyBox and Dropbear as kernel, ramdisk and root file system",
		Architecture:   "x86_64",
		Virtualization: cloud.Paravirtual,
		version:        1,
		packages:       guestPackages,
		files:          guestFiles,
		assemble:       assembleTrio,
	},
	{
		Name:           "debian-12",
		Description:    "Debian 12 (bookworm): systemd, cloud-init and OpenSSH, built here from Debian's packages",
		Architecture:   "x86_64",
		Virtualization: cloud.HVM,
		version:        1,
		packages:       debianPackages,
		system:         &debian12,
		files:          debianFiles,
		config:         debianBoot,
		assemble:       assembleDebian,
	},
}

// FindRecipe returns the recipe of that name; the error of an unknown one lists those there are.
func FindRecipe(name string) (Recipe, error) {
	var names []string
	for _, r := range Catalog {
		if r.Name == name {
			return r, nil
		}
		names = append(names, r.Name)
	}
	return Recipe{}, fmt.Errorf("no recipe %q in this program; it has %s", name, strings.Join(names, ", "))
}
