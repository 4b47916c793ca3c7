// Package metadata is 169.254.169.254 as a guest sees it: what an instance can
// learn about itself, without credentials, because its network says who asks.
//
//	PUT /latest/api/token                    a token (IMDSv2)
//	GET /VERSION/meta-data/…                 the tree of tree.go
//	GET /VERSION/user-data                   as it was given to RunInstances
//	GET /VERSION/dynamic/instance-identity/… who the instance is, and the cloud's signature
//
// A path that names a folder lists it, one name a line, folders with a slash
// at their end; every name that is listed answers, which crawlers such as
// cloud-init rely on.
//
// A token is stateless: when it expires, and a MAC over that and the instance.
// So it is good on one instance only, and survives a restart of this program.
// An instance may ask without one unless its TokensRequired is set. Replies that
// carry one go no further than the instance's HopLimit, so that what the guest
// routes for (a container, say) gets none where that isn't wished.
//
// What can go wrong: nothing here writes, and an unknown path is 404. Whoever
// is no port of the switch is nobody, and finds nothing.
//
// Sources: AWS, "Instance metadata and user data"; Eucalyptus 4.4.
package metadata

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"mallee/cloud"
	"mallee/network"
)

// Instance is what there is to tell.
type Instance struct {
	cloud.Instance
	Region  string
	Subnet  netip.Prefix // that the instance's private address is of
	Volumes []string     // devices of its volumes but for the root, sorted
}

// Options of the service. All are required.
type Options struct {
	// Lookup finds the instance of a port (network.Port.ID).
	Lookup func(ctx context.Context, port string) (Instance, bool)
	Now    func() time.Time
	Secret []byte // 32 bytes that tokens are made with
	Signer Signer
	Log    *slog.Logger
}

// versions are AWS's, oldest first, and latest.
var versions = []string{
	"1.0", "2007-01-19", "2007-03-01", "2007-08-29", "2007-10-10", "2007-12-15", "2008-02-01", "2008-09-01", "2009-04-04",
	"2011-01-01", "2011-05-01", "2012-01-12", "2014-02-25", "2014-11-05", "2015-10-20", "2016-04-19", "2016-06-30",
	"2016-09-02", "2018-03-28", "2018-08-17", "2018-09-24", "2019-10-01", "2020-10-27", "2021-01-03", "2021-03-23", "latest",
}

// Handler answers guests.
func Handler(o Options) http.Handler { return &service{o} }

type service struct{ Options }

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Server", "EC2ws")
	port, known := network.Caller(r.Context())
	if !known {
		notFound(w)
		return
	}
	network.LimitHops(r.Context(), network.DefaultHops)
	i, known := s.Lookup(r.Context(), port)
	switch {
	case !known:
		notFound(w)
	case i.MetadataOff:
		refuse(w, http.StatusForbidden)
	case strings.Trim(r.URL.Path, "/") == tokenPath:
		s.giveToken(w, r, i)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		refuse(w, http.StatusMethodNotAllowed)
	case !s.admitted(r, i):
		refuse(w, http.StatusUnauthorized)
	default:
		s.answer(w, i, r.URL.Path)
	}
}

// answer with the leaf or the listing at path.
func (s *service) answer(w http.ResponseWriter, i Instance, path string) {
	parts := strings.FieldsFunc(path, func(c rune) bool { return c == '/' })
	if len(parts) == 0 {
		text(w, strings.Join(versions, "\n"))
		return
	}
	if !slices.Contains(versions, parts[0]) {
		notFound(w)
		return
	}
	switch v := s.root(i).find(parts[1:]).(type) {
	case []byte:
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Write(v)
	case string:
		text(w, v)
	case lazy:
		s.make(w, i, v)
	case folder:
		list := strings.Join(v.list(), "\n")
		if len(parts) == 1 { // a version's folders are listed without slashes
			list = strings.ReplaceAll(list, "/", "")
		}
		text(w, list)
	default:
		notFound(w)
	}
}

// make a leaf, and answer with it.
func (s *service) make(w http.ResponseWriter, i Instance, leaf lazy) {
	made, err := leaf()
	if err != nil {
		s.Log.Error("a guest's question can't be answered", "instance", i.ID, "err", err)
		refuse(w, http.StatusInternalServerError)
		return
	}
	text(w, made)
}

func text(w http.ResponseWriter, s string) {
	w.Header().Set("Content-Type", "text/plain")
	io.WriteString(w, s)
}

func notFound(w http.ResponseWriter) { refuse(w, http.StatusNotFound) }

// refuse in EC2's form, a page of XHTML that no program reads.
func refuse(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "text/html")
	w.WriteHeader(status)
	title := http.StatusText(status)
	io.WriteString(w, `<?xml version="1.0" encoding="iso-8859-1"?><html xmlns="http://www.w3.org/1999/xhtml" xml:lang="en" lang="en"><head><title>`+
		title+`</title></head><body><h1>`+title+`</h1></body></html>`)
}
