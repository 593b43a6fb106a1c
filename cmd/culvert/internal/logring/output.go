package logring

import (
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"
)

// textWriter writes lines for people.
type textWriter struct {
	w   io.Writer
	buf []byte
}

func (t *textWriter) write(e Entry) {
	t.buf = append(e.append(t.buf[:0]), '\n')
	t.w.Write(t.buf) // there is nowhere left to complain
}

func (t *textWriter) close() {}

const (
	retryAfter  = 5 * time.Second // between attempts to reach a syslog server
	dialTimeout = 5 * time.Second
)

// syslogWriter sends RFC 5424 messages over UDP (RFC 5426), one a datagram. A name is looked up when it is first needed,
// which may be long after the start: a router's DNS often comes through the very links it has to log about.
type syslogWriter struct {
	addr, host string
	pid        int
	conn       net.Conn
	retry      time.Time
	buf        []byte
}

func (s *syslogWriter) write(e Entry) {
	if s.conn == nil {
		now := time.Now()
		if now.Before(s.retry) {
			return
		}
		conn, err := net.DialTimeout("udp", s.addr, dialTimeout)
		if err != nil {
			s.retry = now.Add(retryAfter)
			return
		}
		s.conn = conn
	}
	s.buf = appendSyslog(s.buf[:0], e, s.host, s.pid)
	if _, err := s.conn.Write(s.buf); err != nil {
		// Nobody listens, or the route is gone: a new socket may find another way.
		s.conn.Close()
		s.conn, s.retry = nil, time.Now().Add(retryAfter)
	}
}

func (s *syslogWriter) close() {
	if s.conn != nil {
		s.conn.Close()
	}
}

// facilityDaemon is RFC 5424 table 1's "system daemons".
const facilityDaemon = 3

// severity is RFC 5424 table 2.
func severity(l slog.Level) int {
	switch {
	case l >= slog.LevelError:
		return 3
	case l >= slog.LevelWarn:
		return 4
	case l >= slog.LevelInfo:
		return 6
	}
	return 7
}

// appendSyslog writes `<30>1 2026-11-21T02:00:00.000000Z office culvert 77 ipsec - message` (RFC 5424 section 6): the
// topics are the MSGID.
func appendSyslog(b []byte, e Entry, host string, pid int) []byte {
	b = append(b, '<')
	b = strconv.AppendInt(b, int64(facilityDaemon*8+severity(e.Level)), 10)
	b = append(b, ">1 "...)
	b = e.Time.UTC().AppendFormat(b, "2006-01-02T15:04:05.000000Z")
	for _, f := range []struct {
		s   string
		max int
	}{{host, 255}, {"culvert", 48}, {strconv.Itoa(pid), 128}, {e.Topics, 32}} {
		b = append(b, ' ')
		b = appendHeader(b, f.s, f.max)
	}
	b = append(b, " - "...)
	return append(b, e.Text...)
}

// appendHeader writes a header field: printable ASCII without blanks, bounded, "-" when there is nothing.
func appendHeader(b []byte, s string, max int) []byte {
	s = strings.Map(func(r rune) rune {
		if r <= ' ' || r >= 0x7f {
			return '_'
		}
		return r
	}, s)
	if s == "" {
		s = "-"
	}
	return append(b, s[:min(len(s), max)]...)
}
