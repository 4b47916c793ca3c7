package wire

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

type page struct {
	MaxResults *int32 `wire:"MaxResults,min=5,max=1000"`
	NextToken  string
}

type filter struct {
	Name   string   `wire:"Name,required"`
	Values []string `wire:"Value,max=200"`
}

type disk struct {
	DeviceName string
	NoDevice   *string
	Ebs        *struct {
		VolumeSize          *int64 `wire:"VolumeSize,min=1,max=16384"`
		DeleteOnTermination *bool
	}
}

// launch has a field of every kind the decoder knows.
type launch struct {
	page
	ImageID   string   `wire:"ImageId,required,max=32"`
	MinCount  int      `wire:"MinCount,required,min=1"`
	Shutdown  string   `wire:"InstanceInitiatedShutdownBehavior,enum=stop|terminate"`
	Token     *string  `wire:"ClientToken,max=64"`
	UserData  []byte   `wire:"UserData,base64,max=16"`
	Disks     []disk   `wire:"BlockDeviceMapping,max=3"`
	Groups    []string `wire:"SecurityGroup"`
	Types     []string `wire:"Type,enum=machine|kernel"`
	Filters   []filter `wire:"Filter"`
	Until     time.Time
	Since     *time.Time
	Numbers   []int
	Optimized bool `wire:"EbsOptimized"`
	Placement struct {
		Zone string `wire:"AvailabilityZone,required"`
	}
	secret   string
	Internal string `wire:"-"`
}

// formOf reads a query string as a request's.
func formOf(t testing.TB, query string) Form {
	t.Helper()
	form, err := Parse(httptest.NewRequest(http.MethodGet, "/?"+query, nil), nil)
	if err != nil {
		t.Fatalf("parse %q: %v", query, err)
	}
	return form
}

func ptr[T any](v T) *T { return &v }

func TestDecode(t *testing.T) {
	form := formOf(t, strings.Join([]string{
		"Action=RunInstances", "Version=2016-11-15", "X-Amz-Date=x", "Signature=y", "AWSAccessKeyId=z",
		"ImageId=emi-12345678", "MinCount=2", "ClientToken=", "UserData=aGVsbG8%3D", "EbsOptimized=True",
		"InstanceInitiatedShutdownBehavior=stop", "MaxResults=5", "NextToken=n%26x",
		"BlockDeviceMapping.1.DeviceName=/dev/sda", "BlockDeviceMapping.1.Ebs.VolumeSize=8",
		"BlockDeviceMapping.2.Ebs.DeleteOnTermination=false", "BlockDeviceMapping.2.NoDevice=",
		"SecurityGroup.2=b", "SecurityGroup.1=a", "Type.member.1=kernel", "Numbers=",
		"Filter.1.Name=tag:x", "Filter.1.Value.1=1", "Filter.1.Value.2=2",
		"Until=2026-11-22T03:04:05.678Z", "Since=2026-11-22T03:04:05%2B01:00", "Placement.AvailabilityZone=one",
	}, "&"))
	var got launch
	leftover, err := Decode(form, &got)
	if err != nil || len(leftover) > 0 {
		t.Fatalf("leftover %v, error %v", leftover, err)
	}
	want := launch{
		page: page{MaxResults: ptr(int32(5)), NextToken: "n&x"}, ImageID: "emi-12345678", MinCount: 2,
		Shutdown: "stop", Token: ptr(""), UserData: []byte("hello"), Groups: []string{"a", "b"}, Types: []string{"kernel"},
		Filters: []filter{{"tag:x", []string{"1", "2"}}}, Until: time.Date(2026, 11, 22, 3, 4, 5, 678e6, time.UTC),
		Since: ptr(time.Date(2026, 11, 22, 2, 4, 5, 0, time.UTC)), Numbers: []int{}, Optimized: true,
	}
	want.Disks = make([]disk, 2)
	want.Disks[0].DeviceName = "/dev/sda"
	want.Disks[1].NoDevice = ptr("")
	for i := range want.Disks {
		want.Disks[i].Ebs = reflect.New(reflect.TypeOf(want.Disks[i].Ebs).Elem()).Interface().(*struct {
			VolumeSize          *int64 `wire:"VolumeSize,min=1,max=16384"`
			DeleteOnTermination *bool
		})
	}
	want.Disks[0].Ebs.VolumeSize = ptr(int64(8))
	want.Disks[1].Ebs.DeleteOnTermination = ptr(false)
	want.Placement.Zone = "one"
	if !reflect.DeepEqual(got, want) {
		t.Errorf("\ngot  %+v\nwant %+v", got, want)
	}
}

func TestDecodeLeftover(t *testing.T) {
	form := formOf(t, "ImageId=emi-1&MinCount=1&Tenancy=host&Placement=x&Placement.AvailabilityZone=a&Placement.Host.Id=h"+
		"&Filter.1=x&Filter.1.Name=n&BlockDeviceMapping.1.Ebs.Iops=7&imageid=x&secret=x&Internal=x&Internal.1=x&.=x")
	var in launch
	leftover, err := Decode(form, &in)
	if err != nil || in.secret != "" || in.Internal != "" {
		t.Fatalf("%+v, %v", in, err)
	}
	want := []string{".", "BlockDeviceMapping.1.Ebs.Iops", "Filter.1", "Internal", "Internal.1", "Placement",
		"Placement.Host.Id", "Tenancy", "imageid", "secret"}
	if !slices.Equal(leftover, want) {
		t.Errorf("got  %q\nwant %q", leftover, want)
	}
}

func TestDecodeRefuses(t *testing.T) {
	const whole = "&ImageId=emi-1&MinCount=1"
	long := strings.Repeat("x", 200)
	for _, test := range []struct{ query, code, message string }{
		{"MinCount=1", "MissingParameter", "parameter ImageId"},
		{"MinCount=1&ImageId=", "MissingParameter", "parameter ImageId"},
		{"ImageId=emi-1", "MissingParameter", "parameter MinCount"},
		{"ImageId=emi-1&MinCount=", "MissingParameter", "parameter MinCount"},
		{"ImageId=emi-1&MinCount=0", "InvalidParameterValue", "Value (0) for parameter MinCount is invalid. Expecting at least 1"},
		{"ImageId=emi-1&MinCount=one", "InvalidParameterValue", "Value (one) for parameter MinCount"},
		{"ImageId=emi-1&MinCount=99999999999999999999", "InvalidParameterValue", "MinCount is invalid. Expecting a whole number"},
		{"ImageId=emi-1&MinCount.1=1", "UnknownParameter", "MinCount.1"},
		{"MaxResults=4294967297" + whole, "InvalidParameterValue", "at most 32 bits"},
		{"MaxResults=1001" + whole, "InvalidParameterValue", "between 5 and 1000"},
		{"MinCount=1&ImageId=" + long, "InvalidParameterValue", "Value (" + long[:128] + "…) for parameter ImageId is invalid. Expecting at most 32 characters"},
		{"InstanceInitiatedShutdownBehavior=burn" + whole, "InvalidParameterValue", "one of stop, terminate"},
		{"InstanceInitiatedShutdownBehavior=" + whole, "InvalidParameterValue", "one of stop, terminate"},
		{"Type.1=kernel&Type.2=ramdisk" + whole, "InvalidParameterValue", "Value (ramdisk) for parameter Type.2"},
		{"EbsOptimized=maybe" + whole, "InvalidParameterValue", "true or false"},
		{"UserData=%25%25" + whole, "InvalidParameterValue", "UserData is invalid. Expecting base64"},
		{"UserData=" + strings.Repeat("AAAA", 6) + whole, "InvalidParameterValue", "at most 16 bytes once its base64 is decoded; there are 18"},
		{"Until=yesterday" + whole, "InvalidParameterValue", "Value (yesterday) for parameter Until"},
		{"Filter.1.Value.1=x" + whole, "MissingParameter", "parameter Filter.1.Name"},
		{"Placement.X=x" + whole, "MissingParameter", "parameter Placement.AvailabilityZone"},
		{"BlockDeviceMapping.1.Ebs.VolumeSize=0" + whole, "InvalidParameterValue", "BlockDeviceMapping.1.Ebs.VolumeSize"},
		{"BlockDeviceMapping.1.DeviceName=a&BlockDeviceMapping.2.DeviceName=a&BlockDeviceMapping.3.DeviceName=a&BlockDeviceMapping.4.DeviceName=a" + whole,
			"InvalidParameterValue", "Value (4 values) for parameter BlockDeviceMapping is invalid. Expecting at most 3"},
		{"SecurityGroup=a" + whole, "InvalidParameterValue", "number its values SecurityGroup.1"},
		{"SecurityGroup=a&SecurityGroup.1=a" + whole, "InvalidParameterCombination", "SecurityGroup"},
		{"SecurityGroup.1=a&SecurityGroup.member.1=a" + whole, "InvalidParameterCombination", "SecurityGroup.member.1"},
		{"SecurityGroup.0=a" + whole, "InvalidParameterValue", "SecurityGroup.0"},
		{"SecurityGroup.01=a" + whole, "InvalidParameterValue", "SecurityGroup.01"},
		{"SecurityGroup.-1=a" + whole, "UnknownParameter", "SecurityGroup.-1"},
		{"SecurityGroup.1=a&SecurityGroup.3=a" + whole, "InvalidParameterValue", "SecurityGroup.3"},
		{"SecurityGroup.999999999=a" + whole, "InvalidParameterValue", "SecurityGroup.999999999"},
		{"SecurityGroup.99999999999999999999999=a" + whole, "InvalidParameterValue", "SecurityGroup.99999999999999999999999"},
		{"SecurityGroup.x=a" + whole, "UnknownParameter", "SecurityGroup.x"},
		{"SecurityGroup.=a" + whole, "UnknownParameter", "SecurityGroup."},
		{"SecurityGroup.1.Name=a" + whole, "UnknownParameter", "SecurityGroup.1.Name"},
		{"SecurityGroup.member.member.1=a" + whole, "UnknownParameter", "SecurityGroup.member.member"},
		{strings.Repeat("A.", 12) + "A=1" + whole, "UnknownParameter", "A.A"},
		{strings.Repeat("A", 257) + "=1" + whole, "UnknownParameter", "AAA"},
	} {
		_, err := Decode(formOf(t, test.query), new(launch))
		checkError(t, test.query, err, test.code, http.StatusBadRequest, test.message)
	}
}

func TestRequiredList(t *testing.T) {
	for query, code := range map[string]string{"": "MissingParameter", "A=": "MissingParameter", "A.1=x": ""} {
		in := struct {
			A []string `wire:"A,required"`
		}{}
		_, err := Decode(formOf(t, query), &in)
		if code != "" {
			checkError(t, query, err, code, http.StatusBadRequest, "parameter A")
		} else if err != nil || !slices.Equal(in.A, []string{"x"}) {
			t.Errorf("%q: %v, %v", query, in.A, err)
		}
	}
}

func checkError(t *testing.T, what string, err error, code string, status int, message string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Errorf("%s: got %v, want a wire error %s", what, err, code)
		return
	}
	if e.Code != code || e.Status != status || !strings.Contains(e.Message, message) {
		t.Errorf("%s:\ngot  %d %v\nwant %d %s: … %s …", what, e.Status, e, status, code, message)
	}
}

// A deep or wide form must cost what it weighs, not what it says.
func TestDecodeIsBounded(t *testing.T) {
	form := Form{"ImageId": "emi-1", "MinCount": "1", "SecurityGroup.2147483647": "a", strings.Repeat("a.", 1<<19): ""}
	for range 2 {
		allocs := testing.AllocsPerRun(1, func() { _, _ = Decode(form, new(launch)) })
		if allocs > 100 {
			t.Errorf("%v allocations for a hostile form", allocs)
		}
		delete(form, strings.Repeat("a.", 1<<19)) // next, the list alone
	}
}

func TestTagMistakesPanic(t *testing.T) {
	for _, in := range []any{
		&struct {
			A string `wire:"A,requried"`
		}{},
		&struct {
			A string `wire:"A,base64"`
		}{},
		&struct{ A []byte }{},
		&struct{ A map[string]string }{},
		&struct{ A [][]string }{},
		&struct{ A float64 }{},
		&struct {
			A bool `wire:"A,max=1"`
		}{},
		&struct {
			A int `wire:"A,enum=1|2"`
		}{},
		&struct {
			A int `wire:"A,max=many"`
		}{},
		&struct{ A []struct{ B *uint } }{},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%T: no panic", in)
				}
			}()
			_, _ = Decode(Form{}, in)
		}()
	}
}

func TestNames(t *testing.T) {
	got := strings.Join(Names(new(launch)), " ")
	want := "MaxResults NextToken ImageId MinCount InstanceInitiatedShutdownBehavior ClientToken UserData" +
		" BlockDeviceMapping.N.DeviceName BlockDeviceMapping.N.NoDevice BlockDeviceMapping.N.Ebs.VolumeSize" +
		" BlockDeviceMapping.N.Ebs.DeleteOnTermination SecurityGroup.N Type.N Filter.N.Name Filter.N.Value.N" +
		" Until Since Numbers.N EbsOptimized Placement.AvailabilityZone"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// FuzzDecode: any request ends in a form and leftovers that make it up together, or
// in one of the errors a client may see.
func FuzzDecode(f *testing.F) {
	f.Add("ImageId=emi-1&MinCount=1", "BlockDeviceMapping.1.Ebs.VolumeSize=8")
	f.Add("SecurityGroup.member.1=a&Filter.1.Name=x", "Filter.1.Value.1=%E1%88%B4&UserData=aGVsbG8%3D")
	f.Add("A.1=1&A=2&A.1=3", "SecurityGroup.999999999=x&a=%zz&;=&=&&")
	f.Fuzz(func(t *testing.T, query, body string) {
		r := &http.Request{Method: http.MethodPost, URL: &url.URL{RawQuery: query}, Header: http.Header{}}
		form, err := Parse(r, []byte(body))
		if err != nil {
			checkVisible(t, err)
			return
		}
		var in launch
		leftover, err := Decode(form, &in)
		if err != nil {
			checkVisible(t, err)
			return
		}
		for _, name := range leftover {
			if _, ok := form[name]; !ok {
				t.Fatalf("the leftover %q isn't in the form %q", name, form)
			}
		}
		var again launch
		if _, err := Decode(form, &again); err != nil || !reflect.DeepEqual(in, again) {
			t.Fatalf("decoded twice, the results differ: %+v, %+v, %v", in, again, err)
		}
	})
}

// checkVisible demands an error that a client may see and a reply can hold.
func checkVisible(t *testing.T, err error) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Status < 400 || e.Status >= 500 || e.Code == "" || len(e.Message) > 4096 {
		t.Fatalf("not an error for a client: %#v", err)
	}
	w := httptest.NewRecorder()
	WriteEC2Error(w, "id", err)
	if !bytes.HasSuffix(w.Body.Bytes(), []byte("</Response>")) {
		t.Fatalf("the reply to %v is %q", err, w.Body)
	}
}

func BenchmarkDecode(b *testing.B) {
	query := "Action=RunInstances&Version=2016-11-15&ImageId=emi-12345678&MinCount=1&ClientToken=12345678-1234-1234-1234-123456789012" +
		"&UserData=aGVsbG8%3D&Placement.AvailabilityZone=one&SecurityGroup.1=default"
	for i := 1; i <= 3; i++ {
		query += fmt.Sprintf("&BlockDeviceMapping.%d.DeviceName=%%2Fdev%%2Fsda&BlockDeviceMapping.%d.Ebs.VolumeSize=8&Filter.%d.Name=a&Filter.%d.Value.1=b", i, i, i, i)
	}
	r := httptest.NewRequest(http.MethodPost, "/", nil)
	b.ReportAllocs()
	for b.Loop() {
		form, err := Parse(r, []byte(query))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := Decode(form, new(launch)); err != nil {
			b.Fatal(err)
		}
	}
}
