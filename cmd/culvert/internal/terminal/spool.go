package terminal

import (
	"errors"
	"io"
	"sync"
)

// maxSpool bounds what a command may be ahead of a terminal that is slow, or whose page has not been read, in octets.
const maxSpool = 4 << 20

var errSpool = errors.New("the output is too long to wait for the terminal: choose with where, or dump it")

// spool lets the daemon finish its answer while the terminal is still busy with the beginning: the daemon waits for nobody.
type spool struct {
	mu    sync.Mutex
	ready *sync.Cond
	buf   []byte
	err   error // of the reader: nothing is wanted any more
	done  bool
}

func newSpool() *spool {
	s := new(spool)
	s.ready = sync.NewCond(&s.mu)
	return s
}

func (s *spool) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, s.err
	}
	if len(s.buf)+len(p) > maxSpool {
		return 0, errSpool
	}
	s.buf = append(s.buf, p...)
	s.ready.Broadcast()
	return len(p), nil
}

// end says that nothing more will be written.
func (s *spool) end() {
	s.mu.Lock()
	s.done = true
	s.ready.Broadcast()
	s.mu.Unlock()
}

// drain writes everything to out until the end, or until out does not take it any more.
func (s *spool) drain(out io.Writer) error {
	for {
		s.mu.Lock()
		for len(s.buf) == 0 && !s.done && s.err == nil {
			s.ready.Wait()
		}
		chunk, done, err := s.buf, s.done, s.err
		s.buf = nil
		s.mu.Unlock()
		if err != nil {
			return err
		}
		if len(chunk) > 0 {
			if _, err := out.Write(chunk); err != nil {
				s.stop(err)
				return err
			}
		}
		if done && len(chunk) == 0 {
			return nil
		}
	}
}

// stop drops what is there and refuses what comes.
func (s *spool) stop(err error) {
	s.mu.Lock()
	if s.err == nil {
		s.err = err
	}
	s.buf = nil
	s.ready.Broadcast()
	s.mu.Unlock()
}
