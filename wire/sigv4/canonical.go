package sigv4

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/textproto"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"mallee/wire"
)

// unsignedPayload stands for the body's hash where the signature leaves it out.
const unsignedPayload = "UNSIGNED-PAYLOAD"

// param is one parameter of a query, decoded.
type param struct{ name, value string }

// parseQuery reads a query exactly as wire.Parse does, so that what is verified is
// what is acted upon: plus is a space and a semicolon is a semicolon.
func parseQuery(raw string) ([]param, error) {
	var params []param
	for raw != "" {
		var pair string
		pair, raw, _ = strings.Cut(raw, "&")
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		name, nameErr := url.QueryUnescape(name)
		value, valueErr := url.QueryUnescape(value)
		if nameErr != nil || valueErr != nil {
			return nil, wire.Errorf("MalformedQueryString", "The query has a percent sign without two hexadecimal digits after it: %s", wire.Shorten(pair))
		}
		params = append(params, param{name, value})
	}
	return params, nil
}

// canonicalQuery encodes every name and value, then sorts by name and value. The
// signature of a presigned request can't cover itself.
func canonicalQuery(params []param) string {
	encoded := make([]param, 0, len(params))
	for _, p := range params {
		if p.name == "X-Amz-Signature" {
			continue
		}
		encoded = append(encoded, param{escape(p.name, false), escape(p.value, false)})
	}
	slices.SortFunc(encoded, func(a, b param) int {
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.value, b.value))
	})
	var b strings.Builder
	for i, p := range encoded {
		if i > 0 {
			b.WriteByte('&')
		}
		b.WriteString(p.name + "=" + p.value)
	}
	return b.String()
}

// canonicalPaths returns the ways to write the path down that clients use.
//
// For S3 it is the path, decoded and encoded once: keys may hold dots and slashes at
// will. For the others AWS asks to remove . and .. and empty parts, and then to encode
// what was sent a second time. The Go SDK doesn't remove and botocore does, so
// both are taken: an attacker gains nothing, for he can't sign either.
func canonicalPaths(u *url.URL, service string) []string {
	if service == "s3" {
		return []string{escape(cmp.Or(u.Path, "/"), true)}
	}
	raw := cmp.Or(sentPath(u), "/")
	paths := []string{escape(raw, true)}
	clean := path.Clean("/" + raw)
	if strings.HasSuffix(raw, "/") && clean != "/" {
		clean += "/"
	}
	if clean != raw {
		paths = append(paths, escape(clean, true))
	}
	return paths
}

// sentPath is the path as it was on the wire. URL.EscapedPath would encode the bytes
// above 127 that a careless client sent as they are, and signed as they are.
func sentPath(u *url.URL) string {
	if plain, err := url.PathUnescape(u.RawPath); u.RawPath != "" && err == nil && plain == u.Path {
		return u.RawPath
	}
	return u.EscapedPath()
}

const upperHex = "0123456789ABCDEF"

// escape encodes all but RFC 3986's unreserved characters, byte by byte, with capital
// digits; net/url's own functions keep some others.
func escape(s string, slash bool) string {
	var b strings.Builder
	b.Grow(len(s))
	for i := range len(s) {
		c := s[i]
		if unreserved(c) || c == '/' && slash {
			b.WriteByte(c)
		} else {
			b.Write([]byte{'%', upperHex[c>>4], upperHex[c&15]})
		}
	}
	return b.String()
}

func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '-' || c == '.' || c == '_' || c == '~'
}

// canonicalHeaders writes the signed headers as name:value lines. One that isn't there
// is an error: a signature over a header's absence is a client's mistake.
func canonicalHeaders(r *http.Request, names []string) (string, error) {
	var b strings.Builder
	for _, name := range names {
		values := headerValues(r, name)
		if values == nil {
			return "", incomplete("The signature covers the header %s, which the request doesn't have", wire.Shorten(name))
		}
		b.WriteString(name)
		b.WriteByte(':')
		for i, value := range values {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(collapse(value))
		}
		b.WriteByte('\n')
	}
	return b.String(), nil
}

// headerValues finds a header where net/http put it.
func headerValues(r *http.Request, name string) []string {
	values := r.Header[textproto.CanonicalMIMEHeaderKey(name)]
	switch {
	case name == "host":
		return []string{cmp.Or(r.Host, r.URL.Host)}
	case name == "content-length" && values == nil && r.ContentLength >= 0:
		return []string{strconv.FormatInt(r.ContentLength, 10)}
	}
	return values
}

// collapse trims a header's value and makes one space of several.
func collapse(s string) string {
	s = strings.TrimSpace(s)
	for strings.Contains(s, "  ") {
		s = strings.ReplaceAll(s, "  ", " ")
	}
	return s
}

// canonicalRequest is the request as both sides write it down.
func canonicalRequest(method, path, query, headers string, signedHeaders []string, bodyHash string) string {
	return strings.Join([]string{method, path, query, headers, strings.Join(signedHeaders, ";"), bodyHash}, "\n")
}

// sign is the signature of a canonical request, in hexadecimal.
func sign(key []byte, signedAt time.Time, s scope, canonical string) string {
	text := strings.Join([]string{algorithm, signedAt.Format(timeFormat), s.String(), hash([]byte(canonical))}, "\n")
	return hex.EncodeToString(mac(key, text))
}

// signingKey narrows a secret down to a scope.
func signingKey(secret string, s scope) []byte {
	key := mac([]byte("AWS4"+secret), s.date)
	for _, part := range []string{s.region, s.service, terminator} {
		key = mac(key, part)
	}
	return key
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

func hash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
