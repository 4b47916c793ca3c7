package sigv4

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"mallee/wire"
)

const (
	algorithm  = "AWS4-HMAC-SHA256"
	terminator = "aws4_request"
	timeFormat = "20060102T150405Z"
	dateFormat = "20060102"
)

// scope is what the secret is narrowed down to before it signs.
type scope struct {
	date, region, service string
}

func (s scope) String() string {
	return strings.Join([]string{s.date, s.region, s.service, terminator}, "/")
}

// claim is what a request says of its signature. Nothing of it is proven.
type claim struct {
	accessKey     string
	scope         scope
	token         string // of a session; empty with a lasting access key
	signedAt      time.Time
	lifetime      time.Duration // of a presigned request, and zero otherwise
	signedHeaders []string      // lower case, strictly ascending
	signature     string        // 64 hexadecimal digits, lower case
	presigned     bool
}

// ServiceOf returns the service that the request claims to be signed for, such as
// ec2, and "" where it claims none: it tells which room is to answer. The room itself
// verifies the claim.
func ServiceOf(r *http.Request) string {
	params, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		return ""
	}
	c, err := claimOf(r, params)
	if err != nil {
		return ""
	}
	return c.scope.service
}

// claimOf reads the claim from the Authorization header or from the query.
func claimOf(r *http.Request, params []param) (claim, error) {
	headers := r.Header.Values("Authorization")
	presigned := slices.ContainsFunc(params, func(p param) bool {
		return p.name == "X-Amz-Algorithm" || p.name == "X-Amz-Credential" || p.name == "X-Amz-Signature"
	})
	switch {
	case len(headers) > 1 || len(headers) == 1 && presigned:
		return claim{}, incomplete("The request is signed more than once; use the Authorization header or the query, not both")
	case len(headers) == 1:
		return headerClaim(r, headers[0])
	case presigned:
		return queryClaim(params)
	case slices.ContainsFunc(params, func(p param) bool { return p.name == "Signature" || p.name == "SignatureVersion" }):
		return claim{}, unsupported("Signature Version 2")
	}
	return claim{}, wire.Errorf("MissingAuthenticationToken", "The request has no signature of Version 4; sign it so, with an access key (Version 2 isn't served)")
}

func headerClaim(r *http.Request, header string) (claim, error) {
	kind, rest, _ := strings.Cut(header, " ")
	switch {
	case kind == "AWS":
		return claim{}, unsupported("Signature Version 2")
	case kind != algorithm:
		return claim{}, unsupported(wire.Shorten(kind))
	}
	parts, err := headerParts(rest)
	if err != nil {
		return claim{}, err
	}
	c := claim{signature: parts["Signature"], token: r.Header.Get("X-Amz-Security-Token")}
	if err := c.read(parts["Credential"], parts["SignedHeaders"]); err != nil {
		return claim{}, err
	}
	return c, c.readDate(r.Header)
}

// headerParts reads Credential=…, SignedHeaders=…, Signature=… in any order.
func headerParts(s string) (map[string]string, error) {
	parts := map[string]string{"Credential": "", "SignedHeaders": "", "Signature": ""}
	for piece := range strings.SplitSeq(s, ",") {
		name, value, _ := strings.Cut(strings.Trim(piece, " "), "=")
		if before, known := parts[name]; !known || before != "" || value == "" {
			return nil, incomplete("The Authorization header has %q where it should have one each of Credential, SignedHeaders and Signature", wire.Shorten(piece))
		}
		parts[name] = value
	}
	for name, value := range parts {
		if value == "" {
			return nil, incomplete("The Authorization header lacks its %s", name)
		}
	}
	return parts, nil
}

// readDate takes the time of signing from X-Amz-Date or, as old clients do, Date.
func (c *claim) readDate(h http.Header) error {
	if date := h.Get("X-Amz-Date"); date != "" {
		return c.readTime("X-Amz-Date", date)
	}
	date := h.Get("Date")
	if t, err := http.ParseTime(date); err == nil {
		c.signedAt = t.UTC()
		return c.checkDate()
	}
	return c.readTime("Date", date)
}

func queryClaim(params []param) (claim, error) {
	get := map[string]string{}
	for _, p := range params {
		if _, twice := get[p.name]; twice && strings.HasPrefix(p.name, "X-Amz-") {
			return claim{}, incomplete("The query has %s more than once", wire.Shorten(p.name))
		}
		get[p.name] = p.value
	}
	if kind := get["X-Amz-Algorithm"]; kind != algorithm {
		return claim{}, unsupported(wire.Shorten("X-Amz-Algorithm=" + kind))
	}
	seconds, err := strconv.ParseUint(get["X-Amz-Expires"], 10, 32)
	lifetime := time.Duration(seconds) * time.Second
	if err != nil || lifetime < time.Second || lifetime > MaxLifetime {
		return claim{}, incomplete("The query's X-Amz-Expires is %q; it must be a number of seconds from 1 to %d", wire.Shorten(get["X-Amz-Expires"]), MaxLifetime/time.Second)
	}
	c := claim{presigned: true, lifetime: lifetime, signature: get["X-Amz-Signature"], token: get["X-Amz-Security-Token"]}
	if err := c.read(get["X-Amz-Credential"], get["X-Amz-SignedHeaders"]); err != nil {
		return claim{}, err
	}
	return c, c.readTime("X-Amz-Date", get["X-Amz-Date"])
}

// read takes apart what both forms have, and checks the signature's shape.
func (c *claim) read(credential, signedHeaders string) error {
	if len(c.signature) != 64 || strings.Trim(c.signature, "0123456789abcdef") != "" {
		return incomplete("The signature %q isn't 64 hexadecimal digits in lower case", wire.Shorten(c.signature))
	}
	parts := strings.Split(credential, "/")
	if len(parts) != 5 || slices.ContainsFunc(parts, func(s string) bool { return !word(s) }) || parts[4] != terminator {
		return incomplete("The credential %q isn't ACCESSKEY/DATE/REGION/SERVICE/%s", wire.Shorten(credential), terminator)
	}
	c.accessKey, c.scope = parts[0], scope{parts[1], parts[2], parts[3]}
	c.signedHeaders = strings.Split(signedHeaders, ";")
	// Ascending also means that none comes twice, so a long header can't be
	// written down more often than the client sent it.
	for i, name := range c.signedHeaders {
		if name == "" || name != strings.ToLower(name) || i > 0 && c.signedHeaders[i-1] >= name {
			return incomplete("The signed headers must be in lower case, sorted, and each once; %q isn't", wire.Shorten(signedHeaders))
		}
	}
	return nil
}

// word tells the parts of a credential from what would change its reading.
func word(s string) bool {
	return s != "" && len(s) <= 128 && !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' })
}

func (c *claim) readTime(name, value string) error {
	t, err := time.Parse(timeFormat, value)
	if err != nil {
		return incomplete("The request's %s is %q; it must be a time like %s", name, wire.Shorten(value), timeFormat)
	}
	c.signedAt = t
	return c.checkDate()
}

func (c *claim) checkDate() error {
	if day := c.signedAt.Format(dateFormat); c.scope.date != day {
		return incomplete("The credential is for the day %s, and the request was signed on %s", wire.Shorten(c.scope.date), day)
	}
	return nil
}

func incomplete(format string, args ...any) error {
	return wire.Errorf("IncompleteSignature", format, args...)
}

func unsupported(what string) error {
	return incomplete("The request is signed by %s, which isn't served; use Signature Version 4 (%s)", what, algorithm)
}
