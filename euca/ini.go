package euca

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// ini is what euca2ools' configuration files say, all together: options by
// section, "global", "user NAME" or "region NAME". A later file's word counts.
type ini map[string]map[string]string

// iniPaths are where they stand, unless EUCA_CONFIG_PATH says otherwise.
var iniPaths = []string{"/etc/euca2ools/euca2ools.ini", "/etc/euca2ools/conf.d/*.ini", "~/.euca/*.ini"}

// readINI of all files; one that isn't there is none.
func readINI(env func(string) string) (ini, error) {
	patterns := iniPaths
	if p := env("EUCA_CONFIG_PATH"); p != "" {
		patterns = filepath.SplitList(p)
	}
	all := ini{}
	for _, pattern := range patterns {
		if below, ok := strings.CutPrefix(pattern, "~/"); ok {
			pattern = filepath.Join(env("HOME"), below)
		}
		files, err := filepath.Glob(pattern) // sorted
		if err != nil {
			return nil, fmt.Errorf("configuration files %s: %w", pattern, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				return nil, fmt.Errorf("read the configuration: %w", err)
			}
			if err := all.parse(string(text)); err != nil {
				return nil, fmt.Errorf("configuration file %s: %w", file, err)
			}
		}
	}
	return all, nil
}

// parse one file: [section], then lines of "option = value" or "option: value".
func (c ini) parse(text string) error {
	var section map[string]string
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		if name, ok := strings.CutPrefix(line, "["); ok {
			name, ok = strings.CutSuffix(name, "]")
			if !ok {
				return fmt.Errorf("line %d: %q is no section", number, line)
			}
			name = strings.Join(strings.Fields(name), " ")
			if c[name] == nil {
				c[name] = map[string]string{}
			}
			section = c[name]
			continue
		}
		at := strings.IndexAny(line, "=:")
		if at <= 0 || section == nil {
			return fmt.Errorf("line %d: %q is no option of a section", number, line)
		}
		section[strings.ToLower(strings.TrimSpace(line[:at]))] = strings.TrimSpace(line[at+1:])
	}
	return nil
}

// maxUse bounds how often a value may send on to another section.
const maxUse = 8

// get an option of a user or a region, kind and name; "" where nothing says.
// A section of that very name counts before those whose name has wildcards, the
// more particular of these first, and they before one of a namespace (ours:NAME).
// The value "use OTHER" or "use OTHER OPTION" sends on to another section.
func (c ini) get(kind, name, option string) string {
	for range maxUse {
		value := c.search(kind, name, option)
		words := strings.Fields(value)
		if len(words) < 2 || words[0] != "use" {
			return value
		}
		name = words[1]
		if len(words) > 2 {
			option = words[2]
		}
	}
	return ""
}

func (c ini) search(kind, name, option string) string {
	if name == "" {
		return ""
	}
	for _, section := range c.sections(kind, name) {
		if value, ok := c[section][option]; ok {
			return value
		}
	}
	return ""
}

// sections that speak of a user or region, what counts first in front.
func (c ini) sections(kind, name string) []string {
	var exact, wild, within []string
	for _, section := range slices.Sorted(maps.Keys(c)) {
		pattern, ok := strings.CutPrefix(section, kind+" ")
		if !ok {
			continue
		}
		matches, _ := path.Match(pattern, name)
		switch {
		case pattern == name:
			exact = append(exact, section)
		case matches:
			wild = append(wild, section)
		case strings.HasSuffix(pattern, ":"+name):
			within = append(within, section)
		}
	}
	slices.SortStableFunc(wild, func(a, b string) int {
		return len(strings.ReplaceAll(b, "*", "")) - len(strings.ReplaceAll(a, "*", ""))
	})
	return slices.Concat(exact, wild, within)
}

// named are the users or regions of the files, for a message.
func (c ini) named(kind string) string {
	var all []string
	for _, section := range slices.Sorted(maps.Keys(c)) {
		if name, ok := strings.CutPrefix(section, kind+" "); ok {
			all = append(all, name)
		}
	}
	return cmp.Or(strings.Join(all, ", "), "none")
}
