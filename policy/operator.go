package policy

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// operator makes tests of a policy's values. One that is negated is its
// opposite's test, of which none may hold.
type operator struct {
	compile func(value string, variables bool) (test, bool)
	negated bool
	null    bool
}

// operators are all of the language, without IfExists and set operators.
var operators = map[string]operator{
	"StringEquals":              {compile: stringEquals},
	"StringNotEquals":           {compile: stringEquals, negated: true},
	"StringEqualsIgnoreCase":    {compile: stringFold},
	"StringNotEqualsIgnoreCase": {compile: stringFold, negated: true},
	"StringLike":                {compile: stringLike},
	"StringNotLike":             {compile: stringLike, negated: true},
	"NumericEquals":             {compile: numeric(isEqual)},
	"NumericNotEquals":          {compile: numeric(isEqual), negated: true},
	"NumericLessThan":           {compile: numeric(isLess)},
	"NumericLessThanEquals":     {compile: numeric(isAtMost)},
	"NumericGreaterThan":        {compile: numeric(isGreater)},
	"NumericGreaterThanEquals":  {compile: numeric(isAtLeast)},
	"DateEquals":                {compile: date(isEqual)},
	"DateNotEquals":             {compile: date(isEqual), negated: true},
	"DateLessThan":              {compile: date(isLess)},
	"DateLessThanEquals":        {compile: date(isAtMost)},
	"DateGreaterThan":           {compile: date(isGreater)},
	"DateGreaterThanEquals":     {compile: date(isAtLeast)},
	"Bool":                      {compile: boolean},
	"BinaryEquals":              {compile: binary},
	"IpAddress":                 {compile: address},
	"NotIpAddress":              {compile: address, negated: true},
	"ArnEquals":                 {compile: arnLike}, // the two are the same, AWS says
	"ArnLike":                   {compile: arnLike},
	"ArnNotEquals":              {compile: arnLike, negated: true},
	"ArnNotLike":                {compile: arnLike, negated: true},
	"Null":                      {compile: boolean, null: true},
}

func isEqual(c int) bool   { return c == 0 }
func isLess(c int) bool    { return c < 0 }
func isAtMost(c int) bool  { return c <= 0 }
func isGreater(c int) bool { return c > 0 }
func isAtLeast(c int) bool { return c >= 0 }

func stringEquals(text string, variables bool) (test, bool) {
	p := compile(text, false, variables)
	return p.match, true
}

func stringFold(text string, variables bool) (test, bool) {
	p := compile(text, false, variables)
	return func(value string, q *Request) bool {
		ours, ok := p.text(q)
		return ok && strings.EqualFold(value, ours)
	}, true
}

func stringLike(text string, variables bool) (test, bool) {
	p := compile(text, true, variables)
	return p.match, true
}

func arnLike(text string, variables bool) (test, bool) {
	p := compileARN(text, variables)
	return p.match, true
}

func numeric(holds func(int) bool) func(string, bool) (test, bool) {
	return func(text string, _ bool) (test, bool) {
		ours, ok := number(text)
		return func(value string, _ *Request) bool {
			theirs, ok := number(value)
			return ok && holds(cmp.Compare(theirs, ours))
		}, ok
	}
}

func number(text string) (float64, bool) {
	f, err := strconv.ParseFloat(text, 64)
	return f, err == nil && !math.IsNaN(f) && !math.IsInf(f, 0)
}

func date(holds func(int) bool) func(string, bool) (test, bool) {
	return func(text string, _ bool) (test, bool) {
		ours, ok := instant(text)
		return func(value string, _ *Request) bool {
			theirs, ok := instant(value)
			return ok && holds(theirs.Compare(ours))
		}, ok
	}
}

// instant reads the forms of W3C's profile of ISO 8601, and seconds since 1970.
func instant(text string) (time.Time, bool) {
	for _, form := range []string{time.RFC3339Nano, "2006-01-02T15:04Z07:00", time.DateOnly, "2006-01", "2006"} {
		if t, err := time.Parse(form, text); err == nil {
			return t, true
		}
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	return time.Unix(seconds, 0), err == nil
}

func boolean(text string, _ bool) (test, bool) {
	text = strings.ToLower(text)
	return func(value string, _ *Request) bool { return strings.ToLower(value) == text }, text == "true" || text == "false"
}

func binary(text string, _ bool) (test, bool) {
	ours, err := base64.StdEncoding.DecodeString(text)
	return func(value string, _ *Request) bool {
		theirs, err := base64.StdEncoding.DecodeString(value)
		return err == nil && bytes.Equal(theirs, ours)
	}, err == nil
}

// address matches addresses in a range; an address is a range of one.
func address(text string, _ bool) (test, bool) {
	ours, err := netip.ParsePrefix(text)
	if err != nil {
		alone, failed := netip.ParseAddr(text)
		if err = failed; err == nil {
			ours = netip.PrefixFrom(alone, alone.BitLen())
		}
	}
	return func(value string, _ *Request) bool {
		theirs, err := netip.ParseAddr(value)
		return err == nil && ours.Contains(theirs.Unmap())
	}, err == nil
}
