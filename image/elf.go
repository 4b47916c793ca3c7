package image

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// libraryDirs are where Debian's packages have shared libraries, before and after /lib moved
// into /usr.
var libraryDirs = []string{"lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"}

// isLibrary tells a shared library, or the dynamic loader, by its path.
func isLibrary(name string) bool {
	return slices.Contains(libraryDirs, path.Dir(name)) && strings.Contains(path.Base(name), ".so") ||
		path.Dir(name) == "lib64" || path.Dir(name) == "usr/lib64"
}

// addProgram copies a program into the image at dest, and the dynamic loader and the libraries
// it needs to where the loader looks for them.
func addProgram(image, packages tree, source, dest string) error {
	data, err := packages.follow(source)
	if err != nil {
		return err
	}
	image.file(dest, 0o755, data)
	loader, queue, err := dependencies(source, data)
	if err != nil {
		return err
	}
	if loader != "" {
		data, err := findLibrary(packages, path.Base(loader))
		if err != nil {
			return fmt.Errorf("loader of %s: %w", source, err)
		}
		image.file(loader, 0o755, data)
	}
	for len(queue) > 0 {
		name := queue[0]
		queue = queue[1:]
		target := path.Join(libraryDirs[0], name)
		if image[target] != nil {
			continue
		}
		data, err := findLibrary(packages, name)
		if err != nil {
			return fmt.Errorf("library of %s: %w", source, err)
		}
		image.file(target, 0o644, data)
		_, more, err := dependencies(name, data)
		if err != nil {
			return err
		}
		queue = append(queue, more...)
	}
	return nil
}

// findLibrary returns a library's bytes from wherever the packages have it.
func findLibrary(packages tree, name string) ([]byte, error) {
	for _, dir := range libraryDirs {
		if data, err := packages.follow(path.Join(dir, name)); err == nil {
			return data, nil
		}
	}
	return nil, fmt.Errorf("%s is in none of the packages: %w", name, fs.ErrNotExist)
}

// dependencies reads a program's loader ("" for a static one) and the libraries it names.
func dependencies(name string, data []byte) (loader string, libraries []string, err error) {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", name, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP && p.Filesz < 256 {
			b := make([]byte, p.Filesz)
			if _, err := p.ReadAt(b, 0); err != nil {
				return "", nil, fmt.Errorf("%s: reading its loader's name: %w", name, err)
			}
			loader = strings.Trim(string(b), "/\x00")
		}
	}
	libraries, err = f.ImportedLibraries()
	if err != nil {
		return "", nil, fmt.Errorf("%s: reading the libraries it needs: %w", name, err)
	}
	// glibc names its own loader as a library; it is there by the path in PT_INTERP.
	libraries = slices.DeleteFunc(libraries, func(l string) bool { return strings.HasPrefix(l, "ld-linux") })
	return loader, libraries, nil
}
