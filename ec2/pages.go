package ec2

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"

	"mallee/wire"
)

// filtered is embedded by the inputs that take filters and have no pages.
type filtered struct {
	Filter []filter
}

// selection is embedded by the inputs that take filters and have pages.
type selection struct {
	filtered
	MaxResults *int
	NextToken  string
}

func (s *selection) chosen() *selection { return s }

// selecting is an input with pages.
type selecting interface{ chosen() *selection }

// checkPage refuses a page size that the action doesn't take.
func (c *call) checkPage(s *selection) error {
	if s.MaxResults == nil {
		return nil
	}
	if n, b := *s.MaxResults, c.action.pages; n < b.min || n > b.max {
		return wire.InvalidParameterValue("MaxResults", strconv.Itoa(n), "Expecting a value between %d and %d.", b.min, b.max)
	}
	return nil
}

// noPages refuses pages together with ids, as EC2 does: who names things gets
// them all.
func (s *selection) noPages(ids []string, name string) error {
	if len(ids) > 0 && s.MaxResults != nil {
		return wire.InvalidParameterCombination("The parameter %s cannot be used with the parameter MaxResults", name)
	}
	return nil
}

// page is one page's things, and where the next begins.
type page[T any] struct {
	items []T
	next  string
}

// all chooses by filters.
func (k *kind[T]) all(c *call, f filtered, things iter.Seq[T]) ([]T, error) {
	p, err := k.page(c, &selection{filtered: f}, things)
	return p.items, err
}

// page chooses, from things in the order of their keys, those of a page that
// pass the filters.
func (k *kind[T]) page(c *call, s *selection, things iter.Seq[T]) (page[T], error) {
	var p page[T]
	tests, err := k.tests(s.Filter)
	if err != nil {
		return p, err
	}
	after, err := c.openToken(s.NextToken)
	if err != nil {
		return p, err
	}
	limit := c.pageSize(s)
	for thing := range things {
		if after != "" && k.key(thing) <= after || !passes(c, tests, thing) {
			continue
		}
		if limit > 0 && len(p.items) == limit {
			p.next = c.sealToken(k.key(p.items[limit-1]))
			break
		}
		p.items = append(p.items, thing)
	}
	return p, nil
}

func passes[T any](c *call, tests []test[T], thing T) bool {
	for _, t := range tests {
		if !t(c, thing) {
			return false
		}
	}
	return true
}

// pageSize is what was asked for; who asked for none gets all, and who goes on
// without saying so gets the longest pages. 0 is without an end.
func (c *call) pageSize(s *selection) int {
	switch {
	case s.MaxResults != nil:
		return *s.MaxResults
	case s.NextToken != "":
		return c.action.pages.max
	}
	return 0
}

// A token is the key of the page's last thing, and a code that binds it to the
// cloud, the account, the action and its parameters: what a client makes up or
// uses elsewhere is refused.

const codeSize = 16

func (c *call) sealToken(key string) string {
	return base64.RawURLEncoding.EncodeToString(append(c.tokenCode(key), key...))
}

func (c *call) openToken(token string) (key string, err error) {
	if token == "" {
		return "", nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(raw) <= codeSize || !hmac.Equal(raw[:codeSize], c.tokenCode(string(raw[codeSize:]))) {
		return "", wire.Errorf("InvalidNextToken", "The token %s is not one that was given for this action with these parameters", wire.Shorten(token))
	}
	return string(raw[codeSize:]), nil
}

func (c *call) tokenCode(key string) []byte {
	mac := hmac.New(sha256.New, c.tokenKey)
	fmt.Fprintf(mac, "%s\x00%s\x00%s\x00", c.account(), c.action.name, key)
	c.digest(mac, "MaxResults", "NextToken")
	return mac.Sum(nil)[:codeSize]
}

// digest writes the call's own parameters, those named excepted.
func (c *call) digest(w io.Writer, except ...string) {
	for _, name := range slices.Sorted(maps.Keys(c.form)) {
		if ofProtocol(name) || slices.Contains(except, name) {
			continue
		}
		fmt.Fprintf(w, "%q=%q\n", name, c.form[name])
	}
}

// ofProtocol tells the parameters that change from one request to the next
// though the call is the same.
func ofProtocol(name string) bool {
	switch name {
	case "Action", "Version", "AWSAccessKeyId", "Signature", "SignatureMethod", "SignatureVersion",
		"Timestamp", "Expires", "SecurityToken", "DryRun":
		return true
	}
	return strings.HasPrefix(name, "X-Amz-")
}
