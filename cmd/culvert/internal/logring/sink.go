package logring

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
)

// sinkQueue is how many lines wait for a slow sink: a burst fits, and a stuck sink costs at most some hundred kilobytes.
const sinkQueue = 256

// writer is a place that lines go to; it may block.
type writer interface {
	write(Entry)
	close()
}

// sink is a goroutine that feeds a writer. A nil sink takes everything and does nothing.
type sink struct {
	queue   chan Entry
	dropped atomic.Uint64
	quit    chan struct{}
	once    sync.Once
	done    chan struct{}
}

func newSink(w writer) *sink {
	s := &sink{queue: make(chan Entry, sinkQueue), quit: make(chan struct{}), done: make(chan struct{})}
	go s.run(w)
	return s
}

// send never blocks.
func (s *sink) send(e Entry) {
	if s == nil {
		return
	}
	select {
	case <-s.quit:
		return
	default:
	}
	select {
	case s.queue <- e:
	default:
		s.dropped.Add(1)
	}
}

func (s *sink) run(w writer) {
	defer close(s.done)
	defer w.close()
	var told uint64
	put := func(e Entry) {
		// A gap is told where it is, so that nobody takes silence for peace.
		if n := s.dropped.Load(); n != told {
			w.write(Entry{Time: e.Time, Level: slog.LevelWarn, Topics: "system", Text: "log lines were lost, this output is too slow lost=" + strconv.FormatUint(n-told, 10)})
			told = n
		}
		w.write(e)
	}
	for {
		select {
		case e := <-s.queue:
			put(e)
		case <-s.quit:
			for {
				select {
				case e := <-s.queue:
					put(e)
				default:
					return
				}
			}
		}
	}
}

// close lets what is queued out, for as long as ctx allows.
func (s *sink) close(ctx context.Context) error {
	if s == nil {
		return nil
	}
	s.once.Do(func() { close(s.quit) })
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
