package image

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A want names a package that a recipe needs.
type want struct {
	name string
	deep bool // with everything it depends on
	meta bool // an empty package that depends on the real one, whose name starts with prefix
	// prefix tells the real package among a meta package's dependencies.
	prefix string
}

// A deb is one package at the version that apt would install.
type deb struct {
	Name string `json:"name"`
	File string `json:"file"`   // apt's file name, which has the version
	Size int64  `json:"size"`   // bytes
	Sum  string `json:"digest"` // ALGORITHM:HEX from apt's signed lists
}

// apt asks the host's apt, as it is configured, and keeps everything that apt would write in a
// folder of our own: caches always, package lists where the host has none or old ones.
type apt struct {
	dir     string // holds cache/ and, once updated, lists/
	updated bool   // use our own lists
}

// inputs are a build's packages.
type inputs struct {
	build     []deb    // for the build itself
	system    []deb    // installed in the image
	essential []string // names of those of system that come first
}

// all packages, sorted, each once.
func (in inputs) all() []deb {
	all := slices.Concat(in.build, in.system)
	slices.SortFunc(all, func(x, y deb) int { return strings.Compare(x.File, y.File) })
	return slices.CompactFunc(all, func(x, y deb) bool { return x.File == y.File })
}

// inputs asks apt for the recipe's packages. Where apt doesn't know one, it is asked again with freshly
// downloaded lists.
func (a *apt) inputs(ctx context.Context, r Recipe, progress Progress) (inputs, error) {
	in, err := a.known(ctx, r)
	if err == nil || ctx.Err() != nil || isMissingTool(err) {
		return in, err
	}
	if updateErr := a.update(ctx, progress); updateErr != nil {
		return in, errors.Join(err, updateErr)
	}
	return a.known(ctx, r)
}

func (a *apt) known(ctx context.Context, r Recipe) (in inputs, err error) {
	if in.build, err = a.ask(ctx, r.packages); err != nil || r.system == nil {
		return in, err
	}
	if in.system, err = a.onto(ctx, append([]string{"?essential"}, r.system.packages...)); err != nil {
		return in, err
	}
	if err := r.system.check(in.system); err != nil {
		return in, err
	}
	first, err := a.onto(ctx, []string{"?essential", "usr-is-merged"})
	for _, d := range first {
		in.essential = append(in.essential, d.Name)
	}
	return in, err
}

// onto lists what apt would install on a machine that has nothing yet. It depends on apt's lists and
// preferences, and not on what the host has.
func (a *apt) onto(ctx context.Context, names []string) ([]deb, error) {
	nothing := filepath.Join(a.dir, "status")
	if err := os.WriteFile(nothing, nil, 0o600); err != nil {
		return nil, err
	}
	defer os.Remove(nothing)
	out, err := a.output(ctx, "", "apt-get", append([]string{"-o", "Dir::State::status=" + nothing, "-o", "Dir::State::extended_states=" + nothing,
		"-o", "Dir::Cache::pkgcache=", "-o", "APT::Install-Recommends=0", "-o", "APT::Install-Suggests=0",
		"-y", "--print-uris", "install"}, names...)...)
	if err != nil {
		return nil, err
	}
	debs, err := parseURIs(out)
	if err != nil {
		return nil, err
	}
	var exact []string
	for _, d := range debs {
		exact = append(exact, d.exact())
	}
	return a.versions(ctx, exact) // which has checksums that are worth something
}

// exact names the package at its version, as apt takes it.
func (d deb) exact() string {
	name, version, _ := strings.Cut(strings.TrimSuffix(d.File, ".deb"), "_")
	version, _, _ = strings.Cut(version, "_")
	return name + "=" + strings.ReplaceAll(version, "%3a", ":")
}

func (a *apt) ask(ctx context.Context, wants []want) ([]deb, error) {
	var names, deep []string
	for _, w := range wants {
		switch {
		case w.meta:
			name, err := a.behind(ctx, w)
			if err != nil {
				return nil, err
			}
			names = append(names, name)
		case w.deep:
			deep = append(deep, w.name)
		default:
			names = append(names, w.name)
		}
	}
	closure, err := a.closure(ctx, deep)
	if err != nil {
		return nil, err
	}
	return a.versions(ctx, append(names, closure...))
}

// onlyDepends leaves hard dependencies in apt-cache's answer.
var onlyDepends = []string{"--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks", "--no-replaces", "--no-enhances"}

// behind finds the package that a meta package stands for.
func (a *apt) behind(ctx context.Context, w want) (string, error) {
	out, err := a.output(ctx, "", "apt-cache", append(append([]string{"depends"}, onlyDepends...), w.name)...)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(out)) {
		name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: ")
		if ok && strings.HasPrefix(name, w.prefix) {
			return name, nil
		}
	}
	return "", fmt.Errorf("apt's package %s depends on nothing that starts with %s", w.name, w.prefix)
}

// closure lists the packages and all that they depend on.
func (a *apt) closure(ctx context.Context, names []string) ([]string, error) {
	if len(names) == 0 {
		return nil, nil
	}
	args := append(append([]string{"depends", "--recurse"}, onlyDepends...), names...)
	out, err := a.output(ctx, "", "apt-cache", args...)
	if err != nil {
		return nil, err
	}
	var all []string
	for line := range strings.Lines(string(out)) {
		// Dependencies are indented, virtual packages in angle brackets.
		if name := strings.TrimRight(line, "\n"); name != "" && !strings.ContainsAny(name, " <") {
			all = append(all, name)
		}
	}
	return all, nil
}

// versions asks for each package's file, size and checksum at its candidate version.
func (a *apt) versions(ctx context.Context, names []string) ([]deb, error) {
	slices.Sort(names)
	names = slices.Compact(names)
	// apt leaves out what the working folder has already, so it has to be an empty one.
	empty, err := os.MkdirTemp(a.dir, ".empty-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(empty)
	out, err := a.output(ctx, empty, "apt-get", append([]string{"download", "--print-uris"}, names...)...)
	if err != nil {
		return nil, err
	}
	debs, err := parseURIs(out)
	if err == nil && len(debs) != len(names) {
		err = fmt.Errorf("apt-get download --print-uris lists %d files for %d packages", len(debs), len(names))
	}
	return debs, err
}

// parseURIs reads lines of 'URI' FILE SIZE ALGORITHM:HEX. The last is missing where apt knows none of the
// kind that it prints; such a package doesn't verify.
func parseURIs(out []byte) ([]deb, error) {
	var debs []deb
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) < 3 || !strings.HasPrefix(f[0], "'") {
			continue
		}
		size, err := strconv.ParseInt(f[2], 10, 64)
		name, _, ok := strings.Cut(f[1], "_")
		if err != nil || size < 0 || !ok || filepath.Base(f[1]) != f[1] {
			return nil, fmt.Errorf("apt-get download --print-uris printed %q, which is no package file", line)
		}
		d := deb{Name: name, File: f[1], Size: size}
		if len(f) > 3 {
			d.Sum = f[3]
		}
		debs = append(debs, d)
	}
	slices.SortFunc(debs, func(x, y deb) int { return strings.Compare(x.Name, y.Name) })
	return debs, nil
}

// download fetches packages into a folder; apt verifies them. The total is in bytes.
func (a *apt) download(ctx context.Context, debs []deb, dir string, progress Progress) error {
	var names []string
	var total int64
	for _, d := range debs {
		names = append(names, d.exact())
		total += d.Size
	}
	cmd, err := a.command(ctx, "apt-get", append([]string{"-q", "-o", "APT::Status-Fd=1", "download"}, names...)...)
	if err != nil {
		return err
	}
	cmd.Dir = dir
	step := fmt.Sprintf("downloading %d Debian packages", len(debs))
	progress(step, 0, total)
	err = runLines(cmd, func(line string) {
		if f := strings.SplitN(line, ":", 4); len(f) == 4 && f[0] == "dlstatus" {
			percent, _ := strconv.ParseFloat(f[2], 64)
			progress(step, int64(percent/100*float64(total)), total)
		}
	})
	if err == nil {
		progress(step, total, total)
	}
	return err
}

// update fetches package lists into our own folder. Hooks of the host's configuration that run
// after an update are for root and left out.
func (a *apt) update(ctx context.Context, progress Progress) error {
	const step = "updating package lists"
	lists := filepath.Join(a.dir, "lists")
	if err := os.MkdirAll(filepath.Join(lists, "partial"), 0o700); err != nil {
		return err
	}
	config := filepath.Join(a.dir, "update.conf")
	clear := "#clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n#clear APT::Update::Pre-Invoke;\n"
	if err := os.WriteFile(config, []byte(clear), 0o600); err != nil {
		return err
	}
	a.updated = true
	progress(step, 0, 1)
	cmd, err := a.command(ctx, "apt-get", "-c", config, "-q", "update")
	if err != nil {
		return err
	}
	err = runLines(cmd, func(string) {})
	if err == nil {
		progress(step, 1, 1)
	}
	return err
}

func (a *apt) output(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	cmd, err := a.command(ctx, name, args...)
	if err != nil {
		return nil, err
	}
	cmd.Dir = dir
	var out, msg bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &msg
	if err := cmd.Run(); err != nil {
		return nil, commandError(cmd, err, msg.String())
	}
	return out.Bytes(), nil
}

func (a *apt) cache() string { return filepath.Join(a.dir, "cache") }

func (a *apt) command(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	file, err := exec.LookPath(name)
	if err != nil {
		return nil, &MissingToolError{Tool: name, Package: "apt"}
	}
	cache := a.cache()
	if err := os.MkdirAll(filepath.Join(cache, "archives", "partial"), 0o700); err != nil {
		return nil, err
	}
	options := []string{"-o", "Dir::Cache=" + cache,
		"-o", "Dir::Cache::pkgcache=packages.bin", "-o", "Dir::Cache::srcpkgcache=sources.bin"}
	if a.updated {
		options = append(options, "-o", "Dir::State::lists="+filepath.Join(a.dir, "lists"))
	}
	cmd := exec.CommandContext(ctx, file, append(options, args...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	return cmd, nil
}

// runLines runs a command and hands on every line of its standard output.
func runLines(cmd *exec.Cmd, line func(string)) error {
	var msg bytes.Buffer
	cmd.Stderr = &msg
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", filepath.Base(cmd.Path), err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		line(lines.Text())
	}
	io.Copy(io.Discard, out) // whatever a line too long left behind: the command mustn't block
	if err := cmd.Wait(); err != nil {
		return commandError(cmd, err, msg.String())
	}
	return nil
}

// commandError names the command and the last line that it printed, which says why it failed.
func commandError(cmd *exec.Cmd, err error, stderr string) error {
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	last := lines[len(lines)-1]
	if i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "E: ") }); i >= 0 {
		last = lines[i]
	}
	if len(last) > 300 {
		last = last[:300]
	}
	return fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, last)
}

func isMissingTool(err error) bool {
	var missing *MissingToolError
	return errors.As(err, &missing)
}
