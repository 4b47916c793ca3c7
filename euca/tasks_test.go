package euca

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"
)

func TestUploadPolicy(t *testing.T) {
	policy := newPolicy("mine", `we"b`, time.Date(2026, 11, 22, 3, 4, 5, 6, time.FixedZone("", 3600)))
	text, err := base64.StdEncoding.DecodeString(policy)
	want := `{"conditions":[{"acl":"ec2-bundle-read"},{"bucket":"mine"},["starts-with","$key","we\"b"]],"expiration":"2026-11-22T02:04:05Z"}`
	if string(text) != want || err != nil {
		t.Errorf("%s, %v", text, err)
	}
}

// What is made of a bundle's place is signed with the key that is configured.
func TestBundleInstanceMakesAPolicy(t *testing.T) {
	p := newPlayer(t)
	p.use()
	if _, _, err := typed(t, "euca-bundle-instance i-01234567 -b mine -p web"); err != nil {
		t.Fatal(err)
	}
	params := map[string]string{}
	for _, word := range strings.Fields(p.asked[0])[1:] {
		name, value, _ := strings.Cut(word, "=")
		params[name] = value
	}
	policy := params["Storage.S3.UploadPolicy"]
	if params["Storage.S3.UploadPolicySignature"] != signPolicy(policy, "secret") || params["Storage.S3.AWSAccessKeyId"] != "AKIX" {
		t.Errorf("it asked %s", p.asked[0])
	}
}

// openssl dgst -sha1 -hmac topsecret -binary makes the same of it.
func TestSignPolicy(t *testing.T) {
	if got, want := signPolicy("cG9saWN5", "topsecret"), "CBkFfbrULOQ72UimYcKtmAnFiQc="; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
