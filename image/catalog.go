package image

import (
	"context"
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

	version  int // raised when the recipe's own code changes what it writes
	packages []want
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
		assemble:       assembleDisk,
	},
	{
		Name:           "tiny-pv",
		Description:    "Mallee tiny: Debian cloud kernel, BusyBox and Dropbear as kernel, ramdisk and root file system",
		Architecture:   "x86_64",
		Virtualization: cloud.Paravirtual,
		version:        1,
		packages:       guestPackages,
		assemble:       assembleTrio,
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
