package euca

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// session is one run of a euca-command: what was asked for, the cloud that it
// is asked of, and where the answer goes.
type session struct {
	ctx    context.Context
	args   []string
	params url.Values // of the request: the options and arguments that become parameters are there already
	access Access
	in     io.Reader
	out    *bufio.Writer
	said   io.Writer // for notes and progress

	flags  *pflag.FlagSet
	client *Client
	json   bool
	nil    string // stands for a field without a value
}

// session of a command line, whose options are checked.
func (c command) session(cmd *cobra.Command, args []string) (*session, error) {
	s := &session{
		ctx: cmd.Context(), args: args, params: url.Values{}, flags: cmd.Flags(),
		in: cmd.InOrStdin(), out: bufio.NewWriter(cmd.OutOrStdout()), said: cmd.ErrOrStderr(),
	}
	printer, err := printerOf(cmd)
	if err != nil {
		return nil, err
	}
	s.json = printer.json
	if s.given("show-empty-fields") {
		s.nil = "(nil)"
	}
	for _, o := range c.options {
		if err := o.check(s); err != nil {
			return nil, err
		}
		s.route(o)
	}
	c.arguments(s)
	if c.filters {
		if err := s.filter(s.list("filter")); err != nil {
			return nil, err
		}
	}
	s.access, err = accessOf(s.flags, os.Getenv, c.url)
	return s, err
}

// route what was given of an option into the request.
func (s *session) route(o option) {
	switch {
	case o.param == "" || !s.given(o.name()):
	case o.repeat:
		s.setAll(o.param, s.list(o.name()))
	case o.value == "":
		s.params.Set(o.param, "true")
	default:
		s.params.Set(o.param, s.text(o.name()))
	}
}

// arguments go into the request, several as NAME.1 and so on.
func (c command) arguments(s *session) {
	switch {
	case c.as == "":
	case strings.Contains(c.takes, "..."):
		s.setAll(c.as, s.args)
	case len(s.args) > 0:
		s.params.Set(c.as, s.args[0])
	}
}

// setAll values of a parameter that is a list.
func (s *session) setAll(param string, values []string) {
	for i, v := range values {
		s.params.Set(param+"."+strconv.Itoa(i+1), v)
	}
}

// filter by NAME=VALUE; values of one name make one filter.
func (s *session) filter(filters []string) error {
	place := map[string]int{}
	count := map[string]int{}
	for _, f := range filters {
		name, value, ok := strings.Cut(f, "=")
		if !ok || name == "" {
			return fmt.Errorf("argument --filter: %q is not NAME=VALUE", f)
		}
		if place[name] == 0 {
			place[name] = len(place) + 1
			s.params.Set(fmt.Sprintf("Filter.%d.Name", place[name]), name)
		}
		count[name]++
		s.params.Set(fmt.Sprintf("Filter.%d.Value.%d", place[name], count[name]), value)
	}
	return nil
}

// given says whether an option was given, by whichever of its names.
func (s *session) given(name string) bool {
	f := s.flags.Lookup(name)
	if f == nil || f.Changed {
		return f != nil
	}
	if values, ok := sliceOf(f); ok {
		return len(values.GetSlice()) > 0
	}
	return f.Value.String() != f.DefValue
}

// sliceOf an option that may be given several times.
func sliceOf(f *pflag.Flag) (pflag.SliceValue, bool) {
	value := f.Value
	if c, ok := value.(called); ok {
		value = c.Value
	}
	slice, ok := value.(pflag.SliceValue)
	return slice, ok
}

// text of an option; "" where it wasn't given.
func (s *session) text(name string) string {
	if f := s.flags.Lookup(name); f != nil {
		return f.Value.String()
	}
	return ""
}

// list of an option's values.
func (s *session) list(name string) []string {
	if f := s.flags.Lookup(name); f != nil {
		if values, ok := sliceOf(f); ok {
			return values.GetSlice()
		}
	}
	return nil
}

// together refuses options that can't be given together.
func (s *session) together(names ...string) error {
	var found []string
	for _, n := range names {
		if s.given(n) {
			found = append(found, "--"+n)
		}
	}
	if len(found) > 1 {
		return fmt.Errorf("argument %s: not allowed with argument %s", found[1], found[0])
	}
	return nil
}

// oneOf several options has to be given, and not more.
func (s *session) oneOf(names ...string) error {
	for _, n := range names {
		if s.given(n) {
			return s.together(names...)
		}
	}
	return fmt.Errorf("one of the arguments --%s is required", strings.Join(names, " --"))
}

// cloud is the client of the cloud that the command is for.
func (s *session) cloud() (*Client, error) {
	if s.client != nil {
		return s.client, nil
	}
	if err := s.access.check(); err != nil {
		return nil, err
	}
	s.client = s.access.Client()
	if s.given("debug") {
		s.client.debug = s.said
	}
	return s.client, nil
}

// call an action with the session's parameters; every page of its answer.
func (s *session) call(action string) (*element, error) {
	client, err := s.cloud()
	if err != nil {
		return nil, err
	}
	if client.EC2 == "" {
		return nil, errors.New("the endpoint of EC2 is not known: set EC2_URL, or name it by --url")
	}
	return client.Call(s.ctx, action, s.params)
}

// line of an answer: fields separated by TABs. A control character of a field is
// shown as ^X: it makes no further field or line, and has no power over a terminal.
func (s *session) line(fields ...string) {
	for i, f := range fields {
		if i > 0 {
			s.out.WriteByte('\t')
		}
		if f == "" {
			f = s.nil
		}
		s.out.WriteString(visible(f, ""))
	}
	s.out.WriteByte('\n')
}

// visible text: its control characters as ^X, but for those that stay.
func visible(text, stay string) string {
	if text = strings.ToValidUTF8(text, "?"); !strings.ContainsFunc(text, unicode.IsControl) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		switch {
		case !unicode.IsControl(r) || strings.ContainsRune(stay, r):
			b.WriteRune(r)
		case r < 0x80:
			b.WriteString("^" + string(r^'@')) // ^? for DEL
		default:
			b.WriteByte('?')
		}
	}
	return b.String()
}

// show an answer: v as JSON, or what text prints of it.
func (s *session) show(v any, text func()) error {
	if s.json {
		return json.NewEncoder(s.out).Encode(v)
	}
	if text != nil {
		text()
	}
	return nil
}

// calling is the run of a command that calls an action and prints its answer;
// print may be nil, where there is nothing to print.
func calling(action string, print func(*session, *element)) func(*session) error {
	return func(s *session) error {
		reply, err := s.call(action)
		if err != nil {
			return err
		}
		return s.show(reply, func() {
			if print != nil {
				print(s, reply)
			}
		})
	}
}

// asking is calling, after what prepare does to the request.
func asking(prepare func(*session) error, action string, print func(*session, *element)) func(*session) error {
	return func(s *session) error {
		if err := prepare(s); err != nil {
			return err
		}
		return calling(action, print)(s)
	}
}
