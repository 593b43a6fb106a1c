package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Handler carries out one request; what it writes reaches the peer at once, and At and Identity of the request when it is
// done. ctx ends when the peer goes away or the server closes. An error that has an ExitCode() int chooses the exit status,
// any other is ExitFailed; one that has an Ask() string is a question.
type Handler func(ctx context.Context, r *Request, out io.Writer) error

// Server listens on a control socket.
type Server struct {
	path    string
	ln      *net.UnixListener
	lock    *os.File // held while we live; the kernel lets go of it when we crash
	handler Handler
	log     *slog.Logger
	allowed func(uid uint32) bool

	mu      sync.Mutex
	conns   map[net.Conn]struct{}
	closed  bool
	leaving bool
	left    chan struct{} // closed when the last connection has gone; nil unless somebody waits for that
	wg      sync.WaitGroup
}

// ErrInUse says that another daemon answers on the socket.
var ErrInUse = errors.New("another culvert is running")

// Listen makes the socket, mode 0600, and its directory, mode 0700. A socket that a crashed daemon left is replaced; one
// that a live daemon holds is ErrInUse.
func Listen(path string, h Handler, log *slog.Logger) (*Server, error) {
	// sun_path holds 108 octets with its NUL; the kernel's own message does not say what to do.
	if len(path) > 107 {
		return nil, fmt.Errorf("control socket %s: the path is longer than 107 octets, choose a shorter one", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	// The lock decides between two daemons that start at once, when both find a stale socket.
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("control socket %s: %w: stop it first", path, ErrInUse)
		}
		return nil, fmt.Errorf("control socket: lock %s.lock: %w", path, err)
	}
	s, err := listen(path)
	if err != nil {
		lock.Close()
		return nil, err
	}
	os.Remove(restartMark(path))
	s.lock, s.handler, s.log = lock, h, log
	own := uint32(os.Geteuid())
	s.allowed = func(uid uint32) bool { return uid == 0 || uid == own }
	return s, nil
}

func listen(path string) (*Server, error) {
	switch info, err := os.Lstat(path); {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("control socket: %w", err)
	case info.Mode()&os.ModeSocket == 0:
		return nil, fmt.Errorf("control socket: %s is there already and is no socket: remove it, or choose another path", path)
	default:
		if conn, err := net.DialTimeout("unix", path, dialWait); err == nil {
			conn.Close()
			return nil, fmt.Errorf("control socket %s: %w: stop it first", path, ErrInUse)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("control socket: %w", err)
		}
	}
	// The socket appears with its final mode: there is no moment at which others could connect.
	old := unix.Umask(0o177)
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return &Server{path: path, ln: ln, conns: map[net.Conn]struct{}{}}, nil
}

// Serve answers until Close or the end of ctx.
func (s *Server) Serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	for {
		conn, err := s.ln.AcceptUnix()
		if err != nil {
			if s.isEnding() {
				s.wg.Wait()
				return nil
			}
			// Out of descriptors, most likely: those we have will be given back.
			s.log.Warn("control socket does not accept", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
			continue
		}
		if !s.admit(conn) {
			continue
		}
		s.wg.Go(func() {
			defer s.forget(conn)
			s.serve(ctx, conn)
		})
	}
}

// Close ends all connections and removes the socket. Serve returns when the last command has.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	var err error
	if !s.leaving {
		err = s.ln.Close() // unlinks the path
	}
	for c := range s.conns {
		c.Close()
	}
	// The lock file stays: removing it would let two daemons hold locks on different files of one name.
	s.lock.Close()
	return err
}

// Leave is for a daemon that is about to begin anew: consoles wait for its next run from now on, and those that have asked
// already get their answers, for which it waits a while. Close has to follow.
func (s *Server) Leave() error {
	if err := Restarting(s.path); err != nil {
		return err
	}
	s.mu.Lock()
	if s.closed || s.leaving {
		s.mu.Unlock()
		return nil
	}
	s.leaving = true
	err := s.ln.Close()
	left := make(chan struct{})
	if s.left = left; len(s.conns) == 0 {
		s.left = nil
		close(left)
	}
	s.mu.Unlock()
	select {
	case <-left:
	case <-time.After(leaveWait):
	}
	return err
}

func (s *Server) isEnding() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed || s.leaving
}

// admit checks who it is and how many there are.
func (s *Server) admit(conn *net.UnixConn) bool {
	refuse := func(why string) bool {
		exit := ExitFailed
		writeAnswer(conn, answer{Exit: &exit, Error: why})
		conn.Close()
		return false
	}
	cred, err := peerCred(conn)
	if err != nil || !s.allowed(cred.Uid) {
		if err == nil {
			s.log.Warn("control socket refused a user who is not root", "uid", cred.Uid, "pid", cred.Pid)
		}
		return refuse("only root may use the console")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.leaving {
		conn.Close() // unread, which the peer is told
		return false
	}
	if len(s.conns) >= maxSessions {
		return refuse(fmt.Sprintf("%d consoles are open already: close one", maxSessions))
	}
	s.conns[conn] = struct{}{}
	return true
}

func (s *Server) forget(conn net.Conn) {
	conn.Close()
	s.mu.Lock()
	delete(s.conns, conn)
	if s.left != nil && len(s.conns) == 0 {
		close(s.left)
		s.left = nil
	}
	s.mu.Unlock()
}

func peerCred(conn *net.UnixConn) (*unix.Ucred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var inner error
	if err := raw.Control(func(fd uintptr) { cred, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return nil, err
	}
	return cred, inner
}

// serve answers one connection. Its requests are read by a goroutine of their own, which thereby notices when the peer
// goes away in the middle of a command.
func (s *Server) serve(ctx context.Context, conn net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lines := make(chan line)
	s.wg.Go(func() {
		defer cancel()
		defer close(lines)
		read(ctx, conn, lines)
	})
	conn.SetReadDeadline(time.Now().Add(firstWait))
	for l := range lines {
		// A command may run for as long as it likes (`/log print follow`); only between commands does the clock run.
		conn.SetReadDeadline(time.Time{})
		if l.bad != "" {
			exit := ExitUsage
			writeAnswer(conn, answer{Exit: &exit, Error: l.bad})
			continue // it was the last
		}
		if !s.run(ctx, conn, &l.Request) {
			conn.Close()
			cancel()
			for range lines {
			}
			return
		}
		conn.SetReadDeadline(time.Now().Add(idleWait))
	}
}

// line is a request, or what is wrong with it.
type line struct {
	Request
	bad string
}

// read passes on requests until the peer goes away or writes what is none. It takes the next only when the last has been
// answered, so answers stay in order.
func read(ctx context.Context, conn net.Conn, lines chan<- line) {
	pass := func(l line) bool {
		select {
		case lines <- l:
			return l.bad == ""
		case <-ctx.Done():
			return false
		}
	}
	scan := bufio.NewScanner(conn)
	scan.Buffer(make([]byte, 0, 1024), maxRequest)
	for scan.Scan() {
		var l line
		if json.Unmarshal(scan.Bytes(), &l.Request) != nil {
			l.bad = `not a request: send {"command": "/ppp active print"} on one line`
		}
		if !pass(l) {
			return
		}
	}
	if errors.Is(scan.Err(), bufio.ErrTooLong) {
		pass(line{bad: fmt.Sprintf("the request is longer than %d octets", maxRequest)})
	}
}

// run carries out one request and says whether the peer is still there.
func (s *Server) run(ctx context.Context, conn net.Conn, r *Request) bool {
	out := &frames{conn: conn}
	err := s.handle(ctx, r, out)
	out.flush()
	if out.err != nil {
		return false
	}
	exit := ExitDone
	last := answer{Exit: &exit, At: r.At, Identity: r.Identity}
	if err != nil {
		exit = ExitFailed
		var coded interface{ ExitCode() int }
		if errors.As(err, &coded) {
			exit = coded.ExitCode()
		}
		var question interface{ Ask() string }
		if errors.As(err, &question) {
			last.Ask = question.Ask()
		}
		last.Error = strings.ToValidUTF8(err.Error(), "?")
	}
	return writeAnswer(conn, last) == nil
}

// handle keeps a bug in a command from taking the tunnels of everybody down.
func (s *Server) handle(ctx context.Context, r *Request, out io.Writer) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("console command failed inside", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = errors.New("the command failed inside culvert: the log says more")
		}
	}()
	return s.handler(ctx, r, out)
}
