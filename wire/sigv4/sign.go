package sigv4

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Credentials are what a client signs with.
type Credentials struct {
	AccessKey string
	Secret    string
	Token     string // of a session; empty with a lasting access key
}

// Sign signs a request that is about to be sent, in its Authorization header: the
// path, the query, the headers Host, Content-Type and x-amz-*, and the body. It
// replaces an earlier signature; nothing of that may change afterwards. The error is a
// query that can't be read.
func Sign(r *http.Request, body []byte, c Credentials, region, service string, now time.Time) error {
	return SignHash(r, hash(body), c, region, service, now)
}

// SignHash is Sign for a body that isn't in memory: bodyHash is its SHA-256 in
// hexadecimal digits of lower case.
func SignHash(r *http.Request, bodyHash string, c Credentials, region, service string, now time.Time) error {
	params, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		return fmt.Errorf("sign %s %s: %w", r.Method, r.URL.Redacted(), err)
	}
	now = now.UTC().Truncate(time.Second)
	setHeaders(r.Header, c, service, bodyHash, now)
	r.URL.RawPath = r.URL.EscapedPath() // which net/http will send

	signedHeaders := headersToSign(r.Header)
	headers, err := canonicalHeaders(r, signedHeaders)
	if err != nil {
		return fmt.Errorf("sign %s %s: %w", r.Method, r.URL.Redacted(), err)
	}
	s := scope{now.Format(dateFormat), region, service}
	path := canonicalPaths(r.URL, service)[0]
	canonical := canonicalRequest(r.Method, path, canonicalQuery(params), headers, signedHeaders, bodyHash)
	r.Header.Set("Authorization", fmt.Sprintf("%s Credential=%s/%s, SignedHeaders=%s, Signature=%s", algorithm,
		c.AccessKey, s, strings.Join(signedHeaders, ";"), sign(signingKey(c.Secret, s), now, s, canonical)))
	return nil
}

// setHeaders states time and session; S3 wants the body's hash stated too.
func setHeaders(h http.Header, c Credentials, service, bodyHash string, now time.Time) {
	h.Set("X-Amz-Date", now.Format(timeFormat))
	h.Del("X-Amz-Security-Token")
	if c.Token != "" {
		h.Set("X-Amz-Security-Token", c.Token)
	}
	if service == "s3" {
		h.Set("X-Amz-Content-Sha256", bodyHash)
	}
}

// headersToSign leaves out what proxies and transports add or change.
func headersToSign(h http.Header) []string {
	names := []string{"host"}
	for name := range h {
		if lower := strings.ToLower(name); lower == "content-type" || strings.HasPrefix(lower, "x-amz-") {
			names = append(names, lower)
		}
	}
	slices.Sort(names)
	return names
}
