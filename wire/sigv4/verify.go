package sigv4

import (
	"crypto/subtle"
	"net/http"
	"slices"
	"strings"
	"time"

	"mallee/wire"
)

const (
	// MaxSkew is how far the time of signing may be from ours, either way, and so
	// how long a signature in a header lives.
	MaxSkew = 15 * time.Minute
	// MaxLifetime is the longest X-Amz-Expires of a presigned request.
	MaxLifetime = 7 * 24 * time.Hour
)

// Lookup finds the secret of an access key. The token is the X-Amz-Security-Token, empty
// where the request has none: a session's access key is known only together with its
// own token, and a lasting one only without. It must not block: every request, signed
// rightly or not, comes here.
type Lookup func(accessKey, token string) (secret string, ok bool)

// Options say what a front takes.
type Options struct {
	// Services that the scope may name, such as ec2.
	Services []string
	// UnsignedPayload lets a request leave its body out of the signature, as S3 does.
	UnsignedPayload bool
}

// Identity is who signed a request, proven.
type Identity struct {
	AccessKey string
	Token     string // of the session, empty with a lasting access key
	Region    string // of the scope; any is taken
	Service   string
	SignedAt  time.Time
	Expires   time.Time // when the signature is void
	Presigned bool
}

// Verify tells who signed the request. body is the whole of it, as read by
// wire.ReadBody. Errors are *wire.Error, as the package's comment lists them; a failure
// tells nothing about the secret.
func Verify(r *http.Request, body []byte, lookup Lookup, now time.Time, opts Options) (Identity, error) {
	params, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		return Identity{}, err
	}
	c, err := claimOf(r, params)
	if err != nil {
		return Identity{}, err
	}
	if err := c.check(r, now, opts); err != nil {
		return Identity{}, err
	}
	bodyHash, err := c.bodyHash(r, body, opts)
	if err != nil {
		return Identity{}, err
	}
	headers, err := canonicalHeaders(r, c.signedHeaders)
	if err != nil {
		return Identity{}, err
	}
	query := canonicalQuery(params)
	var requests []string
	for _, path := range canonicalPaths(r.URL, c.scope.service) {
		requests = append(requests, canonicalRequest(r.Method, path, query, headers, c.signedHeaders, bodyHash))
	}
	if err := c.prove(requests, lookup); err != nil {
		return Identity{}, err
	}
	return c.identity(), nil
}

// check holds the claim against the clock, the front and the request's headers.
func (c *claim) check(r *http.Request, now time.Time, opts Options) error {
	if !slices.Contains(opts.Services, c.scope.service) {
		return wire.Errorf("SignatureDoesNotMatch", "The request is signed for the service %s; expecting %s", wire.Shorten(c.scope.service), strings.Join(opts.Services, " or "))
	}
	if now.After(c.expires()) || now.Before(c.signedAt.Add(-MaxSkew)) {
		return wire.Errorf("RequestExpired", "Request has expired. It was signed at %s and ends at %s; the cloud's clock says %s",
			c.signedAt.Format(time.RFC3339), c.expires().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	if !slices.Contains(c.signedHeaders, "host") {
		return incomplete("The signature must cover the header host")
	}
	for name := range r.Header {
		if lower := strings.ToLower(name); strings.HasPrefix(lower, "x-amz-") && !slices.Contains(c.signedHeaders, lower) {
			return incomplete("The signature must cover the header %s, which the request has", wire.Shorten(lower))
		}
	}
	return nil
}

func (c *claim) expires() time.Time {
	if c.presigned {
		return c.signedAt.Add(c.lifetime)
	}
	return c.signedAt.Add(MaxSkew)
}

// bodyHash is the hash that the signature must cover: the body's own. Where the client
// states one, it must be that, which gives a better error than a signature that
// doesn't match.
func (c *claim) bodyHash(r *http.Request, body []byte, opts Options) (string, error) {
	stated := r.Header.Values("X-Amz-Content-Sha256")
	switch {
	case len(stated) == 0 && c.presigned && opts.UnsignedPayload:
		return unsignedPayload, nil
	case len(stated) == 1 && stated[0] == unsignedPayload && opts.UnsignedPayload:
		return unsignedPayload, nil
	}
	actual := hash(body)
	if len(stated) > 1 || len(stated) == 1 && stated[0] != actual {
		return "", wire.Errorf("SignatureDoesNotMatch", "The header x-amz-content-sha256 is %s, and the body that came has the SHA-256 %s",
			wire.Shorten(strings.Join(stated, ",")), actual)
	}
	return actual, nil
}

// nobody stands in for the secret of an unknown access key, so that the work, and the
// time it takes, is the same.
const nobody = "the secret of an access key that does not exist"

// prove succeeds when one of the canonical requests has the claimed signature.
func (c *claim) prove(requests []string, lookup Lookup) error {
	secret, known := lookup(c.accessKey, c.token)
	if !known || secret == "" {
		secret, known = nobody, false
	}
	key, matches := signingKey(secret, c.scope), 0
	for _, request := range requests {
		ours := sign(key, c.signedAt, c.scope, request)
		matches |= subtle.ConstantTimeCompare([]byte(ours), []byte(c.signature))
	}
	if known && matches == 1 {
		return nil
	}
	return c.refusal(known)
}

// refusal uses the service's own codes.
func (c *claim) refusal(known bool) error {
	switch {
	case c.scope.service == "ec2":
		return wire.Errorf("AuthFailure", "The cloud was not able to validate the provided access credentials: the access key %s isn't known or active here, or the request wasn't signed with its secret", c.accessKey)
	case known:
		return wire.Errorf("SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided; check the secret of the access key %s and the signing method", c.accessKey)
	}
	return wire.Errorf("InvalidClientTokenId", "The access key %s, or the session token that came with it, isn't known or active here", c.accessKey)
}

func (c *claim) identity() Identity {
	return Identity{
		AccessKey: c.accessKey,
		Token:     c.token,
		Region:    c.scope.region,
		Service:   c.scope.service,
		SignedAt:  c.signedAt,
		Expires:   c.expires(),
		Presigned: c.presigned,
	}
}
