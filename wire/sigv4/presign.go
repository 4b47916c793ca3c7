package sigv4

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Presign is the address by which anybody may do one request, of that method and
// without a body that matters, for as long as it lives: it holds the signature in
// its query. It is a secret as long as that. address is an absolute URL; lifetime is
// one second to MaxLifetime.
func Presign(method, address string, c Credentials, region, service string, now time.Time, lifetime time.Duration) (string, error) {
	if lifetime < time.Second || lifetime > MaxLifetime {
		return "", fmt.Errorf("presign %s %s: a lifetime of %v is not from %v to %v", method, address, lifetime, time.Second, MaxLifetime)
	}
	u, err := url.Parse(address)
	if err != nil {
		return "", fmt.Errorf("presign %s: %w", method, err)
	}
	params, err := parseQuery(u.RawQuery)
	if err != nil {
		return "", fmt.Errorf("presign %s %s: %w", method, u.Redacted(), err)
	}
	now = now.UTC().Truncate(time.Second)
	s := scope{now.Format(dateFormat), region, service}
	params = append(params,
		param{"X-Amz-Algorithm", algorithm}, param{"X-Amz-Credential", c.AccessKey + "/" + s.String()},
		param{"X-Amz-Date", now.Format(timeFormat)}, param{"X-Amz-Expires", strconv.Itoa(int(lifetime / time.Second))},
		param{"X-Amz-SignedHeaders", "host"})
	if c.Token != "" {
		params = append(params, param{"X-Amz-Security-Token", c.Token})
	}
	query := canonicalQuery(params)
	u.RawPath = u.EscapedPath()
	headers, err := canonicalHeaders(&http.Request{Host: u.Host, URL: u}, []string{"host"})
	if err != nil {
		return "", fmt.Errorf("presign %s %s: %w", method, u.Redacted(), err)
	}
	bodyHash := hash(nil)
	if service == "s3" {
		bodyHash = unsignedPayload
	}
	canonical := canonicalRequest(method, canonicalPaths(u, service)[0], query, headers, []string{"host"}, bodyHash)
	u.RawQuery = query + "&X-Amz-Signature=" + sign(signingKey(c.Secret, s), now, s, canonical)
	return u.String(), nil
}
