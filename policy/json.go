package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// maxDepth bounds how deep a document's values lie within each other: a
// condition's values are at 6.
const maxDepth = 10

// object is a JSON object. Values are string, []any or *object; numbers and
// booleans are the strings that they are written as, null is nil.
type object struct {
	keys   []string // as they stand
	values map[string]any
}

// parseJSON reads the one value that a document is. encoding/json itself would
// take the last of two members of one name, which hides the first.
func parseJSON(document string) (any, error) {
	d := json.NewDecoder(strings.NewReader(document))
	d.UseNumber()
	v, err := parseValue(d, 0)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more behind the document's end")
	}
	return v, nil
}

func parseValue(d *json.Decoder, depth int) (any, error) {
	if depth > maxDepth {
		return nil, errors.New("the document is nested too deep")
	}
	token, err := d.Token()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("the document ends too early")
	}
	if err != nil {
		return nil, err
	}
	switch t := token.(type) {
	case json.Delim:
		if t == '{' {
			return parseObject(d, depth)
		}
		return parseList(d, depth)
	case nil:
		return nil, nil
	}
	return fmt.Sprint(token), nil
}

func parseObject(d *json.Decoder, depth int) (any, error) {
	o := &object{values: map[string]any{}}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return nil, err
		}
		key, ok := token.(string)
		if !ok {
			return nil, fmt.Errorf("a member's name is %v", token)
		}
		if slices.Contains(o.keys, key) {
			return nil, fmt.Errorf("%q is there twice", short(key))
		}
		value, err := parseValue(d, depth+1)
		if err != nil {
			return nil, err
		}
		o.keys = append(o.keys, key)
		o.values[key] = value
	}
	_, err := d.Token()
	return o, err
}

func parseList(d *json.Decoder, depth int) (any, error) {
	list := []any{}
	for d.More() {
		value, err := parseValue(d, depth+1)
		if err != nil {
			return nil, err
		}
		list = append(list, value)
	}
	_, err := d.Token()
	return list, err
}

// only refuses members that aren't among those.
func (o *object) only(names ...string) error {
	for _, key := range o.keys {
		if !slices.Contains(names, key) {
			return malformed("Syntax errors in policy. %q is not an element of the policy language here; known are %s.", short(key), strings.Join(names, ", "))
		}
	}
	return nil
}

// text of a member that is one string.
func (o *object) text(name string) (value string, given bool, err error) {
	v, given := o.values[name]
	if !given {
		return "", false, nil
	}
	value, ok := v.(string)
	if !ok {
		return "", true, malformed("Syntax errors in policy. %s must be a string.", name)
	}
	return value, true, nil
}

// texts of a member that is a string or a list of strings.
func texts(name string, v any) ([]string, error) {
	if s, ok := v.(string); ok {
		return []string{s}, nil
	}
	list, ok := v.([]any)
	if !ok {
		return nil, malformed("Syntax errors in policy. %s must be a string or a list of strings.", short(name))
	}
	out := make([]string, len(list))
	for i, item := range list {
		if out[i], ok = item.(string); !ok {
			return nil, malformed("Syntax errors in policy. %s must be a string or a list of strings.", short(name))
		}
	}
	return out, nil
}
