package logring

import (
	"context"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"
)

// Config is `[log]`.
type Config struct {
	Topics []string // rules of a Filter
	Remote string   // host:port of a syslog server; empty: none
	Ring   int      // lines kept
	// Identity is the HOSTNAME of syslog messages; empty: the machine's.
	Identity string
}

// DefaultConfig keeps a thousand lines of what is worth reading.
func DefaultConfig() Config { return Config{Topics: []string{"info"}, Ring: 1000} }

// Log takes records from any number of goroutines.
type Log struct {
	filter atomic.Pointer[Filter]
	ring   *Ring
	text   *sink
	remote atomic.Pointer[sink] // nil: no syslog server
	now    func() time.Time

	cfg Config // of the last Reconfigure
}

// New starts a log that writes lines to w (nil: none). Close ends it.
func New(cfg Config, w io.Writer) (*Log, error) {
	l := &Log{ring: newRing(cfg.Ring, ringBytes), now: time.Now}
	if w != nil {
		l.text = newSink(&textWriter{w: w})
	}
	if err := l.Reconfigure(cfg); err != nil {
		l.text.close(context.Background())
		return nil, err
	}
	return l, nil
}

// Reconfigure applies a new Config; what it does not change goes on undisturbed. It is called from one goroutine at a time.
func (l *Log) Reconfigure(cfg Config) error {
	f, err := ParseFilter(cfg.Topics)
	if err != nil {
		return err
	}
	l.filter.Store(&f)
	l.ring.resize(cfg.Ring)
	if cfg.Remote != l.cfg.Remote || cfg.Identity != l.cfg.Identity || cfg.Remote != "" && l.remote.Load() == nil {
		var next *sink
		if cfg.Remote != "" {
			s := &syslogWriter{addr: cfg.Remote, host: cfg.Identity, pid: os.Getpid()}
			if s.host == "" {
				s.host, _ = os.Hostname()
			}
			next = newSink(s)
		}
		if old := l.remote.Swap(next); old != nil {
			go old.close(context.Background()) // the sockets of UDP do not block for long
		}
	}
	l.cfg = cfg
	return nil
}

// Handler is what a slog.Logger is made with. The attribute "topic" sets a record's topics, and may hold several: "l2tp,ppp".
func (l *Log) Handler() slog.Handler { return &handler{log: l} }

// Logger is a logger on Handler with a topic.
func (l *Log) Logger(topic string) *slog.Logger { return slog.New(l.Handler()).With("topic", topic) }

// Ring holds the last lines.
func (l *Log) Ring() *Ring { return l.ring }

// Dropped counts lines that a slow sink could not take.
func (l *Log) Dropped() uint64 {
	var n uint64
	for _, s := range []*sink{l.text, l.remote.Load()} {
		if s != nil {
			n += s.dropped.Load()
		}
	}
	return n
}

// Close writes out what is queued, for as long as ctx allows. Later records reach the ring only.
func (l *Log) Close(ctx context.Context) error {
	err := l.text.close(ctx)
	if e := l.remote.Load().close(ctx); err == nil {
		err = e
	}
	return err
}
