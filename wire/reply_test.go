package wire

import (
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the transcripts in testdata anew")

type instance struct {
	InstanceID string `xml:"instanceId"`
	LaunchTime *Time  `xml:"launchTime"`
	Name       string `xml:"name,omitempty"`
}

type instances struct {
	Instances []instance `xml:"instancesSet>item"`
	Groups    []string   `xml:"groupSet>item"`
	Next      string     `xml:"nextToken,omitempty"`
}

func TestReplies(t *testing.T) {
	when := At(time.Date(2026, 11, 22, 4, 4, 5, 678_999, time.FixedZone("", 3600)))
	some := instances{Instances: []instance{{"i-1", when, "a<b>&\"c\" \x00\x1b ￿ ሴ \xff"}, {"i-2", At(time.Time{}), ""}}}
	for name, write := range map[string]func(w *httptest.ResponseRecorder) error{
		"ec2": func(w *httptest.ResponseRecorder) error {
			return WriteEC2(w, "DescribeInstances", "2010-08-31", "req-1", some)
		},
		"ec2-empty": func(w *httptest.ResponseRecorder) error {
			return WriteEC2(w, "DescribeInstances", NewestVersion, "req-1", &instances{})
		},
		"ec2-nil": func(w *httptest.ResponseRecorder) error {
			return WriteEC2(w, "RebootInstances", NewestVersion, "req-1", nil)
		},
		"iam": func(w *httptest.ResponseRecorder) error {
			return WriteQuery(w, IAMNamespace, "ListUsers", "req-1", some)
		},
		"iam-nil": func(w *httptest.ResponseRecorder) error {
			return WriteQuery(w, IAMNamespace, "DeleteUser", "req-1", nil)
		},
		"ec2-error": func(w *httptest.ResponseRecorder) error {
			WriteEC2Error(w, "req-1", fmt.Errorf("launch: %w", InvalidParameterValue("ImageId", "<\x00>", "Expecting an image's id.")))
			return nil
		},
		"ec2-internal": func(w *httptest.ResponseRecorder) error {
			WriteEC2Error(w, "req-1", errors.New("disk full at /var/secret"))
			return nil
		},
		"sts-error": func(w *httptest.ResponseRecorder) error {
			WriteQueryError(w, STSNamespace, "req-1", Errorf("InvalidClientTokenId", "No such key"))
			return nil
		},
		"iam-internal": func(w *httptest.ResponseRecorder) error {
			WriteQueryError(w, IAMNamespace, "req-1", errors.New("disk full"))
			return nil
		},
	} {
		w := httptest.NewRecorder()
		if err := write(w); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := w.Header().Get("Content-Length"); got != strconv.Itoa(w.Body.Len()) {
			t.Errorf("%s: Content-Length %s of %d", name, got, w.Body.Len())
		}
		if err := xml.Unmarshal(w.Body.Bytes(), new(struct{})); err != nil {
			t.Errorf("%s: not XML: %v", name, err)
		}
		compare(t, name, fmt.Sprintf("%d %s\n%s\n", w.Code, w.Header().Get("Content-Type"), w.Body))
	}
}

func compare(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s:\ngot  %s\nwant %s", name, got, want)
	}
}

// What can't be encoded must leave the reply untouched, for the error that follows.
func TestReplyIsWholeOrNothing(t *testing.T) {
	for _, out := range []any{
		struct {
			A instance
			B chan int
		}{},
		[]string{"a", "b"},
		struct {
			A string `xml:"a,attr"`
		}{"x"},
	} {
		w := httptest.NewRecorder()
		if WriteEC2(w, "A", NewestVersion, "r", out) == nil || WriteQuery(w, IAMNamespace, "A", "r", out) == nil {
			t.Errorf("%T: no error", out)
		}
		if w.Body.Len() > 0 || len(w.Header()) > 0 {
			t.Errorf("%T: something was written: %v %q", out, w.Header(), w.Body)
		}
	}
}

func TestTimeBothWays(t *testing.T) {
	var got instance
	const text = "<instance><launchTime>2026-11-22T03:04:05.000Z</launchTime></instance>"
	if err := xml.Unmarshal([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	back, err := xml.Marshal(got)
	if err != nil || !strings.Contains(string(back), "<launchTime>2026-11-22T03:04:05.000Z</launchTime>") {
		t.Errorf("%s, %v", back, err)
	}
}

func TestAsErrorHidesWhatIsOurs(t *testing.T) {
	if e := AsError(errors.New("secret")); e.Code != "InternalError" || e.Status != 500 || strings.Contains(e.Message, "secret") {
		t.Errorf("%+v", e)
	}
	if e := AsError(fmt.Errorf("x: %w", MissingParameter("A"))); e.Code != "MissingParameter" || e.Status != 400 {
		t.Errorf("%+v", e)
	}
}

func TestShorten(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "ሴ": "ሴ", "\xff": "\uFFFD",
		strings.Repeat("x", 128):        strings.Repeat("x", 128),
		strings.Repeat("x", 127) + "ሴሴ": strings.Repeat("x", 127) + "…",
	} {
		if got := Shorten(in); got != want {
			t.Errorf("Shorten(%q) = %q, want %q", in, got, want)
		}
	}
}
