package ec2

import (
	"iter"
	"slices"
	"strings"
)

// firsts drops the revisions that the state's iterators bring along.
func firsts[T any](seq iter.Seq2[T, int64]) iter.Seq[T] {
	return func(yield func(T) bool) {
		for t := range seq {
			if !yield(t) {
				return
			}
		}
	}
}

// sorted goes through things in the order of their keys, each once.
func sorted[T any](things []T, key func(T) string) iter.Seq[T] {
	slices.SortFunc(things, func(a, b T) int { return strings.Compare(key(a), key(b)) })
	return slices.Values(slices.CompactFunc(things, func(a, b T) bool { return key(a) == key(b) }))
}
