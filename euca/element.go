package euca

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
)

// element of a reply: text, or further elements. What isn't there is a nil
// element, of which everything is empty.
type element struct {
	name     string
	text     string
	children []*element
}

// maxDepth bounds how deep elements may lie within each other.
const maxDepth = 64

// parseReply reads the one element that a reply is.
func parseReply(reply []byte) (*element, error) {
	d := xml.NewDecoder(bytes.NewReader(reply))
	path := []*element{{}}
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) && len(path[0].children) == 1 {
			return path[0].children[0], nil
		}
		if err != nil {
			return nil, fmt.Errorf("the reply can't be read: %w", err)
		}
		inner := path[len(path)-1]
		switch t := token.(type) {
		case xml.StartElement:
			e := &element{name: t.Name.Local}
			inner.children = append(inner.children, e)
			if path = append(path, e); len(path) > maxDepth {
				return nil, errors.New("the reply can't be read: its elements lie too deep within each other")
			}
		case xml.EndElement:
			if len(inner.children) > 0 {
				inner.text = "" // the indentation
			}
			path = path[:len(path)-1]
		case xml.CharData:
			inner.text += string(t)
		}
	}
}

// at finds an element by its path below e: "placement/availabilityZone".
func (e *element) at(path string) *element {
	for name := range strings.SplitSeq(path, "/") {
		if e == nil {
			return nil
		}
		i := slices.IndexFunc(e.children, func(c *element) bool { return c.name == name })
		if i < 0 {
			return nil
		}
		e = e.children[i]
	}
	return e
}

// get the text at a path; "" where there is nothing.
func (e *element) get(path string) string {
	if e = e.at(path); e == nil {
		return ""
	}
	return e.text
}

// fields are the texts at several paths.
func (e *element) fields(paths ...string) []string {
	all := make([]string, len(paths))
	for i, p := range paths {
		all[i] = e.get(p)
	}
	return all
}

// each item of the list at a path.
func (e *element) each(path string) iter.Seq[*element] {
	return func(yield func(*element) bool) {
		list := e.at(path)
		if list == nil {
			return
		}
		for _, c := range list.children {
			if c.name == "item" && !yield(c) {
				return
			}
		}
	}
}

// texts at a path of each item of a list.
func (e *element) texts(list, path string) []string {
	var all []string
	for item := range e.each(list) {
		all = append(all, item.get(path))
	}
	return all
}

// extend the list at a path by another reply's.
func (e *element) extend(path string, other *element) {
	more := other.at(path)
	if more == nil {
		return
	}
	if list := e.at(path); list != nil {
		list.children = append(list.children, more.children...)
		return
	}
	e.children = append(e.children, more)
}

// append a further page of the same answer: its lists go on with the page's.
func (e *element) append(page *element) {
	for _, c := range page.children {
		if len(c.children) > 0 {
			e.extend(c.name, page)
		}
	}
	e.children = slices.DeleteFunc(e.children, func(c *element) bool { return c.name == "nextToken" })
}

// emptyLists are lists whose names don't end in Set; an empty one is told from
// an empty text by it.
var emptyLists = []string{
	"availabilityZoneInfo", "blockDeviceMapping", "bundleInstanceTasksSet", "conversionTasks", "createVolumePermission",
	"launchPermission", "productCodes", "regionInfo", "details", "instanceTypeDetails", "volumes",
}

// MarshalJSON makes a list an array, other elements objects, and texts strings.
func (e *element) MarshalJSON() ([]byte, error) {
	if e == nil {
		return []byte("null"), nil
	}
	isList := strings.HasSuffix(e.name, "Set") || slices.Contains(emptyLists, e.name)
	if len(e.children) == 0 && !isList {
		return json.Marshal(e.text)
	}
	if !slices.ContainsFunc(e.children, func(c *element) bool { return c.name != "item" }) {
		return json.Marshal(append([]*element{}, e.children...))
	}
	object := map[string]*element{}
	for _, c := range e.children {
		object[c.name] = c
	}
	return json.Marshal(object)
}
