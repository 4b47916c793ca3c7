package walrus

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/xml"
	"net/http"
	"slices"
	"time"

	"github.com/versity/versitygw/auth"
)

// lifecycleRules says what becomes of a bucket's objects with time. Expirations
// and the ends of unfinished uploads are done (expiry.go). Transitions are kept and
// change nothing, for there is one storage class; so is, so far, what is said of older
// versions and of delete markers.
type lifecycleRules struct {
	XMLName xml.Name        `xml:"LifecycleConfiguration"`
	Space   string          `xml:"xmlns,attr,omitempty"`
	Rules   []lifecycleRule `xml:"Rule"`
}

type lifecycleRule struct {
	ID          string           `xml:"ID"`
	Prefix      *string          `xml:"Prefix"`
	Filter      *lifecycleFilter `xml:"Filter"`
	Status      string           `xml:"Status"`
	Transitions []transition     `xml:"Transition"`
	Expiration  *expiration      `xml:"Expiration"`
	OldMoves    []transition     `xml:"NoncurrentVersionTransition"`
	Old         *oldExpiration   `xml:"NoncurrentVersionExpiration"`
	Abort       *struct {
		Days int `xml:"DaysAfterInitiation"`
	} `xml:"AbortIncompleteMultipartUpload"`
}

type lifecycleTag struct {
	Key   string `xml:"Key"`
	Value string `xml:"Value"`
}

type lifecycleFilter struct {
	Prefix  *string       `xml:"Prefix"`
	Tag     *lifecycleTag `xml:"Tag"`
	Greater *int64        `xml:"ObjectSizeGreaterThan"`
	Less    *int64        `xml:"ObjectSizeLessThan"`
	And     *struct {
		Prefix  *string        `xml:"Prefix"`
		Tags    []lifecycleTag `xml:"Tag"`
		Greater *int64         `xml:"ObjectSizeGreaterThan"`
		Less    *int64         `xml:"ObjectSizeLessThan"`
	} `xml:"And"`
}

type transition struct {
	Date    *string `xml:"Date"`
	Days    *int    `xml:"Days"`
	OldDays *int    `xml:"NoncurrentDays"`
	Newer   *int    `xml:"NewerNoncurrentVersions"`
	Class   string  `xml:"StorageClass"`
}

type expiration struct {
	Date   *string `xml:"Date"`
	Days   *int    `xml:"Days"`
	Marker *bool   `xml:"ExpiredObjectDeleteMarker"`
}

type oldExpiration struct {
	Days  *int `xml:"NoncurrentDays"`
	Newer *int `xml:"NewerNoncurrentVersions"`
}

var lifecycle = document{
	name: "lifecycle", get: auth.GetLifecycleConfigurationAction, put: auth.PutLifecycleConfigurationAction,
	blank: func() any { return &lifecycleRules{} },
	check: func(_ *desk, value any) error { return checkLifecycle(value.(*lifecycleRules)) },
	initial: func() (any, error) {
		return nil, refusal(http.StatusNotFound, "NoSuchLifecycleConfiguration", "The lifecycle configuration does not exist")
	},
	erased: true,
}

const (
	mostRules  = 1000
	longestID  = 255
	dateFormat = "2006-01-02T15:04:05Z07:00"
)

// classes are the storage classes that objects can move to.
var classes = []string{"STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER", "GLACIER_IR", "DEEP_ARCHIVE"}

func checkLifecycle(rules *lifecycleRules) error {
	rules.XMLName.Space, rules.Space = "", namespace
	if len(rules.Rules) == 0 || len(rules.Rules) > mostRules {
		return malformed()
	}
	seen := map[string]bool{}
	for i := range rules.Rules {
		rule := &rules.Rules[i]
		if rule.ID == "" {
			rule.ID = madeUpID()
		}
		if seen[rule.ID] {
			return invalidArgument("Rule ID must be unique. Found same ID for more than one rule")
		}
		seen[rule.ID] = true
		if err := rule.check(); err != nil {
			return err
		}
	}
	return nil
}

func madeUpID() string {
	id := make([]byte, 18)
	_, _ = rand.Read(id) // never fails
	return hex.EncodeToString(id)
}

func invalidArgument(format string, values ...any) error {
	return refusal(http.StatusBadRequest, "InvalidArgument", format, values...)
}

func (r *lifecycleRule) check() error {
	switch {
	case len(r.ID) > longestID:
		return invalidArgument("ID length should not exceed allowed limit of %d", longestID)
	case r.Status != "Enabled" && r.Status != "Disabled", (r.Prefix == nil) == (r.Filter == nil):
		return malformed()
	case r.Filter != nil && !r.Filter.sound():
		return malformed()
	case len(r.Transitions)+len(r.OldMoves) == 0 && r.Expiration == nil && r.Old == nil && r.Abort == nil:
		return refusal(http.StatusBadRequest, "InvalidRequest", "At least one action needs to be specified in a rule")
	}
	if err := r.checkExpirations(); err != nil {
		return err
	}
	for _, move := range append(slices.Clone(r.Transitions), r.OldMoves...) {
		if !slices.Contains(classes, move.Class) {
			return malformed()
		}
		if err := checkMoment("Transition", move.Days, move.Date, 0); err != nil {
			return err
		}
	}
	return nil
}

// sound reports whether a filter says one thing, or several under And.
func (f *lifecycleFilter) sound() bool {
	said := 0
	for _, is := range []bool{f.Prefix != nil, f.Tag != nil, f.Greater != nil, f.Less != nil, f.And != nil} {
		if is {
			said++
		}
	}
	return said <= 1
}

func (r *lifecycleRule) tagged() bool {
	return r.Filter != nil && (r.Filter.Tag != nil || r.Filter.And != nil && len(r.Filter.And.Tags) > 0)
}

func (r *lifecycleRule) checkExpirations() error {
	if e := r.Expiration; e != nil {
		if e.Marker != nil && (e.Days != nil || e.Date != nil) || e.Marker == nil && (e.Days == nil) == (e.Date == nil) {
			return malformed()
		}
		if e.Marker != nil && r.tagged() {
			return refusal(http.StatusBadRequest, "InvalidRequest", "Tag filter not allowed with ExpiredObjectDeleteMarker")
		}
		if err := checkMoment("Expiration", e.Days, e.Date, 1); err != nil {
			return err
		}
	}
	if old := r.Old; old != nil && (old.Days == nil || *old.Days < 1) {
		return invalidArgument("'NoncurrentDays' for NoncurrentVersionExpiration action must be a positive integer")
	}
	if r.Abort == nil {
		return nil
	}
	if r.tagged() {
		return refusal(http.StatusBadRequest, "InvalidRequest", "AbortIncompleteMultipartUpload cannot be specified with Tags.")
	}
	if r.Abort.Days < 1 {
		return invalidArgument("'DaysAfterInitiation' for AbortIncompleteMultipartUpload action must be a positive integer")
	}
	return nil
}

// checkMoment checks when an action is due.
func checkMoment(action string, days *int, date *string, least int) error {
	if days != nil && *days < least {
		if least == 0 {
			return invalidArgument("'Days' in %s action must be nonnegative", action)
		}
		return invalidArgument("'Days' for %s action must be a positive integer", action)
	}
	if date == nil {
		return nil
	}
	at, err := parseDate(*date)
	if err != nil {
		return malformed()
	}
	if !at.Equal(at.Truncate(24 * time.Hour)) {
		return invalidArgument("'Date' must be at midnight GMT")
	}
	return nil
}

// parseDate reads a moment as S3 does: a date alone is its midnight.
func parseDate(text string) (time.Time, error) {
	if at, err := time.Parse(time.DateOnly, text); err == nil {
		return at, nil
	}
	at, err := time.Parse(dateFormat, text)
	return at.UTC(), err
}
