package policy

import (
	"strings"
	"unicode/utf8"
)

// pattern is a text with wildcards and variables, taken apart once.
type pattern struct {
	plain    string // the whole, where it has neither
	parts    []part // nil where it has neither
	variable bool   // some of the parts are variables
}

type partKind int

const (
	literal  partKind = iota
	star              // any characters, none too
	one               // one character
	variable          // what the request has for a key
)

type part struct {
	kind       partKind
	text       string // of a literal; a variable's key, in lower case
	otherwise  string // a variable's default
	hasDefault bool
}

// compile takes a text apart. Wildcards count where wild is set, variables
// where variables is.
func compile(text string, wild, variables bool) pattern {
	c := compiler{wild: wild, variables: variables}
	for text != "" {
		text = text[c.next(text):]
	}
	c.flush()
	p := pattern{parts: c.parts}
	switch {
	case len(p.parts) == 0:
		p.parts = nil
	case len(p.parts) == 1 && p.parts[0].kind == literal:
		p.plain, p.parts = p.parts[0].text, nil
	}
	for _, part := range p.parts {
		p.variable = p.variable || part.kind == variable
	}
	return p
}

type compiler struct {
	wild, variables bool
	literal         strings.Builder
	parts           []part
}

// next takes the first thing off text and says how long it was.
func (c *compiler) next(text string) int {
	switch {
	case c.variables && strings.HasPrefix(text, "${"):
		if end := strings.IndexByte(text, '}'); end > 0 {
			c.reference(text[2:end])
			return end + 1
		}
	case c.wild && text[0] == '*':
		c.flush()
		if n := len(c.parts); n == 0 || c.parts[n-1].kind != star { // two are as one, and cost more
			c.parts = append(c.parts, part{kind: star})
		}
		return 1
	case c.wild && text[0] == '?':
		c.flush()
		c.parts = append(c.parts, part{kind: one})
		return 1
	}
	c.literal.WriteByte(text[0])
	return 1
}

// reference is what stands in ${}: *, ? and $ are themselves, all else names a
// key of the request, perhaps with a default: aws:PrincipalTag/team, 'none'.
func (c *compiler) reference(inner string) {
	if inner == "*" || inner == "?" || inner == "$" {
		c.literal.WriteString(inner)
		return
	}
	c.flush()
	p := part{kind: variable}
	key, rest, _ := strings.Cut(inner, ",")
	p.text = strings.ToLower(strings.TrimSpace(key))
	rest = strings.TrimSpace(rest)
	if len(rest) >= 2 && rest[0] == '\'' && rest[len(rest)-1] == '\'' {
		p.otherwise, p.hasDefault = rest[1:len(rest)-1], true
	}
	c.parts = append(c.parts, p)
}

func (c *compiler) flush() {
	if c.literal.Len() > 0 {
		c.parts = append(c.parts, part{kind: literal, text: c.literal.String()})
		c.literal.Reset()
	}
}

// match says whether s has the pattern's form. A variable that the request
// doesn't know matches nothing; what stands in it is literal, wildcards too.
func (p *pattern) match(s string, q *Request) bool {
	if p.parts == nil {
		return s == p.plain
	}
	if len(p.parts) == 1 && p.parts[0].kind == star {
		return true
	}
	parts, ok := p.resolve(q)
	return ok && glob(parts, s)
}

func (p *pattern) resolve(q *Request) ([]part, bool) {
	if !p.variable {
		return p.parts, true
	}
	parts := make([]part, len(p.parts))
	for i, part := range p.parts {
		if part.kind == variable {
			value, ok := q.variable(part)
			if !ok {
				return nil, false
			}
			part.kind, part.text = literal, value
		}
		parts[i] = part
	}
	return parts, true
}

// text is the pattern as a request fills it in, where it has no wildcards.
func (p *pattern) text(q *Request) (string, bool) {
	if p.parts == nil {
		return p.plain, true
	}
	parts, ok := p.resolve(q)
	if !ok {
		return "", false
	}
	var b strings.Builder
	for _, part := range parts {
		b.WriteString(part.text)
	}
	return b.String(), true
}

// glob matches by going back to the last star only, which is enough and takes
// at most the product of both lengths.
func glob(parts []part, s string) bool {
	i, at := 0, 0        // in parts, in s
	back, again := -1, 0 // the last star, and where to go on after it
	for at < len(s) || i < len(parts) {
		if i < len(parts) {
			if parts[i].kind == star {
				back, again = i, at
				i++
				continue
			}
			if n, ok := parts[i].take(s[at:]); ok {
				at, i = at+n, i+1
				continue
			}
		}
		if back < 0 || again >= len(s) {
			return false
		}
		_, n := utf8.DecodeRuneInString(s[again:])
		again += n
		i, at = back+1, again
	}
	return true
}

// take says how much of the beginning of s the part is.
func (p *part) take(s string) (int, bool) {
	if p.kind == literal {
		return len(p.text), strings.HasPrefix(s, p.text)
	}
	_, n := utf8.DecodeRuneInString(s)
	return n, n > 0
}
