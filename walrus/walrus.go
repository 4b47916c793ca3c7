package walrus

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"sync/atomic"
	"time"

	"github.com/gofiber/fiber/v3"
	"github.com/valyala/fasthttp"
	"github.com/versity/versitygw/s3api"
	"github.com/versity/versitygw/s3api/middlewares"
)

// Options say where the object store is and whom it believes.
type Options struct {
	// Dir is the store's folder, made if it isn't there.
	Dir string
	// Identity is in charge of accounts and keys.
	Identity Identity
	// Region is the one that requests must be signed for; us-east-1 if empty.
	Region string
	// Bound says whether policies bind the holder of an access key, and May whether
	// they allow it something. Without them accounts alone count.
	Bound func(accessKey string) bool
	May   func(Ask) bool
	// Elsewhere answers requests on the store's connections that aren't plainly
	// S3's: the front itself, which passes them to Handler where they are for
	// S3 after all. Without it everything is for S3.
	Elsewhere http.Handler
	// Logger gets what goes wrong inside; slog's default if nil.
	Logger *slog.Logger
}

const (
	maxConnections = 16384
	maxRequests    = 4096
	// graceTime is how long Close waits for requests under way.
	graceTime = 10 * time.Second
)

// Walrus is an open object store.
type Walrus struct {
	store     *store
	app       *fiber.App
	elsewhere http.Handler
	bound     func(accessKey string) bool
	may       func(Ask) bool
	handover  *handover
	served    chan error         // the handover's server has ended
	stop      context.CancelFunc // ends expireLoop
	expired   chan struct{}      // closed when it has ended
	root      middlewares.RootUserConfig
	keys      gatekeeper
	region    string
	before    string // the working directory that Close goes back to
}

// taken is true while a store is open: the library has the process's working
// directory.
var taken atomic.Bool

// ErrOpen is returned by Open while this process has an object store open.
var ErrOpen = errors.New("this process has an object store open already")

// Open opens the object store, sweeps what a crash left and is ready to serve.
// The process's working directory is the store's folder until Close.
func Open(o Options) (_ *Walrus, err error) {
	if !taken.CompareAndSwap(false, true) {
		return nil, ErrOpen
	}
	w := &Walrus{elsewhere: o.Elsewhere, handover: newHandover(), served: make(chan error, 1)}
	defer func() {
		if err != nil {
			w.release()
		}
	}()
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Region == "" {
		o.Region = "us-east-1"
	}
	if w.before, err = os.Getwd(); err != nil {
		return nil, fmt.Errorf("find the working directory: %w", err)
	}
	if w.store, err = prepare(o.Dir, o.Logger); err != nil {
		return nil, err
	}
	if err := w.assemble(o); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	w.stop, w.expired = stop, make(chan struct{})
	go w.expireLoop(ctx)
	go func() { w.served <- w.Serve(w.handover) }()
	return w, nil
}

// prepare makes the folder ready and opens the store on it.
func prepare(dir string, log *slog.Logger) (*store, error) {
	root, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("name the object store's folder: %w", err)
	}
	for _, folder := range []string{root, versionsOf(root), documentsOf(root)} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return nil, fmt.Errorf("make the object store's folder: %w", err)
		}
	}
	if err := probeAttributes(root); err != nil {
		return nil, err
	}
	for _, folder := range []string{root, versionsOf(root)} {
		if err := sweep(folder); err != nil {
			return nil, err
		}
	}
	return openStore(root, log)
}

// assemble builds the library's server around the store.
func (w *Walrus) assemble(o Options) error {
	// The library wants a root user who may do everything. Nobody is told the
	// keys of this one.
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return fmt.Errorf("make up a root user: %w", err)
	}
	w.root = middlewares.RootUserConfig{Access: "-" + hex.EncodeToString(secret[:8]), Secret: hex.EncodeToString(secret)}
	w.keys, w.region = gatekeeper{o.Identity, o.Bound}, o.Region
	w.bound, w.may = o.Bound, o.May
	server, err := s3api.New(w.store, w.root, o.Region, w.keys, nil, nil, nil, nil,
		s3api.WithQuiet(), s3api.WithDisableACL(), s3api.WithKeepAlive(),
		s3api.WithConcurrencyLimiter(maxConnections, maxRequests),
		s3api.WithMiddleware("/", w.steer),
		s3api.WithMiddleware("/", answering(guard)),
		s3api.WithMiddleware("/", answering(w.rights)),
		s3api.WithMiddleware("/", finish),
		s3api.WithMiddleware("/", answering(inspect)),
		s3api.WithMiddleware("/", answering(w.noteWish)),
		s3api.WithMiddleware("/", w.documents),
	)
	if err != nil {
		return fmt.Errorf("start the S3 library: %w", err)
	}
	if w.app, err = appOf(server); err != nil {
		return err
	}
	setLimits(w.app.Server())
	return nil
}

// appOf returns the application inside the library's server, which serves only
// ports that it opens itself and so can't be given a connection.
func appOf(server *s3api.S3ApiServer) (*fiber.App, error) {
	field := reflect.ValueOf(server).Elem().FieldByName("app")
	if !field.IsValid() || field.Type() != reflect.TypeFor[*fiber.App]() {
		return nil, errors.New("this version of the S3 library keeps its application elsewhere")
	}
	return (*fiber.App)(field.UnsafePointer()), nil
}

func setLimits(server *fasthttp.Server) {
	server.ReadTimeout = headTime
	server.IdleTimeout = idleTime
	server.HeaderReceived = func(h *fasthttp.RequestHeader) fasthttp.RequestConfig {
		body := time.Duration(max(h.ContentLength(), 0)/slowestBody) * time.Second
		return fasthttp.RequestConfig{ReadTimeout: bodyTime + body}
	}
}

// Serve answers S3 on a listener of its own until Close.
func (w *Walrus) Serve(ln net.Listener) error {
	err := w.app.Listener(patience{ln}, fiber.ListenConfig{DisableStartupMessage: true})
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("serve S3: %w", err)
	}
	return nil
}

// Handler takes over the connections of the S3 requests that a front's
// http.Server passes to it. It needs HTTP/1.1, and the path as it came: a
// http.ServeMux before it would redirect keys with two slashes in a row. The
// server's own Shutdown doesn't end these connections, Close does.
func (w *Walrus) Handler() http.Handler { return http.HandlerFunc(w.ServeHTTP) }

// Close lets requests under way finish, for some seconds, and gives the
// working directory back.
func (w *Walrus) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), graceTime)
	defer cancel()
	_ = w.handover.Close()
	w.stop()
	<-w.expired
	err := w.app.ShutdownWithContext(ctx)
	if err != nil {
		err = fmt.Errorf("end S3 requests under way: %w", err)
	}
	return errors.Join(err, <-w.served, w.release())
}

func (w *Walrus) release() error {
	defer taken.Store(false)
	if w.store != nil {
		w.store.Shutdown()
	}
	if w.before == "" {
		return nil
	}
	if err := os.Chdir(w.before); err != nil {
		return fmt.Errorf("go back to the working directory: %w", err)
	}
	return nil
}
