package euca

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"mallee/wire/sigv4"
)

// shelf is an object store that lists two keys a page.
type shelf struct {
	t       *testing.T
	objects map[string]string // by bucket/key
}

func (s shelf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	lookup := func(key, _ string) (string, bool) { return "secret", key == "AKIX" }
	if _, err := sigv4.Verify(r, body, lookup, time.Now(), sigv4.Options{Services: []string{"s3"}}); err != nil {
		s.t.Errorf("%s %s: %v", r.Method, r.URL, err)
	}
	path := strings.TrimPrefix(r.URL.Path, "/s3/")
	text, found := s.objects[path]
	switch {
	case r.URL.Query().Get("list-type") == "2":
		s.list(w, path, r.URL.Query())
	case r.Method == http.MethodPut:
		s.objects[path] = string(body)
	case r.Method == http.MethodDelete:
		delete(s.objects, path)
	case !found:
		w.WriteHeader(http.StatusNotFound)
		if r.Method != http.MethodHead {
			io.WriteString(w, "<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message></Error>")
		}
	default:
		w.Header().Set("ETag", `"tag"`)
		w.Header().Set("Content-Length", fmt.Sprint(len(text)))
		if r.Method == http.MethodGet {
			io.WriteString(w, text)
		}
	}
}

func (s shelf) list(w http.ResponseWriter, bucket string, q url.Values) {
	var keys []string
	for path := range s.objects {
		key, in := strings.CutPrefix(path, bucket+"/")
		if in && strings.HasPrefix(key, q.Get("prefix")) && key > q.Get("start-after") {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	fmt.Fprintf(w, "<ListBucketResult><IsTruncated>%v</IsTruncated>", len(keys) > 2)
	for _, key := range keys[:min(2, len(keys))] {
		fmt.Fprintf(w, `<Contents><Key>%s</Key><Size>%d</Size><ETag>"tag"</ETag></Contents>`, key, len(s.objects[bucket+"/"+key]))
	}
	io.WriteString(w, "</ListBucketResult>")
}

func TestObjects(t *testing.T) {
	server := httptest.NewServer(shelf{t, map[string]string{}})
	defer server.Close()
	access := Access{S3: server.URL + "/s3", Region: "r", Credentials: sigv4.Credentials{AccessKey: "AKIX", Secret: "secret"}}
	c, ctx := access.Client(), t.Context()
	keys := []string{"p/a", "p/b c+d", "p/é?#%", "p/x.part.00", "q/z"}
	for _, key := range keys {
		if err := c.PutObject(ctx, "mine", key, "", []byte("of "+key)); err != nil {
			t.Error(err)
		}
	}
	var listed []string
	for o, err := range c.Objects(ctx, "mine", "p/") {
		if err != nil || o.ETag != "tag" || o.Size != int64(len("of "+o.Key)) {
			t.Errorf("%+v, %v", o, err)
		}
		listed = append(listed, o.Key)
	}
	slices.Sort(listed)
	if !slices.Equal(listed, []string{"p/a", "p/b c+d", "p/x.part.00", "p/é?#%"}) {
		t.Errorf("listed: %q", listed)
	}
	for _, key := range keys {
		body, size, err := c.GetObject(ctx, "mine", key)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(body)
		body.Close()
		if string(text) != "of "+key || size != int64(len(text)) || err != nil {
			t.Errorf("%s holds %q, of %d bytes, %v", key, text, size, err)
		}
		if info, ok, err := c.HeadObject(ctx, "mine", key); !ok || info.Size != size || info.ETag != "tag" || err != nil {
			t.Errorf("%s: %+v, %v, %v", key, info, ok, err)
		}
		if err := c.DeleteObject(ctx, "mine", key); err != nil {
			t.Error(err)
		}
		if _, ok, err := c.HeadObject(ctx, "mine", key); ok || err != nil {
			t.Errorf("%s is still there: %v", key, err)
		}
	}
	_, _, err := c.GetObject(ctx, "mine", "p/a")
	var refused *ServiceError
	if !errors.As(err, &refused) || refused.Code != "NoSuchKey" || !strings.Contains(err.Error(), "mine/p/a") {
		t.Errorf("one that is gone: %v", err)
	}
}
