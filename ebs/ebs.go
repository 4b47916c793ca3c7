// Package ebs serves the EBS direct API: snapshots read and written block by
// block, without a volume or an instance.
//
//	GET  /snapshots/ID/blocks                  ListSnapshotBlocks
//	GET  /snapshots/ID/changedblocks           ListChangedBlocks
//	GET  /snapshots/ID/blocks/INDEX            GetSnapshotBlock
//	POST /snapshots                            StartSnapshot
//	PUT  /snapshots/ID/blocks/INDEX            PutSnapshotBlock
//	POST /snapshots/completion/ID              CompleteSnapshot
//
// A block has 524,288 bytes, and comes and goes with its SHA-256. Who lists blocks
// gets a token for each, which is good for that block of that snapshot for a
// week. Source: Amazon's documentation of the API, version 2019-11-02.
//
// # A snapshot that is written
//
//	StartSnapshot ─▶ pending ──PutSnapshotBlock──▶ pending ──CompleteSnapshot──▶ completed
//	                    └── nothing put for its timeout, or deleted ──▶ error, or gone
//
// Its record is the API's; its bytes are in the journal of a writer (package
// snapshot) of the snapshot's id, so that a restart of the program loses nothing
// that was acknowledged. The journal goes when the record says what became of it.
//
// # What can go wrong
//
// Errors are the API's own, with its reasons. A snapshot of another account that
// isn't shared doesn't exist.
package ebs

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"sync"
	"time"

	"mallee/cloud"
	"mallee/iam"
	"mallee/snapshot"
	"mallee/state"
	"mallee/wire"
)

// Service is the API's name in a signature's scope.
const Service = "ebs"

// BodyLimit is the longest body of a request, in bytes: a block, or a small
// document.
const BodyLimit = snapshot.BlockSize

// Options of the API. All are required.
type Options struct {
	Store    *state.Store
	IAM      *iam.IAM
	Contents *snapshot.Store
	Secret   []byte // that tokens are made with
	Region   string
	Now      func() time.Time
	Rand     io.Reader
	Log      *slog.Logger
}

// EBS answers requests.
type EBS struct {
	Options
	since time.Time // when this program began

	// mu guards writers: those of snapshots that are being written.
	mu      sync.Mutex
	writers map[cloud.SnapshotID]*writer
	ended   bool // no writer is opened any more; guarded by mu
}

// New returns an EBS.
func New(o Options) *EBS {
	return &EBS{Options: o, since: o.Now(), writers: map[cloud.SnapshotID]*writer{}}
}

// call is one request that was authenticated.
type call struct {
	*EBS
	w    http.ResponseWriter
	r    *http.Request
	who  iam.Principal
	body []byte

	action string // of the route
	id     string // of the snapshot, as the path has it
	rest   string // the block's index, as the path has it
}

// route is a path with the action that answers there.
type route struct {
	method, action string
	path           *regexp.Regexp
	do             func(*call) error
}

var routes = []route{
	{http.MethodGet, "ListSnapshotBlocks", regexp.MustCompile(`^/snapshots/([^/]+)/blocks/?$`), (*call).listBlocks},
	{http.MethodGet, "ListChangedBlocks", regexp.MustCompile(`^/snapshots/([^/]+)/changedblocks/?$`), (*call).listChanged},
	{http.MethodGet, "GetSnapshotBlock", regexp.MustCompile(`^/snapshots/([^/]+)/blocks/([^/]+)$`), (*call).getBlock},
	{http.MethodPut, "PutSnapshotBlock", regexp.MustCompile(`^/snapshots/([^/]+)/blocks/([^/]+)$`), (*call).putBlock},
	{http.MethodPost, "StartSnapshot", regexp.MustCompile(`^/snapshots/?$`), (*call).start},
	{http.MethodPost, "CompleteSnapshot", regexp.MustCompile(`^/snapshots/completion/([^/]+)$`), (*call).complete},
}

// Handle answers a request that was authenticated. It always answers.
func (s *EBS) Handle(w http.ResponseWriter, r *http.Request, body []byte, who iam.Principal, requestID string) {
	w.Header().Set(wire.RequestIDHeader, requestID)
	err := s.serve(&call{EBS: s, w: w, r: r, who: who, body: body})
	if err != nil {
		s.refuse(w, r, requestID, err)
	}
}

func (s *EBS) serve(c *call) error {
	for _, route := range routes {
		m := route.path.FindStringSubmatch(c.r.URL.Path)
		if m == nil || c.r.Method != route.method {
			continue
		}
		m = append(m, "", "")
		c.action, c.id, c.rest = route.action, m[1], m[2]
		if err := c.may(c.id); err != nil {
			return err
		}
		return route.do(c)
	}
	return &Error{http.StatusBadRequest, "ValidationException", "INVALID_PARAMETER_VALUE", "There is no operation " + c.r.Method + " " + wire.Shorten(c.r.URL.Path)}
}

// may says whether the caller may do this with a snapshot, or with any where it
// isn't known yet.
func (c *call) may(id string) error {
	return c.IAM.Authorize(c.who, "ebs:"+c.action, fmt.Sprintf("arn:aws:ec2:%s::snapshot/%s", c.Region, cmp.Or(wire.Shorten(id), "*")))
}

// Error is a refusal in the API's words.
type Error struct {
	Status       int
	Type, Reason string
	Message      string
}

func (e *Error) Error() string { return e.Type + " (" + e.Reason + "): " + e.Message }

func invalid(reason, format string, args ...any) error {
	return &Error{http.StatusBadRequest, "ValidationException", reason, fmt.Sprintf(format, args...)}
}

func notFound(id string) error {
	return &Error{http.StatusNotFound, "ResourceNotFoundException", "SNAPSHOT_NOT_FOUND", fmt.Sprintf("The snapshot '%s' does not exist.", wire.Shorten(id))}
}

// refuse answers with an error; what isn't the client's stands in the log.
func (s *EBS) refuse(w http.ResponseWriter, r *http.Request, requestID string, err error) {
	var told *Error
	var denied *iam.DeniedError
	switch {
	case errors.As(err, &told):
	case errors.As(err, &denied):
		told = &Error{http.StatusForbidden, "AccessDeniedException", "UNAUTHORIZED_ACCOUNT", denied.Error()}
	case errors.Is(err, state.ErrConflict):
		told = &Error{http.StatusBadRequest, "RequestThrottledException", "RESOURCE_LEVEL_THROTTLE", "Too many requests change the same things at once; try again."}
	default:
		if r.Context().Err() == nil {
			s.Log.Error("request failed", "request", requestID, "service", Service, "path", r.URL.Path, "err", err)
		}
		told = &Error{http.StatusInternalServerError, "InternalServerException", "", "An internal error has occurred; request " + requestID}
	}
	told.write(w, requestID)
}

// unproven are the API's words, which the SDKs act on, for what is wrong with a
// request before it is known whose it is.
var unproven = map[string]Error{
	"SignatureDoesNotMatch":      {http.StatusForbidden, "InvalidSignatureException", "", ""},
	"RequestExpired":             {http.StatusForbidden, "InvalidSignatureException", "", ""},
	"IncompleteSignature":        {http.StatusBadRequest, "IncompleteSignatureException", "", ""},
	"MissingAuthenticationToken": {http.StatusForbidden, "MissingAuthenticationTokenException", "", ""},
	"AuthFailure":                {http.StatusForbidden, "UnrecognizedClientException", "", ""},
	"InvalidClientTokenId":       {http.StatusForbidden, "UnrecognizedClientException", "", ""},
	"RequestEntityTooLarge":      {http.StatusBadRequest, "ValidationException", "INVALID_BLOCK", ""},
	"IncompleteBody":             {http.StatusBadRequest, "ValidationException", "INVALID_BLOCK", ""},
}

// Refuse answers a request that wasn't authenticated.
func Refuse(w http.ResponseWriter, requestID string, err error) {
	e := wire.AsError(err)
	told, known := unproven[e.Code]
	switch {
	case e.Status >= http.StatusInternalServerError:
		told = Error{http.StatusInternalServerError, "InternalServerException", "", ""}
	case !known:
		told = Error{http.StatusForbidden, "AccessDeniedException", "", ""}
	}
	told.Message = e.Message
	told.write(w, requestID)
}

func (e *Error) write(w http.ResponseWriter, requestID string) {
	w.Header().Set(wire.RequestIDHeader, requestID)
	w.Header().Set("X-Amzn-Errortype", e.Type)
	said := map[string]string{"Message": e.Message}
	if e.Reason != "" {
		said["Reason"] = e.Reason
	}
	reply(w, e.Status, said)
}

func reply(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		status, data = http.StatusInternalServerError, []byte(`{}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(data) // a client that has gone away is no error
}

// mac of what a token stands for, bound to its use.
func (s *EBS) mac(use string, fields ...any) []byte {
	h := hmac.New(sha256.New, s.Secret)
	fmt.Fprintf(h, "ebs %s %q", use, fields)
	return h.Sum(nil)
}

// readable finds a completed snapshot that the caller may read.
func (c *call) readable(id string) (*cloud.Snapshot, error) {
	if err := c.may(id); err != nil {
		return nil, err
	}
	s, err := c.find(id)
	if err != nil {
		return nil, err
	}
	if !s.UsableBy(c.who.Account) && !c.who.System {
		return nil, notFound(id)
	}
	if s.Content == nil {
		return nil, invalid("INVALID_SNAPSHOT_ID", "The snapshot %s is %s; only a completed one can be read.", s.ID, s.State())
	}
	return s, nil
}

func (c *call) find(id string) (*cloud.Snapshot, error) {
	parsed, ok := cloud.ParseID(id, cloud.PrefixSnapshot)
	if !ok {
		return nil, invalid("INVALID_SNAPSHOT_ID", "'%s' is no snapshot's id.", wire.Shorten(id))
	}
	s, _, ok := state.Snapshots.Get(c.Store.View(), cloud.SnapshotID(parsed))
	if !ok {
		return nil, notFound(id)
	}
	return s, nil
}

// Run gives up what clients have begun and left, until ctx ends.
func (s *EBS) Run(ctx context.Context) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		if err := s.expire(ctx); err != nil && ctx.Err() == nil {
			s.Log.Error("snapshots that nobody writes any more can't be given up", "err", err)
		}
		select {
		case <-ctx.Done():
			s.closeWriters()
			return
		case <-tick.C:
		}
	}
}
