package metadata

import (
	"encoding/base64"
	"strconv"
	"testing"
	"time"
)

const leaf = "/latest/meta-data/instance-id"

func TestTTL(t *testing.T) {
	i := hvm()
	w := newWorld(i)
	for ttl, want := range map[string]int{
		"1": 200, "60": 200, "21600": 200,
		"": 400, "0": 400, "21601": 400, "-1": 400, "+5": 400, " 5": 400, "1.5": 400, "60s": 400,
		"99999999999999999999": 400, "4294967296": 400,
	} {
		reply := w.do(i.ID, "PUT", "/latest/api/token", ttlHeader, ttl)
		if reply.Code != want || want == 200 && reply.Header().Get(ttlHeader) != ttl {
			t.Errorf("TTL %q: %d %v, want %d", ttl, reply.Code, reply.Header(), want)
		}
	}
	if got := w.do(i.ID, "PUT", "/latest/api/token").Code; got != 400 {
		t.Errorf("without a TTL: %d", got)
	}
	if got := w.do(i.ID, "PUT", "/latest/api/token", ttlHeader, "60", "X-Forwarded-For", "1.2.3.4").Code; got != 403 {
		t.Errorf("through a proxy: %d", got)
	}
}

func TestToken(t *testing.T) {
	i, other := hvm(), paravirtual()
	strict := hvm()
	strict.ID, strict.TokensRequired = "i-5ec2e700", true
	w := newWorld(i, other, strict)
	tokenOf := func(who Instance, ttl int) string {
		return w.do(who.ID, "PUT", "/latest/api/token", ttlHeader, strconv.Itoa(ttl)).Body.String()
	}
	token, strictToken := tokenOf(i, 60), tokenOf(strict, 60)
	last := []byte(token)
	raw, err := base64.URLEncoding.DecodeString(token)
	if err != nil {
		t.Fatal(err)
	}
	raw[7]++ // a second more
	later := base64.URLEncoding.EncodeToString(raw)
	last[0] ^= 'A' ^ 'B'
	for _, test := range []struct {
		what  string
		who   Instance
		token []string
		after time.Duration
		want  int
	}{
		{"none", i, nil, 0, 200},
		{"none where one is required", strict, nil, 0, 401},
		{"own", i, []string{tokenHeader, token}, 0, 200},
		{"own where one is required", strict, []string{tokenHeader, strictToken}, 0, 200},
		{"to its last second", i, []string{tokenHeader, token}, 59 * time.Second, 200},
		{"expired", i, []string{tokenHeader, token}, 60 * time.Second, 401},
		{"of another", other, []string{tokenHeader, token}, 0, 401},
		{"empty", i, []string{tokenHeader, ""}, 0, 401},
		{"no base64", i, []string{tokenHeader, "!!!"}, 0, 401},
		{"cut short", i, []string{tokenHeader, token[:40]}, 0, 401},
		{"too long", i, []string{tokenHeader, token + token}, 0, 401},
		{"changed", i, []string{tokenHeader, string(last)}, 0, 401},
		{"prolonged", i, []string{tokenHeader, later}, 0, 401},
	} {
		w.now = epoch.Add(test.after)
		if got := w.do(test.who.ID, "GET", leaf, test.token...).Code; got != test.want {
			t.Errorf("token %s: %d, want %d", test.what, got, test.want)
		}
	}
}

// FuzzToken: only what the service gave out is let in.
func FuzzToken(f *testing.F) {
	i := hvm()
	w := newWorld(i)
	good := w.do(i.ID, "PUT", "/latest/api/token", ttlHeader, "60").Body.String()
	f.Add(good)
	f.Add("")
	f.Fuzz(func(t *testing.T, token string) {
		if got := w.do(i.ID, "GET", leaf, tokenHeader, token).Code; got != 401 && token != good {
			raw, err := base64.URLEncoding.DecodeString(token)
			if err == nil && base64.URLEncoding.EncodeToString(raw) == good {
				return // line breaks that base64 ignores
			}
			t.Errorf("%q let in: %d", token, got)
		}
	})
}
