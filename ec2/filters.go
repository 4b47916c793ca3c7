package ec2

import (
	"slices"
	"strings"

	"mallee/wire"
)

// maxFilterValues is how many values the filters of one request may have.
const maxFilterValues = 200

// filter is one filter as it is asked for: it lets pass what has any of the
// values. In them * stands for any characters, ? for one, and a backslash
// makes the next character an ordinary one.
type filter struct {
	Name  string   `wire:"Name,required"`
	Value []string `wire:"Value"`
}

// kind says how the things of a kind are chosen from, once for every action that
// lists them.
type kind[T any] struct {
	key    func(T) string                           // orders them, for pages
	tags   func(c *call, thing T) map[string]string // nil for what has none
	fields fields[T]
}

// fields are the filters by name: what a thing has for each. Nothing matches a
// filter that it has no value for.
type fields[T any] map[string]func(*call, T) []string

// names of the filters, sorted.
func (k *kind[T]) names() []string {
	names := make([]string, 0, len(k.fields)+2)
	for name := range k.fields {
		names = append(names, name)
	}
	if k.tags != nil {
		names = append(names, "tag-key", "tag:KEY")
	}
	slices.Sort(names)
	return names
}

// test tells whether a thing passes one filter.
type test[T any] func(c *call, thing T) bool

// tests of all filters; a thing has to pass each.
func (k *kind[T]) tests(filters []filter) ([]test[T], error) {
	tests := make([]test[T], 0, len(filters))
	values := 0
	for i := range filters {
		if values += len(filters[i].Value); values > maxFilterValues {
			return nil, wire.Errorf("FilterLimitExceeded", "The request's filters have more than %d values", maxFilterValues)
		}
		t, err := k.test(&filters[i])
		if err != nil {
			return nil, err
		}
		tests = append(tests, t)
	}
	return tests, nil
}

func (k *kind[T]) test(f *filter) (test[T], error) {
	if len(f.Value) == 0 {
		return nil, wire.Errorf("InvalidParameterValue", "The filter '%s' has no value", wire.Shorten(f.Name))
	}
	wanted := newMatcher(f.Value)
	if k.tags != nil {
		if key, ok := strings.CutPrefix(f.Name, "tag:"); ok {
			return func(c *call, thing T) bool {
				value, ok := k.tags(c, thing)[key]
				return ok && wanted.matches(value)
			}, nil
		}
		if f.Name == "tag-key" {
			return k.testTagKey(wanted), nil
		}
	}
	field, ok := k.fields[f.Name]
	if !ok {
		return nil, wire.Errorf("InvalidParameterValue", "The filter '%s' is invalid", wire.Shorten(f.Name))
	}
	return func(c *call, thing T) bool { return slices.ContainsFunc(field(c, thing), wanted.matches) }, nil
}

func (k *kind[T]) testTagKey(wanted matcher) test[T] {
	return func(c *call, thing T) bool {
		for key := range k.tags(c, thing) {
			if wanted.matches(key) {
				return true
			}
		}
		return false
	}
}

// matcher matches any of a filter's values: the plain ones by one look.
type matcher struct {
	plain    map[string]bool
	patterns []string
}

func newMatcher(values []string) matcher {
	m := matcher{plain: make(map[string]bool, len(values))}
	for _, v := range values {
		if isPattern(v) {
			m.patterns = append(m.patterns, v)
		} else {
			m.plain[v] = true
		}
	}
	return m
}

// isPattern tells a value that stands for more than itself.
func isPattern(value string) bool { return strings.ContainsAny(value, `*?\`) }

func (m matcher) matches(s string) bool {
	return m.plain[s] || slices.ContainsFunc(m.patterns, func(p string) bool { return match(p, s) })
}

// match a pattern of a filter. It goes back to the last * only, so its time is at
// most the product of the lengths.
func match(pattern, s string) bool {
	p, i := 0, 0
	star, from := -1, 0 // after the last *, and where it was tried last
	for i < len(s) {
		literal, next, isStar := element(pattern, p)
		switch {
		case isStar:
			star, from, p = next, i, next
		case p < len(pattern) && (literal == wild || literal == int(s[i])):
			i += width(s[i:], literal)
			p = next
		case star >= 0:
			from += width(s[from:], wild)
			i, p = from, star
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// wild is what ? stands for.
const wild = -1

// element of a pattern at p: a literal byte, or wild, or a star; and where the
// next begins.
func element(pattern string, p int) (literal, next int, star bool) {
	switch {
	case p >= len(pattern):
		return 0, p, false
	case pattern[p] == '*':
		return 0, p + 1, true
	case pattern[p] == '?':
		return wild, p + 1, false
	case pattern[p] == '\\' && p+1 < len(pattern):
		return int(pattern[p+1]), p + 2, false
	}
	return int(pattern[p]), p + 1, false
}

// width of what was matched, in bytes: ? takes a whole character.
func width(s string, literal int) int {
	if literal != wild {
		return 1
	}
	for i := range s[1:] {
		if s[1+i]&0xC0 != 0x80 {
			return 1 + i
		}
	}
	return len(s)
}

// one is a field's value; an empty one is none.
func one(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// text makes a field of a string.
func text[T any](of func(T) string) func(*call, T) []string {
	return func(_ *call, thing T) []string { return one(of(thing)) }
}

// fixed is a field that is the same for all.
func fixed[T any](value string) func(*call, T) []string {
	return func(*call, T) []string { return one(value) }
}
