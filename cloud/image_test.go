package cloud

import (
	"reflect"
	"testing"
	"time"
)

func TestImageIsLaunchableFor(t *testing.T) {
	for _, test := range []struct {
		name  string
		image Image
		want  string // of accounts 1, its owner, 2, with whom it is shared, and 3
	}{
		{"shared", Image{}, "12"},
		{"public", Image{Public: true}, "123"},
		{"disabled", Image{Public: true, Disabled: true}, "1"},
		{"deregistered", Image{Deregistered: time.Unix(1, 0)}, "12"},
	} {
		test.image.Account, test.image.LaunchableBy = "1", []AccountID{"2"}
		got := ""
		for _, account := range []AccountID{"1", "2", "3"} {
			if test.image.LaunchableFor(account) {
				got += string(account)
			}
		}
		if got != test.want {
			t.Errorf("%s: accounts %s may launch it, want %s", test.name, got, test.want)
		}
	}
}

func TestImageState(t *testing.T) {
	broken := Reason{Code: "Server.InternalError", Message: "the disk is on fire"}
	snapshots := map[SnapshotID]*Snapshot{"done": {Content: &Content{}}, "pending": {}, "error": {Failed: broken}}
	find := func(id SnapshotID) (*Snapshot, bool) { s, ok := snapshots[id]; return s, ok }
	now := time.Unix(1, 0)
	for _, test := range []struct {
		name  string
		image Image
		of    []SnapshotID
		want  ImageState
		why   string
	}{
		{"instance-store", Image{}, nil, ImageAvailable, ""},
		{"completed", Image{}, []SnapshotID{"done", ""}, ImageAvailable, ""},
		{"one is pending", Image{}, []SnapshotID{"done", "pending"}, ImagePending, ""},
		{"one has failed", Image{}, []SnapshotID{"pending", "error"}, ImageFailed, broken.Code},
		{"one is gone", Image{}, []SnapshotID{"lost"}, ImageFailed, ReasonNoSnapshot},
		{"disabled", Image{Disabled: true}, []SnapshotID{"lost"}, ImageDisabled, ""},
		{"deregistered", Image{Disabled: true, Deregistered: now}, []SnapshotID{"lost"}, ImageDeregistered, ""},
	} {
		for _, id := range test.of {
			test.image.Mappings = append(test.image.Mappings, Mapping{EBS: &EBSMapping{Snapshot: id}})
		}
		if state, why := test.image.State(find); state != test.want || why.Code != test.why {
			t.Errorf("%s: %s, %+v", test.name, state, why)
		}
	}
}

func TestRetirement(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	i := Image{DeprecateAt: now}
	if i.Deprecated(now.Add(-1)) || !i.Deprecated(now) || (&Image{}).Deprecated(now) {
		t.Error("deprecated at another time than was said")
	}
	i = Image{Protection: ProtectedCooldown}
	if !i.Protects(now) {
		t.Error("not protected")
	}
	i = Image{ProtectedUntil: now}
	if !i.Protects(now.Add(-1)) || i.Protects(now) {
		t.Error("the cooldown ends at another time")
	}
	if !i.Launched(now) || i.Launched(now.Add(launchNoted-1)) || !i.Launched(now.Add(launchNoted)) {
		t.Error("launches are noted more or less than once an hour")
	}
}

func TestImagePrefixes(t *testing.T) {
	for kind, prefix := range map[ImageKind]string{MachineImage: "emi", KernelImage: "eki", RamdiskImage: "eri"} {
		if kind.Prefix() != prefix {
			t.Errorf("%s: %s", kind, kind.Prefix())
		}
	}
}

// TestTemplateHasNothingOfTheOwner, and all else: a field that is added has to be
// decided on here.
func TestTemplateHasNothingOfTheOwner(t *testing.T) {
	var full Image
	v := reflect.ValueOf(&full).Elem()
	for n := range v.NumField() {
		fill(v.Field(n))
	}
	left := map[string]bool{
		"ID": true, "Account": true, "Name": true, "CreatedAt": true, "Source": true, "Copying": true, "CopyFailed": true, "Public": true, "LaunchableBy": true,
		"DeprecateAt": true, "Disabled": true, "Deregistered": true, "Protection": true, "ProtectedUntil": true, "LastLaunched": true,
	}
	template := reflect.ValueOf(full.Template())
	for n := range template.NumField() {
		name := template.Type().Field(n).Name
		if template.Field(n).IsZero() != left[name] {
			t.Errorf("%s: is left out: %v", name, !left[name])
		}
	}
}

// fill a field with something.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString("x")
	case reflect.Int64:
		v.SetInt(1)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(1, 0)))
			return
		}
		fill(v.Field(0))
	}
}
