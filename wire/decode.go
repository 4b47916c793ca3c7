package wire

import (
	"encoding/base64"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Decode fills in, a pointer to a struct, with the form's parameters and returns
// the full names of those that no field took, sorted. Parameters of the protocol
// itself (Action, Version and the signature's) are neither. The error is always an
// *Error that names the parameter.
//
// A field's tag gives its input name, as EC2's model has it, and what must hold:
//
//	ImageID string `wire:"ImageId,required"`
//	Count   *int   `wire:"MinCount,min=1,max=100"`
//
//	required    MissingParameter where it isn't there, or is an empty string
//	enum=a|b    the value, or each of a list, is one of these
//	min=, max=  bounds of a number, of a string's length in characters, of []byte's
//	            in bytes, of the count of a list
//	base64      the value is base64; goes with []byte, always
//
// Types are string, bool, the signed integers, time.Time (ISO 8601), []byte, structs,
// pointers to and slices of these. A pointer tells an absent parameter from an empty
// one. A required field of an absent struct isn't missed. An embedded struct's fields
// count as the outer one's; a field without a tag has its Go name; "-" is left alone.
func Decode(form Form, in any) (leftover []string, err error) {
	root, err := newTree(form)
	if err != nil {
		return nil, err
	}
	if err := decodeStruct(root, reflect.ValueOf(in).Elem()); err != nil {
		return nil, err
	}
	leftover = root.leftover(nil)
	slices.Sort(leftover)
	return leftover, nil
}

func decodeStruct(n *node, v reflect.Value) error {
	for _, f := range planOf(v.Type()) {
		kid := n.kids[f.name]
		if kid == nil {
			if f.required {
				return MissingParameter(n.below(f.name))
			}
			continue
		}
		if err := f.decode(kid, v.FieldByIndex(f.index)); err != nil {
			return err
		}
	}
	return nil
}

func (f *field) decode(n *node, v reflect.Value) error {
	t := v.Type()
	switch {
	case t.Kind() == reflect.Pointer:
		v.Set(reflect.New(t.Elem()))
		return f.decode(n, v.Elem())
	case t.Kind() == reflect.Slice && t != bytesType:
		return f.decodeList(n, v)
	case t.Kind() == reflect.Struct && t != timeType:
		return decodeStruct(n, v)
	}
	return f.decodeScalar(n, v)
}

// decodeList reads Name.1 to Name.N, or Name.member.1 to Name.member.N. An empty
// value under the bare name is how query clients write an empty list.
func (f *field) decodeList(n *node, v reflect.Value) error {
	if n.given {
		if len(n.kids) > 0 {
			return InvalidParameterCombination("The parameter %s is given both as a single value and as the list %s.1", n.name, n.name)
		}
		if n.value != "" {
			return InvalidParameterValue(n.name, n.value, "It is a list: number its values %s.1, %s.2, ...", n.name, n.name)
		}
		n.used = true
	}
	if member := n.kids["member"]; member != nil {
		if len(n.kids) > 1 {
			return InvalidParameterCombination("The list %s is given both as %s.1 and as %s.member.1", n.name, n.name, n.name)
		}
		n = member
	}
	if err := f.checkCount(n); err != nil {
		return err
	}
	return f.decodeItems(n, v)
}

func (f *field) checkCount(n *node) error {
	count := int64(len(n.kids))
	if f.required && count == 0 {
		return MissingParameter(n.name)
	}
	if f.outside(count) {
		return InvalidParameterValue(n.name, strconv.Itoa(len(n.kids))+" values", "Expecting %s of them.", f.span())
	}
	return nil
}

// decodeItems sizes the slice by what was sent, never by a number that was.
func (f *field) decodeItems(n *node, v reflect.Value) error {
	item := field{name: f.name, enum: f.enum} // bounds are the list's own
	v.Set(reflect.MakeSlice(v.Type(), len(n.kids), len(n.kids)))
	for i := range len(n.kids) {
		kid := n.kids[strconv.Itoa(i+1)]
		if kid == nil {
			return n.badNumber()
		}
		if err := item.decode(kid, v.Index(i)); err != nil {
			return err
		}
	}
	return nil
}

// badNumber names a part of a list that isn't one of 1 to its count.
func (n *node) badNumber() error {
	for _, part := range n.parts() {
		number, err := strconv.ParseUint(part, 10, 64)
		if err != nil && !digits(part) {
			return UnknownParameter(n.below(part))
		}
		if err != nil || number < 1 || number > uint64(len(n.kids)) || part[0] == '0' {
			return InvalidParameterValue(n.name, part, "The values of a list are numbered from 1 without a gap; the request has %d and numbers one of them %s.", len(n.kids), n.below(Shorten(part)))
		}
	}
	return UnknownParameter(n.name)
}

func digits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

func (f *field) decodeScalar(n *node, v reflect.Value) error {
	if parts := n.parts(); len(parts) > 0 {
		return UnknownParameter(n.below(parts[0])) // ImageId.1, where ImageId is a single value
	}
	if f.required && n.value == "" {
		return MissingParameter(n.name)
	}
	n.used = true
	switch v.Kind() {
	case reflect.String:
		return f.decodeString(n, v)
	case reflect.Bool:
		return f.decodeBool(n, v)
	case reflect.Slice:
		return f.decodeBytes(n, v)
	case reflect.Struct:
		return f.decodeTime(n, v)
	}
	return f.decodeInt(n, v)
}

func (f *field) decodeString(n *node, v reflect.Value) error {
	if f.enum != nil && !slices.Contains(f.enum, n.value) {
		return InvalidParameterValue(n.name, n.value, "Expecting one of %s.", strings.Join(f.enum, ", "))
	}
	if f.outside(int64(utf8.RuneCountInString(n.value))) {
		return InvalidParameterValue(n.name, n.value, "Expecting %s characters.", f.span())
	}
	v.SetString(n.value)
	return nil
}

// decodeBool takes True and 1 too, which old tools send.
func (f *field) decodeBool(n *node, v reflect.Value) error {
	switch strings.ToLower(n.value) {
	case "true", "1":
		v.SetBool(true)
	case "false", "0":
		v.SetBool(false)
	default:
		return InvalidParameterValue(n.name, n.value, "Expecting true or false.")
	}
	return nil
}

func (f *field) decodeInt(n *node, v reflect.Value) error {
	i, err := strconv.ParseInt(n.value, 10, 64)
	if err != nil || v.OverflowInt(i) {
		return InvalidParameterValue(n.name, n.value, "Expecting a whole number of at most %d bits.", v.Type().Bits())
	}
	if f.outside(i) {
		return InvalidParameterValue(n.name, n.value, "Expecting %s.", f.span())
	}
	v.SetInt(i)
	return nil
}

func (f *field) decodeTime(n *node, v reflect.Value) error {
	t, err := time.Parse(time.RFC3339Nano, n.value)
	if err != nil {
		return InvalidParameterValue(n.name, n.value, "Expecting a time as ISO 8601 writes it, such as 2026-11-22T03:04:05Z.")
	}
	v.Set(reflect.ValueOf(t.UTC()))
	return nil
}

func (f *field) decodeBytes(n *node, v reflect.Value) error {
	b, err := base64.StdEncoding.DecodeString(n.value)
	if err != nil {
		return InvalidParameterValue(n.name, n.value, "Expecting base64.")
	}
	if f.outside(int64(len(b))) {
		return InvalidParameterValue(n.name, n.value, "Expecting %s bytes once its base64 is decoded; there are %d.", f.span(), len(b))
	}
	v.SetBytes(b)
	return nil
}

// outside reports whether a number, or a length, breaks the field's bounds.
func (f *field) outside(i int64) bool {
	return f.min != nil && i < *f.min || f.max != nil && i > *f.max
}

// span says the field's bounds in words; it has at least one.
func (f *field) span() string {
	switch {
	case f.max == nil:
		return "at least " + strconv.FormatInt(*f.min, 10)
	case f.min == nil:
		return "at most " + strconv.FormatInt(*f.max, 10)
	}
	return "between " + strconv.FormatInt(*f.min, 10) + " and " + strconv.FormatInt(*f.max, 10)
}
