package networktest

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"mallee/network"
)

// hops: a reply that is limited comes with that time to live, the next one on the
// same connection with what it is limited to in turn.
func hops(t *testing.T, d Driver) {
	limits := map[string]int{"/one": 1, "/all": network.DefaultHops}
	n := d.open(t, World{Metadata: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		network.LimitHops(r.Context(), limits[r.URL.Path])
		fmt.Fprint(w, "here is ", r.URL.Path)
	})})
	g, _ := guest(t, n, "a", 1)
	var mu sync.Mutex
	heard := map[string]int{} // time to live, by what was said
	g.mu.Lock()
	g.tap = func(frame []byte) {
		for path := range limits {
			if bytes.Contains(frame, []byte("here is "+path)) {
				mu.Lock()
				heard[path] = int(header.IPv4(frame[header.EthernetMinimumSize:]).TTL())
				mu.Unlock()
			}
		}
	}
	g.mu.Unlock()
	client := g.HTTP()
	for _, path := range []string{"/one", "/all", "/one"} {
		r, err := client.Get("http://169.254.169.254" + path)
		if err != nil {
			t.Fatal(err)
		}
		var said strings.Builder
		r.Write(&said) // reads the body, so that the connection serves again
		r.Body.Close()
		mu.Lock()
		if heard[path] != limits[path] {
			t.Errorf("the reply %s has the time to live %d, want %d", path, heard[path], limits[path])
		}
		mu.Unlock()
	}
}
