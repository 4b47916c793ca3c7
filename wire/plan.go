package wire

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// field is one field of an input struct: where it is, its name on the wire and
// what its tag demands.
type field struct {
	index    []int // for reflect's FieldByIndex; longer than one below an embedded struct
	name     string
	required bool
	min, max *int64
	enum     []string
}

var (
	timeType  = reflect.TypeFor[time.Time]()
	bytesType = reflect.TypeFor[[]byte]()
)

// plans keeps the fields of each input type: tags are read once.
var plans sync.Map // reflect.Type of a struct → []field

// planOf returns the fields of a struct, and of those embedded in it as if they
// were its own. Types of requests are not recursive.
func planOf(t reflect.Type) []field {
	if plan, ok := plans.Load(t); ok {
		return plan.([]field)
	}
	var plan []field
	for i := range t.NumField() {
		plan = append(plan, fieldsOf(t, t.Field(i))...)
	}
	plans.Store(t, plan)
	return plan
}

func fieldsOf(t reflect.Type, sf reflect.StructField) []field {
	tag, tagged := sf.Tag.Lookup("wire")
	switch {
	case tag == "-":
		return nil
	case sf.Anonymous && !tagged && sf.Type.Kind() == reflect.Struct:
		inner := slices.Clone(planOf(sf.Type))
		for i := range inner {
			inner[i].index = append(slices.Clone(sf.Index), inner[i].index...)
		}
		return inner
	case !sf.IsExported():
		return nil
	}
	f, err := parseTag(tag, sf)
	if err != nil {
		panic(fmt.Sprintf("wire: the tag of %s.%s: %v", t, sf.Name, err))
	}
	return []field{f}
}

func parseTag(tag string, sf reflect.StructField) (field, error) {
	name, options, _ := strings.Cut(tag, ",")
	f := field{index: sf.Index, name: name}
	if name == "" {
		f.name = sf.Name
	}
	base64 := false
	for options != "" {
		var option string
		option, options, _ = strings.Cut(options, ",")
		if option == "base64" {
			base64 = true
		} else if err := f.option(option); err != nil {
			return field{}, err
		}
	}
	if base64 != (elem(sf.Type) == bytesType) {
		return field{}, fmt.Errorf("base64 and []byte belong together; the type is %s", sf.Type)
	}
	return f, f.check(elem(sf.Type))
}

func (f *field) option(option string) error {
	key, value, _ := strings.Cut(option, "=")
	var err error
	switch key {
	case "required":
		f.required = true
	case "enum":
		f.enum = strings.Split(value, "|")
	case "min":
		f.min = new(int64)
		*f.min, err = strconv.ParseInt(value, 10, 64)
	case "max":
		f.max = new(int64)
		*f.max, err = strconv.ParseInt(value, 10, 64)
	default:
		err = fmt.Errorf("the option %q is not known", option)
	}
	return err
}

// check finds the types we can't decode and the options that would do nothing, at
// first use and all the way down instead of when a client sends the parameter.
func (f *field) check(t reflect.Type) error {
	item, bounded := t, true
	if t.Kind() == reflect.Slice && t != bytesType {
		item = elem(t.Elem())
	} else {
		bounded = t != timeType && t.Kind() != reflect.Struct && t.Kind() != reflect.Bool
	}
	switch {
	case !bounded && (f.min != nil || f.max != nil):
		return fmt.Errorf("min and max mean nothing for the type %s", t)
	case f.enum != nil && item.Kind() != reflect.String:
		return fmt.Errorf("enum means nothing for the type %s", t)
	case !decodable(item):
		return fmt.Errorf("the type %s can't be decoded", t)
	}
	return nil
}

func decodable(t reflect.Type) bool {
	switch {
	case t == timeType || t == bytesType:
		return true
	case t.Kind() == reflect.Struct:
		planOf(t) // panics where one of its tags is wrong
		return true
	}
	return t.Kind() == reflect.String || t.Kind() == reflect.Bool ||
		t.Kind() >= reflect.Int && t.Kind() <= reflect.Int64
}

// elem is the type a pointer points to, and any other type itself.
func elem(t reflect.Type) reflect.Type {
	if t.Kind() == reflect.Pointer {
		return t.Elem()
	}
	return t
}

// Names returns the wire names that in, a struct or a pointer to one, takes, sorted
// by field, with N for the number in a list: BlockDeviceMapping.N.Ebs.VolumeSize.
// The tests that hold them against AWS's model and the document of what is covered
// read them.
func Names(in any) []string {
	return namesOf(elem(reflect.TypeOf(in)), "")
}

func namesOf(t reflect.Type, prefix string) []string {
	var names []string
	for _, f := range planOf(t) {
		name, ft := prefix+f.name, elem(t.FieldByIndex(f.index).Type)
		if ft.Kind() == reflect.Slice && ft != bytesType {
			name, ft = name+".N", elem(ft.Elem())
		}
		if ft.Kind() == reflect.Struct && ft != timeType {
			names = append(names, namesOf(ft, name+".")...)
		} else {
			names = append(names, name)
		}
	}
	return names
}
