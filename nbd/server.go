package nbd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"
)

const (
	// negotiationTime is how long a client may take to choose its export.
	negotiationTime = 30 * time.Second
	// graceTime is how long Close lets requests that were read be answered.
	graceTime = 5 * time.Second
	// maxConnections that are served at once; more wait to be accepted.
	maxConnections = 1024
)

// Server serves exports on a unix socket.
type Server struct {
	listener *net.UnixListener
	path     string
	exports  Exports
	log      *slog.Logger

	ctx    context.Context // ends when requests in flight shall be given up
	cancel context.CancelFunc
	group  sync.WaitGroup // of the accepting and the connections

	mu     sync.Mutex // guards what follows
	conns  map[net.Conn]bool
	closed bool
}

// Serve listens at path, with mode 0600, in a folder that must be there and be
// nobody else's to write to; a socket that an earlier server left there is
// replaced. Failures of exports are logged.
func Serve(path string, exports Exports, log *slog.Logger) (*Server, error) {
	listener, err := listen(path)
	if err != nil {
		return nil, fmt.Errorf("serving block devices at %s: %w", path, err)
	}
	s := &Server{listener: listener, path: path, exports: exports, log: log, conns: map[net.Conn]bool{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.group.Go(s.accept)
	return s, nil
}

// listen binds beside the path and renames, so that no one finds a socket with a
// wider mode and a stale one is replaced at once.
func listen(path string) (*net.UnixListener, error) {
	temp := path + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: temp, Net: "unix"})
	if err != nil {
		return nil, err
	}
	listener.SetUnlinkOnClose(false)
	err = os.Chmod(temp, 0o600)
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return nil, errors.Join(err, listener.Close(), os.Remove(temp))
	}
	return listener, nil
}

func (s *Server) accept() {
	slots := make(chan struct{}, maxConnections)
	for {
		slots <- struct{}{}
		conn, err := s.listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // no file descriptors: those who are served go on, and free some
			s.log.Error("accepting a block device's client", "error", err)
			<-slots
			select {
			case <-s.ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		s.group.Go(func() {
			defer func() { <-slots }()
			s.serve(conn)
		})
	}
}

// serve one connection to its end.
func (s *Server) serve(conn net.Conn) {
	if !s.enter(conn) {
		conn.Close()
		return
	}
	defer s.leave(conn)
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	export, err := s.negotiate(ctx, conn)
	if err != nil || export == nil {
		if err != nil && !s.isClosed() {
			s.log.Warn("negotiating with a block device's client", "error", err)
		}
		return
	}
	defer export.release()
	if err := export.transmit(ctx, cancel); err != nil && !s.isClosed() {
		s.log.Warn("serving a block device's client", "export", export.name, "error", err)
	}
}

func (s *Server) negotiate(ctx context.Context, conn net.Conn) (*session, error) {
	if err := conn.SetDeadline(time.Now().Add(negotiationTime)); err != nil {
		return nil, err
	}
	export, err := negotiate(ctx, conn, s.exports)
	if err != nil || export == nil {
		return nil, err
	}
	export.log = s.log
	// Close's deadline must win over the lifting of this one.
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		export.release()
		return nil, net.ErrClosed
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		export.release()
		return nil, err
	}
	return export, nil
}

func (s *Server) enter(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.conns[conn] = true
	return true
}

func (s *Server) leave(conn net.Conn) {
	s.mu.Lock()
	delete(s.conns, conn)
	s.mu.Unlock()
	conn.Close()
}

func (s *Server) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// Close takes no more requests, answers those it has (for some seconds at most;
// then their connections end unanswered) and returns when no export is used any more. The socket goes; clients that
// reconnect find the next server at its path.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		s.group.Wait()
		return nil
	}
	s.closed = true
	err := s.listener.Close()
	for conn := range s.conns {
		conn.SetReadDeadline(time.Now())
	}
	s.mu.Unlock()

	stop := time.AfterFunc(graceTime, s.abort)
	s.group.Wait()
	stop.Stop()
	s.cancel()
	if gone := os.Remove(s.path); !errors.Is(gone, os.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	if err != nil {
		return fmt.Errorf("closing the server of block devices at %s: %w", s.path, err)
	}
	return nil
}

// abort gives up the requests in flight.
func (s *Server) abort() {
	s.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.conns {
		conn.Close()
	}
}
