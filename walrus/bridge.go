package walrus

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/valyala/fasthttp"
)

// bridge lets a net/http handler answer a request that the library's server
// read. Answers are collected in memory: it carries small ones, those of the
// front's other services on a connection that began with S3.
type bridge struct {
	ctx    *fasthttp.RequestCtx
	header http.Header
	status int
}

func newBridge(ctx *fasthttp.RequestCtx) *bridge {
	return &bridge{ctx: ctx, header: http.Header{}}
}

// request makes the net/http form of the request. The body isn't read.
func (b *bridge) request(back *handback) (*http.Request, error) {
	in := &b.ctx.Request
	uri := string(in.RequestURI())
	parsed, err := url.ParseRequestURI(uri)
	if err != nil {
		return nil, fmt.Errorf("parse request URI: %w", err)
	}
	body := in.BodyStream()
	if body == nil {
		body = bytes.NewReader(in.Body())
	}
	r := &http.Request{
		Method: string(in.Header.Method()), URL: parsed, RequestURI: uri,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, Host: string(in.Header.Host()),
		ContentLength: max(int64(in.Header.ContentLength()), -1),
		Body:          io.NopCloser(body), RemoteAddr: b.ctx.RemoteAddr().String(),
	}
	for name, value := range in.Header.All() {
		if key := http.CanonicalHeaderKey(string(name)); key != "Host" {
			r.Header.Add(key, string(value))
		}
	}
	return r.WithContext(context.WithValue(context.Background(), handbackKey{}, back)), nil
}

// Header returns the answer's header, which finish sends.
func (b *bridge) Header() http.Header { return b.header }

// WriteHeader sets the answer's status once.
func (b *bridge) WriteHeader(status int) {
	if b.status == 0 {
		b.status = status
	}
}

// Write adds to the answer's body.
func (b *bridge) Write(p []byte) (int, error) {
	b.WriteHeader(http.StatusOK)
	b.ctx.Response.AppendBody(p)
	return len(p), nil
}

func (b *bridge) finish() {
	b.WriteHeader(http.StatusOK)
	b.ctx.SetStatusCode(b.status)
	for name, values := range b.header {
		for i, value := range values {
			if i == 0 {
				b.ctx.Response.Header.Set(name, value)
				continue
			}
			b.ctx.Response.Header.Add(name, value)
		}
	}
}
