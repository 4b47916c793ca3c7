package wire

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

func TestParse(t *testing.T) {
	r := httptest.NewRequest(http.MethodPost, "/services/compute?Action=X&Flag", nil)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	form, err := Parse(r, []byte("A.1=a+b%20c&&B=1;2&C=%E1%88%B4"))
	want := Form{"Action": "X", "Flag": "", "A.1": "a b c", "B": "1;2", "C": "ሴ"}
	if err != nil || !reflect.DeepEqual(form, want) {
		t.Errorf("got %q, %v; want %q", form, err, want)
	}
}

func TestParseRefuses(t *testing.T) {
	many := strings.Builder{}
	for i := range maxParameters + 1 {
		many.WriteString(string(rune('a'+i%26)) + strings.Repeat("x", i/26) + "=&")
	}
	for _, test := range []struct {
		name, method, query, contentType, body string
		code                                   string
		status                                 int
		message                                string
	}{
		{"twice in the query", "GET", "A=1&A=1", "", "", "InvalidParameterCombination", 400, "parameter A is given more than once"},
		{"twice in the body", "POST", "", "", "A=1&B=1&A=2", "InvalidParameterCombination", 400, "parameter A is"},
		{"in both", "POST", "A=1", "", "A=1", "InvalidParameterCombination", 400, "parameter A is"},
		{"percent", "POST", "", "", "A=%4", "MalformedQueryString", 400, "parameter A can't be read: a percent sign"},
		{"percent in the name", "POST", "", "", "%zz=1", "MalformedQueryString", 400, "%zz=1"},
		{"no name", "POST", "", "", "=1", "MalformedQueryString", 400, "=1"},
		{"not UTF-8", "POST", "", "", "A=%ff", "MalformedQueryString", 400, "parameter A can't be read: it is not UTF-8"},
		{"JSON", "POST", "", "application/json", "{}", "InvalidRequest", 400, "application/json"},
		{"odd type", "POST", "", ";;", "A=1", "InvalidRequest", 400, ";;"},
		{"GET with a body", "GET", "A=1", "", "B=1", "InvalidRequest", 400, "body of 3 bytes"},
		{"PUT", "PUT", "", "", "A=1", "MethodNotAllowed", 405, "PUT"},
		{"too many", "POST", "", "", many.String(), "RequestEntityTooLarge", 413, "10000 parameters"},
	} {
		r := httptest.NewRequest(test.method, "/", nil)
		r.URL.RawQuery = test.query
		r.Header.Set("Content-Type", test.contentType)
		_, err := Parse(r, []byte(test.body))
		checkError(t, test.name, err, test.code, test.status, test.message)
	}
}

func TestReadBody(t *testing.T) {
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader("A=1"))
	if body, err := ReadBody(r, 3); err != nil || string(body) != "A=1" {
		t.Errorf("at the limit: %q, %v", body, err)
	}
	r = httptest.NewRequest(http.MethodPost, "/", strings.NewReader("A=12"))
	_, err := ReadBody(r, 3)
	checkError(t, "above the limit", err, "RequestEntityTooLarge", 413, "the 3 bytes allowed")

	r = httptest.NewRequest(http.MethodPost, "/", nil)
	r.Body = io.NopCloser(io.MultiReader(strings.NewReader("A="), iotest.ErrReader(errors.New("gone"))))
	_, err = ReadBody(r, 3)
	checkError(t, "broken off", err, "IncompleteBody", 400, "after 2 bytes")

	w := httptest.NewRecorder()
	r = httptest.NewRequest(http.MethodPost, "/", strings.NewReader("A=12"))
	r.Body = http.MaxBytesReader(w, r.Body, 2)
	_, err = ReadBody(r, 3)
	checkError(t, "above the server's limit", err, "RequestEntityTooLarge", 413, "")
}

func TestCheckVersion(t *testing.T) {
	for _, version := range []string{OldestVersion, "2010-08-31", NewestVersion} {
		if err := CheckVersion(version); err != nil {
			t.Errorf("%s: %v", version, err)
		}
	}
	for version, code := range map[string]string{
		"": "MissingParameter", "2016": "InvalidParameterValue", "2016-13-01": "InvalidParameterValue", "2016-11-15/": "InvalidParameterValue",
		`2016-11-15"><x>`: "InvalidParameterValue", "2006-06-25": "NoSuchVersion", "2016-11-16": "NoSuchVersion", "9999-12-31": "NoSuchVersion",
	} {
		checkError(t, version, CheckVersion(version), code, 400, "")
	}
}
