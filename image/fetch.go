package image

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// FetchOptions are what a download may cost and reach.
type FetchOptions struct {
	Limit    int64    // bytes of the file at most
	Digest   string   // sha256:HEX or sha512:HEX that the file must have; "" takes any
	Reach    Reach    // which addresses may be connected to; nil is PublicOnly
	Proxy    bool     // the environment's proxy is used, which then decides what is reached
	Progress Progress // nil is Quiet

	Transport *http.Transport // certificates and the like; nil is the default one. Its proxy and dialer are replaced
}

// Reach returns why an address mustn't be connected to. It is asked with what a name was resolved to, for
// each connection, redirected ones too.
type Reach func(netip.AddrPort) error

// Anywhere lets every address be reached: for somebody who downloads with their own rights.
func Anywhere(netip.AddrPort) error { return nil }

// notPublic are what the standard library counts as global and isn't: shared and reserved addresses, and those with
// an IPv4 address inside, of whatever kind (NAT64, 6to4, Teredo).
var notPublic = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("64:ff9b::/96"),
	netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("2001::/32"), netip.MustParsePrefix("fec0::/10"),
}

// PublicOnly keeps a server that downloads for its users from reaching into its own machine and network: loopback, link-local
// (where metadata services are), private, shared, multicast and reserved addresses.
func PublicOnly(at netip.AddrPort) error {
	a := at.Addr().Unmap()
	private := !a.IsGlobalUnicast() || a.IsPrivate()
	for _, p := range notPublic {
		private = private || p.Contains(a)
	}
	if private {
		return refuse("the address %s is not a public one, and isn't downloaded from", at)
	}
	return nil
}

const (
	maxRedirects  = 10
	fetchAttempts = 5                // in a row without a byte
	fetchStall    = 60 * time.Second // without a byte, after which an attempt has failed
	partSuffix    = ".part"          // of what is there so far
	stateSuffix   = ".part.json"     // of what is known of it
)

// fetchState is kept beside a part, so that another call can go on with it.
type fetchState struct {
	URL       string `json:"url"`       // without what its query may give away
	Validator string `json:"validator"` // the server's strong ETag or Last-Modified
}

// A retrieval is one download.
type retrieval struct {
	url    string
	file   string
	opts   FetchOptions
	want   string // digest, in hex
	hash   func() hash.Hash
	state  fetchState
	client *http.Client
	pause  time.Duration // before the second attempt; then twice that, and so on
}

// Fetch downloads a file by HTTP or HTTPS. It goes on where an interrupted call for the same address stopped, if the server still has the same
// file: FILE.part is what is there, which stays after errors that another attempt may mend, and not after others. What FILE
// had before is replaced when all of the new one is there, and right. It returns the file's size in bytes. A *BadImageError
// says that what the address gives isn't wanted.
func Fetch(ctx context.Context, address, file string, opts FetchOptions) (int64, error) {
	f, err := newRetrieval(address, file, opts)
	if err != nil {
		return 0, err
	}
	defer f.client.CloseIdleConnections()
	size, err := f.all(ctx)
	if err != nil {
		return 0, fmt.Errorf("downloading %s: %w", f.state.URL, err)
	}
	return size, nil
}

func newRetrieval(address, file string, opts FetchOptions) (*retrieval, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, refuse("%q is no http or https address", redacted(address))
	}
	if opts.Limit <= 0 {
		return nil, fmt.Errorf("a download limited to %d bytes", opts.Limit)
	}
	if opts.Progress == nil {
		opts.Progress = Quiet
	}
	f := &retrieval{url: address, file: file, opts: opts, state: fetchState{URL: redacted(address)}, pause: time.Second}
	if opts.Digest != "" {
		kind, sum, _ := strings.Cut(strings.ToLower(opts.Digest), ":")
		f.hash, f.want = map[string]func() hash.Hash{"sha256": sha256.New, "sha512": sha512.New}[kind], sum
		if raw, err := hex.DecodeString(sum); f.hash == nil || err != nil || len(raw) != f.hash().Size() {
			return nil, refuse("the digest %q is neither sha256:HEX nor sha512:HEX", opts.Digest)
		}
	}
	f.client = &http.Client{Transport: opts.transport(), CheckRedirect: redirect}
	return f, nil
}

// redacted is an address without password and query: a presigned one is a secret.
func redacted(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "an address that can't be parsed"
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}

// transport asks Reach after resolving, so that no name means one address when it is checked, and
// another when it is used.
func (o FetchOptions) transport() *http.Transport {
	t := &http.Transport{TLSHandshakeTimeout: 20 * time.Second}
	if o.Transport != nil {
		t = o.Transport.Clone()
	}
	reach := o.Reach
	if reach == nil {
		reach = PublicOnly
	}
	if t.Proxy = nil; o.Proxy {
		t.Proxy, reach = http.ProxyFromEnvironment, Anywhere
	}
	dialer := &net.Dialer{Timeout: 20 * time.Second, ControlContext: func(_ context.Context, network, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil || !strings.HasPrefix(network, "tcp") {
			return fmt.Errorf("connecting to %s by %s: %w", address, network, err)
		}
		return reach(at)
	}}
	t.DialContext, t.DialTLSContext, t.DisableCompression = dialer.DialContext, nil, true
	t.ResponseHeaderTimeout = fetchStall
	return t
}

func redirect(next *http.Request, via []*http.Request) error {
	switch {
	case len(via) > maxRedirects:
		return refuse("the address leads on and on: more than %d redirects", maxRedirects)
	case next.URL.Scheme != "https" && (next.URL.Scheme != "http" || via[0].URL.Scheme == "https"):
		return refuse("the address leads to %s, which isn't as safe", redacted(next.URL.String()))
	}
	next.Header.Del("Referer") // it would tell a presigned address to somebody else
	return nil
}

// all attempts, up to the right file under its name.
func (f *retrieval) all(ctx context.Context) (int64, error) {
	f.resume()
	for failed := 0; ; {
		before := f.have()
		complete, err := f.attempt(ctx)
		if complete {
			return f.finish(ctx)
		}
		if f.have() > before {
			failed = 0
		}
		failed++
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		if lasting(err) {
			f.forget()
			return 0, err
		}
		if failed >= fetchAttempts {
			return 0, err
		}
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-time.After(f.pause << (failed - 1)):
		}
	}
}

// lasting tells whether another attempt would end no better.
func lasting(err error) bool {
	var bad *BadImageError
	return errors.As(err, &bad)
}

// resume reads what is known of an earlier call's part, and forgets a part that isn't known to be of this address.
func (f *retrieval) resume() {
	var s fetchState
	b, err := os.ReadFile(f.file + stateSuffix)
	if err != nil || json.Unmarshal(b, &s) != nil || s.URL != f.state.URL || s.Validator == "" {
		f.forget()
		return
	}
	f.state = s
}

func (f *retrieval) forget() {
	os.Remove(f.file + partSuffix)
	os.Remove(f.file + stateSuffix)
	f.state.Validator = ""
}

// have is how many bytes are there.
func (f *retrieval) have() int64 {
	info, err := os.Stat(f.file + partSuffix)
	if err != nil {
		return 0
	}
	return info.Size()
}

// attempt asks for what is missing, and writes what comes.
func (f *retrieval) attempt(ctx context.Context) (complete bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(fetchStall, func() { cancel(fmt.Errorf("nothing came for %s", fetchStall)) })
	defer stall.Stop()
	have := f.have()
	if f.state.Validator == "" {
		have = 0
	}
	res, err := f.ask(ctx, have)
	if err != nil {
		return false, err
	}
	defer res.Body.Close()
	total, err := f.judge(res, &have)
	if err != nil || total == have && have > 0 {
		return err == nil, err
	}
	n, err := f.receive(res.Body, have, total, stall)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return err == nil && (total < 0 || have+n == total), err
}

func (f *retrieval) ask(ctx context.Context, have int64) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("User-Agent", "mallee")
	if have > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", have))
		req.Header.Set("If-Range", f.state.Validator)
	}
	res, err := f.client.Do(req)
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // whose text repeats the whole address
	}
	return res, err
}

// judge a reply: how many bytes the file has (-1 where the server doesn't say), and how many of ours count.
func (f *retrieval) judge(res *http.Response, have *int64) (total int64, err error) {
	switch {
	case res.StatusCode == http.StatusOK:
		*have, total = 0, res.ContentLength
		if err := f.remember(validator(res)); err != nil {
			return 0, err
		}
	case res.StatusCode == http.StatusPartialContent && *have > 0:
		if total, err = rangeTotal(res.Header.Get("Content-Range"), *have); err != nil {
			f.forget()
			return 0, err
		}
	case res.StatusCode == http.StatusRequestedRangeNotSatisfiable && *have > 0:
		// All of it is there, or more than there is now.
		if _, all, ok := strings.Cut(res.Header.Get("Content-Range"), "*/"); ok && all == strconv.FormatInt(*have, 10) {
			return *have, nil
		}
		f.forget()
		return 0, errors.New("the file has changed since it was downloaded in part")
	case res.StatusCode == http.StatusTooManyRequests || res.StatusCode >= 500:
		return 0, fmt.Errorf("the server answers %s", res.Status)
	default:
		absent := res.StatusCode == http.StatusNotFound || res.StatusCode == http.StatusForbidden
		return 0, &BadImageError{Reason: "the server answers " + res.Status, Absent: absent}
	}
	if total > f.opts.Limit {
		return 0, refuse("the file has %d bytes; the limit is %d", total, f.opts.Limit)
	}
	return total, nil
}

// rangeTotal wants "bytes HAVE-LAST/TOTAL".
func rangeTotal(value string, have int64) (int64, error) {
	span, all, _ := strings.Cut(strings.TrimPrefix(value, "bytes "), "/")
	from, _, _ := strings.Cut(span, "-")
	total, err := strconv.ParseInt(all, 10, 64)
	if err != nil || from != strconv.FormatInt(have, 10) || total < have {
		return 0, fmt.Errorf("the server sends the range %q, wanted from byte %d on", value, have)
	}
	return total, nil
}

// validator is what tells this file from its next edition; "" where nothing does.
func validator(res *http.Response) string {
	if tag := res.Header.Get("ETag"); tag != "" && !strings.HasPrefix(tag, "W/") {
		return tag
	}
	return res.Header.Get("Last-Modified")
}

// remember starts a new part.
func (f *retrieval) remember(validator string) error {
	f.forget()
	f.state.Validator = validator
	b, err := json.Marshal(f.state)
	if err != nil {
		return err
	}
	return os.WriteFile(f.file+stateSuffix, b, 0o600)
}

// receive appends to the part what comes.
func (f *retrieval) receive(r io.Reader, have, total int64, stall *time.Timer) (n int64, err error) {
	dst, err := os.OpenFile(f.file+partSuffix, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	buf := make([]byte, 256<<10)
	for {
		got, err := r.Read(buf)
		if have+n+int64(got) > f.opts.Limit {
			return n, refuse("the file has more than %d bytes, which is the limit", f.opts.Limit)
		}
		if _, err := dst.Write(buf[:got]); err != nil {
			return n, err
		}
		n += int64(got)
		stall.Reset(fetchStall)
		f.opts.Progress("downloading", have+n, max(total, 0))
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// finish verifies the digest, and gives the file its name.
func (f *retrieval) finish(ctx context.Context) (int64, error) {
	size := f.have()
	if f.hash != nil {
		src, err := os.Open(f.file + partSuffix)
		if err != nil {
			return 0, err
		}
		defer src.Close()
		got, err := sumOf(ctx, src, f.hash(), size, f.opts.Progress)
		if err != nil {
			return 0, err
		}
		if got != f.want {
			f.forget()
			return 0, refuse("the file has the digest %s, it should have %s: it is damaged, or another one", got, f.want)
		}
	}
	if err := os.Rename(f.file+partSuffix, f.file); err != nil {
		return 0, err
	}
	return size, os.Remove(f.file + stateSuffix)
}
