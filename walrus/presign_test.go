package walrus

import (
	"io"
	"net/http"
	"testing"
	"time"

	"mallee/wire/sigv4"
)

// Walrus does what our own presigned addresses say, and nothing else.
func TestPresign(t *testing.T) {
	c := start(t, t.TempDir())
	c.bucket(c.anna(), "bucket")
	c.put(c.anna(), "bucket", "fo lder/k+é", "body")
	now := time.Now()
	do := func(method, credential, secret, prefix string, at time.Time) (int, string) {
		address, err := sigv4.Presign(method, c.url+prefix+"/bucket/fo%20lder/k+%C3%A9", sigv4.Credentials{AccessKey: credential, Secret: secret}, "us-east-1", "s3", at, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		r, err := http.NewRequestWithContext(t.Context(), method, address, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	for _, prefix := range []string{"", "/services/objectstorage"} {
		if status, body := do("GET", "AKIANNA", "anna-secret", prefix, now); status != 200 || body != "body" {
			t.Errorf("%q: %d %s", prefix, status, body)
		}
		if status, _ := do("HEAD", "AKIANNA", "anna-secret", prefix, now); status != 200 {
			t.Errorf("HEAD %q: %d", prefix, status)
		}
	}
	for name, c := range map[string]struct {
		key, secret string
		at          time.Time
	}{
		"a wrong secret": {"AKIANNA", "bert-secret", now},
		"too late":       {"AKIANNA", "anna-secret", now.Add(-2 * time.Hour)},
		"somebody else":  {"AKIBERT", "bert-secret", now},
	} {
		if status, body := do("GET", c.key, c.secret, "", c.at); status != 403 {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
	if status, body := do("DELETE", "AKIANNA", "anna-secret", "", now); status != 204 {
		t.Errorf("DELETE: %d %s", status, body)
	}
	if status, _ := do("GET", "AKIANNA", "anna-secret", "", now); status != 404 {
		t.Errorf("it is still there: %d", status)
	}
}
