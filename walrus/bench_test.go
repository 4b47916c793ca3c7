package walrus

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"golang.org/x/sys/unix"
)

// BenchmarkFront compares the ways from the one port to the library: the
// connection handed over, a reverse proxy to a port inside, and a port of
// Walrus's own; and, as the limit, a bare server that writes a file and forces
// it to the disk. Eight clients at once, each with URLs signed beforehand.
func BenchmarkFront(b *testing.B) {
	w, err := Open(Options{Dir: b.TempDir(), Identity: testKeys()})
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	own := listen(b, w.Serve)
	inside, err := url.Parse(own)
	if err != nil {
		b.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Transport:  &http.Transport{MaxIdleConnsPerHost: 64},
		BufferPool: buffers{},
		Rewrite:    func(r *httputil.ProxyRequest) { r.SetURL(inside); r.Out.Host = r.In.Host },
	}
	ways := map[string]string{
		"handover": serveHTTP(b, w.Handler()),
		"proxy":    serveHTTP(b, proxy),
		"own-port": own,
		"stub":     serveHTTP(b, stub(b.TempDir())),
	}
	bucket := "bench"
	if _, err := clientAt(own, "AKIANNA", "anna-secret").CreateBucket(b.Context(), &s3.CreateBucketInput{Bucket: &bucket}); err != nil {
		b.Fatal(err)
	}
	for _, size := range []int{4 << 10, 1 << 20} {
		for _, way := range []string{"stub", "own-port", "handover", "proxy"} {
			for _, method := range []string{"PUT", "GET"} {
				b.Run(fmt.Sprintf("%s/%dKiB/%s", method, size>>10, way), func(b *testing.B) {
					load(b, ways[way], method, size)
				})
			}
		}
	}
}

// stub answers PUT by a file forced to the disk and GET by the file.
func stub(dir string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := filepath.Join(dir, filepath.Base(r.URL.Path))
		if r.Method == http.MethodGet {
			http.ServeFile(w, r, name)
			return
		}
		f, err := os.Create(name)
		if err == nil {
			_, err = io.Copy(f, r.Body)
		}
		if err == nil {
			err = f.Sync()
		}
		if err != nil {
			http.Error(w, err.Error(), 500)
		}
		f.Close()
	})
}

// load sends b.N requests from eight clients, each to a key of its own.
func load(b *testing.B, base, method string, size int) {
	const clients = 8
	body := make([]byte, size)
	rand.Read(body)
	signer := s3.NewPresignClient(clientAt(base, "AKIANNA", "anna-secret"))
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}, Timeout: time.Minute}
	defer client.CloseIdleConnections()
	var urls [clients][2]string
	for i := range urls {
		key := aws.String(fmt.Sprintf("%d-%d", size, i))
		put, err := signer.PresignPutObject(b.Context(), &s3.PutObjectInput{Bucket: aws.String("bench"), Key: key})
		if err != nil {
			b.Fatal(err)
		}
		get, err := signer.PresignGetObject(b.Context(), &s3.GetObjectInput{Bucket: aws.String("bench"), Key: key})
		if err != nil {
			b.Fatal(err)
		}
		urls[i] = [2]string{put.URL, get.URL}
		if err := once(client, "PUT", put.URL, body); err != nil {
			b.Fatal(err)
		}
	}
	var left atomic.Int64
	left.Store(int64(b.N))
	b.SetBytes(int64(size))
	before := processorTime(b)
	defer func() {
		b.ReportMetric(float64(processorTime(b)-before)/float64(b.N)/1e3, "cpu-us/op")
	}()
	b.ResetTimer()
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				address := urls[i][0]
				if method == "GET" {
					address = urls[i][1]
				}
				if err := once(client, method, address, body); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// processorTime is what client and server together have used: on a busy machine
// it says more than the clock.
func processorTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func once(client *http.Client, method, address string, body []byte) error {
	var in io.Reader
	if method == "PUT" {
		in = bytes.NewReader(body)
	}
	r, err := http.NewRequest(method, address, in)
	if err != nil {
		return err
	}
	out, err := client.Do(r)
	if err != nil {
		return err
	}
	defer out.Body.Close()
	n, err := io.Copy(io.Discard, out.Body)
	if out.StatusCode != 200 || method == "GET" && n != int64(len(body)) {
		return fmt.Errorf("%s: %s, %d bytes, %v", method, out.Status, n, err)
	}
	return err
}

// listen serves on a new port until the benchmark ends.
func listen(b *testing.B, serve func(net.Listener) error) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go func() { _ = serve(ln) }()
	return "http://" + ln.Addr().String()
}

func serveHTTP(b *testing.B, h http.Handler) string {
	server := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	b.Cleanup(func() { server.Close() })
	return listen(b, server.Serve)
}

// buffers lends the proxy its copying buffers, as a proxy in earnest would.
type buffers struct{}

var pool = sync.Pool{New: func() any { return new([32 << 10]byte) }}

func (buffers) Get() []byte  { return pool.Get().(*[32 << 10]byte)[:] }
func (buffers) Put(p []byte) { pool.Put((*[32 << 10]byte)(p)) }
