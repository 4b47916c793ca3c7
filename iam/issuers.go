package iam

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/golang-jwt/jwt/v5"

	"mallee/cloud"
	"mallee/policy"
	"mallee/state"
	"mallee/wire"
)

// maxKeySet bounds what an issuer tells of itself, in bytes.
const maxKeySet = 1 << 20

// claims of a token that are read.
type claims struct {
	jwt.RegisteredClaims
	Party string `json:"azp"`
}

// audience that the token is for: who asked for it, where it says so.
func (c *claims) audience() string {
	if c.Party != "" {
		return c.Party
	}
	if len(c.Audience) > 0 {
		return c.Audience[0]
	}
	return ""
}

// context of the condition keys, which begin with the issuer.
func (c *claims) context(issuer string) policy.Context {
	out := policy.Context{}
	out.Set(issuer+":aud", c.audience())
	out.Set(issuer+":sub", c.Subject)
	if c.Party != "" && len(c.Audience) > 0 {
		out.Set(issuer+":oaud", c.Audience[0])
	}
	return out
}

// identify whom a token is of: it must be signed by a provider of the account,
// for one of its clients, and be valid now.
func (c *call) identify(account cloud.AccountID, token string) (claims, string, error) {
	var out claims
	var provider *cloud.Provider
	parser := jwt.NewParser(jwt.WithTimeFunc(c.Now), jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithValidMethods([]string{"RS256", "RS384", "RS512", "ES256", "ES384", "ES512"}))
	_, err := parser.ParseWithClaims(token, &out, func(t *jwt.Token) (any, error) {
		if provider = providerOf(c.read, account, out.Issuer); provider == nil {
			return nil, errors.New("no OpenIDConnect provider found in your account for " + wire.Shorten(out.Issuer))
		}
		kid, _ := t.Header["kid"].(string)
		return c.issuerKey(c.ctx, out.Issuer, kid)
	})
	switch {
	case errors.Is(err, jwt.ErrTokenExpired):
		return out, "", wire.Errorf("ExpiredTokenException", "The parameter WebIdentityToken has expired")
	case errors.Is(err, errIssuer):
		return out, "", wire.Errorf("IDPCommunicationError", "%s", strings.TrimPrefix(err.Error(), "token is unverifiable: error while executing keyfunc: "))
	case err != nil:
		return out, "", wire.Errorf("InvalidIdentityToken", "The parameter WebIdentityToken is not valid: %v", err)
	case !slices.Contains(provider.Clients, out.audience()):
		return out, "", wire.Errorf("InvalidIdentityToken", "Incorrect token audience %s: it is not a client of the provider %s", wire.Shorten(out.audience()), provider.URL)
	}
	return out, provider.ARN, nil
}

func providerOf(r state.Reader, account cloud.AccountID, issuer string) *cloud.Provider {
	for p := range state.ProvidersByAccount.By(r, account) {
		if "https://"+p.URL == issuer {
			return p
		}
	}
	return nil
}

// errIssuer tells that an issuer's keys can't be had.
var errIssuer = errors.New("the identity provider can't be asked")

// issuerKey asks the issuer for the key of that id.
func (s *IAM) issuerKey(ctx context.Context, issuer, kid string) (any, error) {
	var about struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	if err := s.ask(ctx, strings.TrimSuffix(issuer, "/")+"/.well-known/openid-configuration", &about); err != nil {
		return nil, err
	}
	if about.Issuer != issuer {
		return nil, fmt.Errorf("%w: it calls itself %q", errIssuer, wire.Shorten(about.Issuer))
	}
	var set struct {
		Keys []webKey `json:"keys"`
	}
	if err := s.ask(ctx, about.Keys, &set); err != nil {
		return nil, err
	}
	for _, k := range set.Keys {
		if k.ID == kid && (k.Use == "" || k.Use == "sig") {
			return k.public()
		}
	}
	return nil, fmt.Errorf("the issuer has no key %q", wire.Shorten(kid))
}

// ask an issuer for a small document.
func (s *IAM) ask(ctx context.Context, from string, into any) error {
	if u, err := url.Parse(from); err != nil || u.Scheme != "https" {
		return fmt.Errorf("%w: %q is not an address of https", errIssuer, wire.Shorten(from))
	}
	if s.Issuers == nil {
		return fmt.Errorf("%w: this cloud asks none", errIssuer)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return fmt.Errorf("%w: %w", errIssuer, err)
	}
	reply, err := s.Issuers.Do(request)
	if err != nil {
		return fmt.Errorf("%w: %w", errIssuer, err)
	}
	defer reply.Body.Close()
	if reply.StatusCode != http.StatusOK {
		return fmt.Errorf("%w: %s answers %s", errIssuer, wire.Shorten(from), reply.Status)
	}
	if err := json.NewDecoder(io.LimitReader(reply.Body, maxKeySet)).Decode(into); err != nil {
		return fmt.Errorf("%w: %w", errIssuer, err)
	}
	return nil
}

// webKey is a public key as RFC 7517 writes it.
type webKey struct {
	ID    string `json:"kid"`
	Kind  string `json:"kty"`
	Use   string `json:"use"`
	Curve string `json:"crv"`
	N     string `json:"n"`
	E     string `json:"e"`
	X     string `json:"x"`
	Y     string `json:"y"`
}

var curves = map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}

func (k *webKey) public() (any, error) {
	switch k.Kind {
	case "RSA":
		n, e := integer(k.N), integer(k.E)
		if n == nil || e == nil || !e.IsInt64() || e.Int64() > 1<<31-1 || n.BitLen() < 2048 {
			return nil, fmt.Errorf("the issuer's RSA key %q can't be used", wire.Shorten(k.ID))
		}
		return &rsa.PublicKey{N: n, E: int(e.Int64())}, nil
	case "EC":
		curve := curves[k.Curve]
		x, errX := base64.RawURLEncoding.DecodeString(k.X)
		y, errY := base64.RawURLEncoding.DecodeString(k.Y)
		if curve == nil || errX != nil || errY != nil {
			return nil, fmt.Errorf("the issuer's key %q can't be used", wire.Shorten(k.ID))
		}
		return ecdsa.ParseUncompressedPublicKey(curve, slices.Concat([]byte{4}, x, y))
	}
	return nil, fmt.Errorf("the issuer's key %q is of the kind %q, and RSA and EC are known", wire.Shorten(k.ID), wire.Shorten(k.Kind))
}

func integer(text string) *big.Int {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(raw) == 0 {
		return nil
	}
	return new(big.Int).SetBytes(raw)
}
