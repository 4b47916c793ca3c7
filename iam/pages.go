package iam

import (
	"encoding/base64"
	"slices"
)

// paged is embedded by the inputs of actions that list.
type paged struct {
	Marker   string
	MaxItems int `wire:"MaxItems,min=1,max=1000"`
}

// page is embedded by their replies.
type page struct {
	IsTruncated bool
	Marker      string `xml:",omitempty"`
}

// pageSize is how much is listed where nobody says.
const pageSize = 100

// cut a page from a list that is sorted by key. The marker is the key of the
// last that was told, so that what comes and goes meanwhile doesn't matter.
func cut[T any](p paged, list []T, key func(T) string) ([]T, page, error) {
	after, err := base64.RawURLEncoding.DecodeString(p.Marker)
	if err != nil {
		return nil, page{}, invalid("Marker", p.Marker, "It is not one that this cloud gave.")
	}
	if p.Marker != "" {
		if i := slices.IndexFunc(list, func(v T) bool { return key(v) > string(after) }); i >= 0 {
			list = list[i:]
		} else {
			list = nil
		}
	}
	most := p.MaxItems
	if most == 0 {
		most = pageSize
	}
	if len(list) <= most {
		return list, page{}, nil
	}
	list = list[:most]
	return list, page{true, base64.RawURLEncoding.EncodeToString([]byte(key(list[most-1])))}, nil
}

// same is the key of texts.
func same(s string) string { return s }

// each turns a list into what a reply has of it.
func each[T, R any](list []T, f func(T) R) []R {
	out := make([]R, len(list))
	for i, v := range list {
		out[i] = f(v)
	}
	return out
}
