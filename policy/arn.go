package policy

import "strings"

// arnPattern is an ARN with wildcards, each of whose six fields is matched by
// itself; one that is shorter ends in fields of which any will do.
type arnPattern struct {
	any    bool // a mere *
	fields [arnFields]pattern
}

const arnFields = 6

func compileARN(text string, variables bool) arnPattern {
	if text == "*" {
		return arnPattern{any: true}
	}
	var a arnPattern
	fields := splitFields(text, variables)
	for i := range a.fields {
		field := "*"
		if i < len(fields) {
			field = fields[i]
		}
		a.fields[i] = compile(field, true, variables)
	}
	return a
}

// splitFields cuts at colons, but those of a variable's name.
func splitFields(text string, variables bool) []string {
	var fields []string
	begin, inside := 0, false
	for i := 0; i < len(text) && len(fields) < arnFields-1; i++ {
		switch {
		case variables && strings.HasPrefix(text[i:], "${"):
			inside = strings.Contains(text[i:], "}")
		case text[i] == '}':
			inside = false
		case text[i] == ':' && !inside:
			fields = append(fields, text[begin:i])
			begin = i + 1
		}
	}
	return append(fields, text[begin:])
}

func (a *arnPattern) match(arn string, q *Request) bool {
	if a.any {
		return true
	}
	for i := range a.fields {
		field, rest, more := strings.Cut(arn, ":")
		if i == arnFields-1 {
			field = arn
		} else if !more {
			return false
		}
		if !a.fields[i].match(field, q) {
			return false
		}
		arn = rest
	}
	return true
}
