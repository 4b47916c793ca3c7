package euca

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// command is one euca-command.
type command struct {
	name    string // without euca-
	short   string
	takes   string // its arguments, as its usage shows them: "IMAGE", "[IMAGE]", "IMAGE...", "[IMAGE...]"
	as      string // the parameter that the arguments become; "" where run sees to them
	options []option
	filters bool   // it takes --filter
	url     string // the service that -U is for: "s3", or EC2
	run     func(*session) error
}

// prefix of every euca-command's name.
const prefix = "euca-"

// eucaCommands is the table of all of them, a file a noun.
func eucaCommands() []command {
	return slices.Concat(
		imageCommands(), imageAttributeCommands(), taskCommands(), bundleCommands(),
		instanceCommands(), passwordCommands(), runCommands(), keyCommands(), tagCommands(),
		volumeCommands(), snapshotCommands(), cloudCommands(),
	)
}

// cobra is the command as a subcommand of mallee.
func (c command) cobra() *cobra.Command {
	cmd := &cobra.Command{
		Use:     strings.TrimSpace(prefix + c.name + " " + c.takes),
		Short:   c.short,
		Version: Version,
		Hidden:  true, // 70 of them; mallee euca-commands lists them
		Args:    func(_ *cobra.Command, args []string) error { return c.count(args) },
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := c.session(cmd, args)
			if err != nil {
				return err
			}
			return errors.Join(c.run(s), s.out.Flush())
		},
	}
	f := cmd.Flags()
	for _, o := range slices.Concat(c.options, commonOptions) {
		o.add(f)
	}
	if c.filters {
		filterOption.add(f)
	}
	return cmd
}

// commonOptions are every command's; --data and --output are the program's.
var commonOptions = []option{
	text("U,url", "URL", "endpoint of the service"),
	text("I,access-key-id", "KEY_ID", "access key"),
	text("S,secret-key", "KEY", "its secret"),
	text("security-token", "TOKEN", "token of a session, where the access key is one's"),
	text("region", "USER@REGION", "user and region of the configuration files; either may be left out"),
	toggle("show-empty-fields", `show a field without a value as "(nil)"`),
	toggle("debug", "tell on standard error what is asked of the cloud"),
}

var filterOption = list("filter", "NAME=VALUE", "only what the filter lets through; several of one name let through any of their values")

// count says whether there are as many arguments as the command takes.
func (c command) count(args []string) error {
	least, most := 0, 0
	for word := range strings.FieldsSeq(c.takes) {
		if !strings.HasPrefix(word, "[") {
			least++
			if len(args) < least {
				return fmt.Errorf("the argument %s is missing", strings.TrimSuffix(word, "..."))
			}
		}
		if most++; strings.Contains(word, "...") {
			return nil
		}
	}
	if len(args) > most {
		return fmt.Errorf("nothing is known of the argument %q", args[most])
	}
	return nil
}

// option of a command. Its first long name is the one by which run asks for it.
type option struct {
	names  []string // a letter, or a long name
	value  string   // what its value is called; "" for a toggle
	help   string
	param  string   // the parameter that it becomes; "" where run sees to it
	repeat bool     // it may be given several times
	number bool     // its value is a whole number
	must   bool     // it has to be given
	choice []string // the values that it may have; nil is any
}

// text is an option with a value. Its names are separated by commas.
func text(names, value, help string) option {
	return option{names: strings.Split(names, ","), value: value, help: help}
}

// whole is an option whose value is a whole number.
func whole(names, value, help string) option {
	o := text(names, value, help)
	o.number = true
	return o
}

// list is an option that may be given several times.
func list(names, value, help string) option {
	o := text(names, value, help)
	o.repeat = true
	return o
}

// toggle is an option without a value.
func toggle(names, help string) option { return text(names, "", help) }

// to says which parameter the option becomes; with several values, NAME.1 and so on.
func (o option) to(param string) option { o.param = param; return o }

// required says that the option has to be given.
func (o option) required() option { o.must = true; return o }

// among says which values it may have.
func (o option) among(values ...string) option { o.choice = values; return o }

// name is the first long one.
func (o option) name() string {
	for _, n := range o.names {
		if len(n) > 1 {
			return n
		}
	}
	return o.names[0]
}

// String names the option as messages do: -n/--name.
func (o option) String() string {
	var dashed []string
	for _, n := range o.names {
		if len(n) == 1 {
			dashed = append(dashed, "-"+n)
		} else {
			dashed = append(dashed, "--"+n)
		}
	}
	return strings.Join(dashed, "/")
}

// add the option to a command's flags; its further long names are hidden.
func (o option) add(f *pflag.FlagSet) {
	letter, name := "", o.name()
	for _, n := range o.names {
		if len(n) == 1 {
			letter = n
		}
	}
	help := o.help
	if o.must {
		help += " (required)"
	}
	switch {
	case o.value == "":
		f.BoolP(name, letter, false, help)
	case o.repeat:
		f.StringArrayP(name, letter, nil, help)
	default:
		f.StringP(name, letter, "", help)
	}
	if flag := f.Lookup(name); o.value != "" {
		flag.Value, flag.DefValue = called{flag.Value, o.value}, ""
	}
	for _, n := range o.names {
		if len(n) > 1 && n != name {
			f.AddFlag(&pflag.Flag{Name: n, Usage: "the same as --" + name, Value: f.Lookup(name).Value, NoOptDefVal: f.Lookup(name).NoOptDefVal, Hidden: true})
		}
	}
}

// called is a value under the name that help shows.
type called struct {
	pflag.Value
	name string
}

func (c called) Type() string { return c.name }

// check what was given.
func (o option) check(s *session) error {
	if o.must && !s.given(o.name()) {
		return fmt.Errorf("argument %s is required", o)
	}
	if o.value == "" || o.repeat || !s.given(o.name()) {
		return nil
	}
	value := s.text(o.name())
	if o.number {
		if n, err := strconv.ParseInt(value, 10, 64); err != nil || n < 0 {
			return fmt.Errorf("argument %s: %q is not a whole number", o, value)
		}
	}
	if o.choice != nil && !slices.Contains(o.choice, value) {
		return fmt.Errorf("argument %s: %q is none of %s", o, value, strings.Join(o.choice, ", "))
	}
	return nil
}

// unabridge replaces beginnings of long options' names by the names, where only
// one has that beginning: people write --verb for --verbose.
func unabridge(f *pflag.FlagSet, args []string) []string {
	args = slices.Clone(args)
	for i, arg := range args {
		if arg == "--" {
			break
		}
		name, value, assigned := strings.Cut(arg, "=")
		beginning, long := strings.CutPrefix(name, "--")
		if !long || f.Lookup(beginning) != nil {
			continue
		}
		var meant []string
		f.VisitAll(func(flag *pflag.Flag) {
			if strings.HasPrefix(flag.Name, beginning) {
				meant = append(meant, flag.Name)
			}
		})
		if len(meant) == 1 {
			args[i] = "--" + meant[0]
			if assigned {
				args[i] += "=" + value
			}
		}
	}
	return args
}

// commandLine is what the program was called with: a subcommand and its
// arguments. Called by a euca-command's name, that is the subcommand.
func commandLine(root *cobra.Command, argv []string) []string {
	if len(argv) == 0 {
		return []string{}
	}
	args := append([]string{}, argv[1:]...)
	if name := filepath.Base(argv[0]); strings.HasPrefix(name, prefix) {
		args = append([]string{name}, args...)
	}
	if cmd, rest, err := root.Find(args); err == nil && strings.HasPrefix(cmd.Name(), prefix) {
		cmd.InheritedFlags() // makes them known
		args = append([]string{cmd.Name()}, unabridge(cmd.Flags(), rest)...)
	}
	return args
}

// complaint is the line that tells why a command failed. A euca-command's is
// euca2ools': `euca-NAME: error (Code): message` for what the cloud refused, and
// `euca-NAME: error: message`.
func complaint(cmd *cobra.Command, err error) string {
	if !strings.HasPrefix(cmd.Name(), prefix) {
		return "mallee: " + err.Error()
	}
	var refused *ServiceError
	if !errors.As(err, &refused) {
		return visible(cmd.Name()+": error: "+err.Error(), "")
	}
	line := cmd.Name() + ": " + refused.Error()
	if doing, ok := strings.CutSuffix(err.Error(), ": "+refused.Error()); ok {
		line += " (" + doing + ")"
	}
	return visible(line, "")
}
