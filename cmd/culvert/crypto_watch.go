package main

import (
	"bufio"
	"bytes"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"culvert/hwcrypto/engine"
	"culvert/ipsec"
)

const (
	// watchEvery is how often the kernel's counters are read, where an engine is in use.
	watchEvery = 10 * time.Second
	// After a test that found nothing the next suspicion waits, longer each time: anybody can forge packets that count as
	// errors, and clients go away without a word every day.
	firstPause = time.Minute
	maxPause   = 10 * time.Minute

	xfrmStat = "/proc/net/xfrm_stat" // CONFIG_XFRM_STATISTICS
)

// engineWatch sees to it that a crypto engine of the kernel's ESP that breaks is left. It costs nothing where none is in
// use, and hardly anything otherwise: engines are tested when there is a reason to suspect them. Its methods run on the loop.
type engineWatch struct {
	opened chan *engine.Engines
	// check tests in the background, and tells the loop.
	check func(why string)
	log   *slog.Logger

	next    time.Time // of the counters
	errors  uint64    // as they were
	based   bool      // they have been read
	reading func() (errors uint64, ok bool)
	pause   time.Duration
	quiet   time.Time // until then no suspicion counts
	testing bool
}

// watchEngines begins, once it is known what the kernel's ESP uses.
func (d *daemon) watchEngines(e *engine.Engines) {
	if !e.Watchable() {
		return
	}
	w := &engineWatch{opened: d.engines.opened, log: d.logger("crypto"), reading: readXfrmErrors, pause: firstPause, next: time.Now()}
	ctx := d.engines.ctx
	w.check = func(why string) {
		w.log.Info("testing the crypto engine", "reason", why)
		go func() {
			var changed []engine.Choice
			var err error
			more := false
			select {
			case e := <-w.opened:
				changed, err = e.Check(ctx)
				more = e.Watchable()
				w.opened <- e
			case <-ctx.Done():
				return
			}
			d.loop.post(func(now time.Time) {
				w.tested(now, more, err)
				if len(changed) > 0 {
					d.renewSAs(now)
				}
			})
		}()
	}
	d.engineWatch = w
	d.loop.add(w)
}

// Deadline implements core.
func (w *engineWatch) Deadline() time.Time { return w.next }

// Tick reads the counters of what the kernel's ciphers refused.
func (w *engineWatch) Tick(now time.Time) {
	if w.next.IsZero() || now.Before(w.next) {
		return
	}
	errors, ok := w.reading()
	switch {
	case !ok:
		w.next = time.Time{}
		return
	case w.based && w.errors < errors:
		w.suspect(now, "the kernel counts errors of its ciphers")
	}
	w.errors, w.based, w.next = errors, true, now.Add(watchEvery)
}

// suspect has the engines tested, unless they were just now.
func (w *engineWatch) suspect(now time.Time, why string) {
	if w == nil || w.testing || now.Before(w.quiet) {
		return
	}
	w.testing = true
	w.check(why)
}

// tested notes the outcome; more says whether an engine is in use still.
func (w *engineWatch) tested(now time.Time, more bool, err error) {
	if err != nil {
		w.log.Warn("a crypto engine is suspected, and cannot be left", "error", err)
	}
	if !more {
		w.next = time.Time{} // and it is being tested for ever
		return
	}
	w.testing = false
	w.quiet = now.Add(w.pause)
	w.pause = min(2*w.pause, maxPause)
}

// renewSAs has all SAs use what the kernel prefers by now.
func (d *daemon) renewSAs(now time.Time) {
	lost, err := d.xfrm.Renew()
	if err != nil {
		d.logger("crypto").Warn("an SA cannot be given another cipher: its client has to connect again", "error", err)
	}
	for _, id := range lost {
		d.backendEvent(now, ipsec.Event{Kind: ipsec.EventHardExpire, ID: id})
	}
}

// readXfrmErrors is how many packets the kernel's ciphers have refused, sending and receiving; not ok if it does not tell.
func readXfrmErrors() (uint64, bool) {
	b, err := os.ReadFile(xfrmStat)
	return sumCounters(b, "XfrmOutStateProtoError", "XfrmInStateProtoError"), err == nil
}

func sumCounters(stat []byte, names ...string) (sum uint64) {
	for in := bufio.NewScanner(bytes.NewReader(stat)); in.Scan(); {
		if f := strings.Fields(in.Text()); len(f) == 2 && slices.Contains(names, f[0]) {
			n, _ := strconv.ParseUint(f[1], 10, 64)
			sum += n
		}
	}
	return sum
}
