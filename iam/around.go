package iam

import (
	"net"
	"net/http"
	"net/netip"
	"time"

	"mallee/cloud"
	"mallee/policy"
)

// AroundOf tells what is known of an HTTP request. What proxies say of whom they
// ask for isn't believed.
func AroundOf(r *http.Request) *Around {
	a := &Around{Secure: r.TLS != nil, Agent: r.UserAgent()}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	if at, err := netip.ParseAddr(host); err == nil {
		a.Source = at.Unmap()
	}
	return a
}

// describe the request to policies.
func (a *Around) describe(c policy.Context) {
	if a == nil {
		return
	}
	c.Set("aws:SecureTransport", map[bool]string{true: "true", false: "false"}[a.Secure])
	if a.Source.IsValid() {
		c.Set("aws:SourceIp", a.Source.String())
	}
	if a.Agent != "" {
		c.Set("aws:UserAgent", a.Agent)
	}
}

// describeSession to policies; a lasting key has none of this.
func describeSession(s *cloud.Session, c policy.Context) {
	if s == nil {
		return
	}
	c.Set("aws:TokenIssueTime", s.IssuedAt.UTC().Format(time.RFC3339))
	c.Set("aws:MultiFactorAuthPresent", "false")
	for key, value := range s.Tags {
		c.Set("aws:PrincipalTag/"+key, value)
	}
}
