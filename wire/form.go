package wire

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"
)

// DefaultLimit bounds the body of a query request, in bytes. User data is at most
// 16 KiB, and a request that fills this has thousands of parameters.
const DefaultLimit = 1 << 20

// maxParameters bounds the form. A thousand instance ids with all their filters
// stay far below it.
const maxParameters = 10_000

// Form holds a request's parameters, each name once: Parse refuses a repetition.
type Form map[string]string

// Get returns the parameter's value, empty where the form hasn't it.
func (f Form) Get(name string) string { return f[name] }

// ReadBody reads the request's body whole, for the signature's hash and for Parse.
// A body above the limit, in bytes, is RequestEntityTooLarge, and one that breaks
// off is IncompleteBody.
func ReadBody(r *http.Request, limit int64) ([]byte, error) {
	if r.Body == nil {
		return nil, nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	var tooLarge *http.MaxBytesError
	switch {
	case int64(len(body)) > limit || errors.As(err, &tooLarge):
		return nil, Errorf("RequestEntityTooLarge", "The request's body is longer than the %d bytes allowed", limit)
	case err != nil:
		return nil, Errorf("IncompleteBody", "The request's body ended after %d bytes; send it again", len(body))
	}
	return body, nil
}

// Parse takes the form out of a request: the URL's query, and for POST the body,
// which the caller has read with ReadBody. A name that comes twice, in one of them
// or across both, is an error: which one would count is anybody's guess.
func Parse(r *http.Request, body []byte) (Form, error) {
	form := Form{}
	if err := form.add(r.URL.RawQuery); err != nil {
		return nil, err
	}
	switch r.Method {
	case http.MethodGet:
		if len(body) > 0 {
			return nil, Errorf("InvalidRequest", "A GET request has its parameters in the URL; this one has a body of %d bytes: use POST", len(body))
		}
		return form, nil
	case http.MethodPost:
		if err := checkContentType(r.Header.Get("Content-Type"), body); err != nil {
			return nil, err
		}
		if err := form.add(string(body)); err != nil {
			return nil, err
		}
		return form, nil
	}
	return nil, Errorf("MethodNotAllowed", "The method %s is not served here; use GET or POST", Shorten(r.Method))
}

// checkContentType lets pass a form, and what says nothing of its type, as curl
// users and old tools do.
func checkContentType(header string, body []byte) error {
	if header == "" || len(body) == 0 {
		return nil
	}
	kind, _, err := mime.ParseMediaType(header)
	if err != nil || kind != "application/x-www-form-urlencoded" {
		return Errorf("InvalidRequest", "The request's Content-Type is %s; send a form, application/x-www-form-urlencoded", Shorten(header))
	}
	return nil
}

// add reads name=value&name=value. Unlike net/url it takes a semicolon for an
// ordinary character, as the signature's canonical query does.
func (f Form) add(encoded string) error {
	for encoded != "" {
		var pair string
		pair, encoded, _ = strings.Cut(encoded, "&")
		if pair == "" {
			continue
		}
		if len(f) >= maxParameters {
			return Errorf("RequestEntityTooLarge", "The request has more than %d parameters; split it", maxParameters)
		}
		if err := f.addPair(pair); err != nil {
			return err
		}
	}
	return nil
}

func (f Form) addPair(pair string) error {
	rawName, rawValue, _ := strings.Cut(pair, "=")
	name, err := unescape(rawName)
	if err != nil || name == "" {
		return Errorf("MalformedQueryString", "The request has a parameter without a readable name: %s", Shorten(pair))
	}
	value, err := unescape(rawValue)
	if err != nil {
		return Errorf("MalformedQueryString", "The value of the parameter %s can't be read: %v", Shorten(name), err)
	}
	if _, twice := f[name]; twice {
		return InvalidParameterCombination("The parameter %s is given more than once", Shorten(name))
	}
	f[name] = value
	return nil
}

func unescape(s string) (string, error) {
	plain, err := url.QueryUnescape(s)
	if err != nil {
		return "", fmt.Errorf("a percent sign needs two hexadecimal digits after it: %s", Shorten(s))
	}
	if !utf8.ValidString(plain) {
		return "", errors.New("it is not UTF-8")
	}
	return plain, nil
}
