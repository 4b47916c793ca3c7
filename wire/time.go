package wire

import "time"

// timeFormat is how EC2 writes a time: UTC, to the millisecond.
const timeFormat = "2006-01-02T15:04:05.000Z"

// Time is a time in a reply. It marshals as EC2 writes it, and unmarshals from
// any ISO 8601 form.
type Time struct{ time.Time }

// At is the time for a reply, and nil, which is left out, for the zero time.
func At(t time.Time) *Time {
	if t.IsZero() {
		return nil
	}
	return &Time{t}
}

// MarshalText implements [encoding.TextMarshaler].
func (t Time) MarshalText() ([]byte, error) {
	return t.UTC().AppendFormat(nil, timeFormat), nil
}
