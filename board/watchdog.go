package board

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// WatchdogDevice is the kernel's first watchdog.
const WatchdogDevice = "/dev/watchdog"

// Watchdog is the hardware timer that resets the board unless it is fed. Closing the device without the magic character
// leaves it running: a program that dies takes the board with it, unless it is started again and feeds in time.
type Watchdog struct {
	f       *os.File
	timeout time.Duration
}

// OpenWatchdog starts the timer. The hardware may round timeout, or have one of its own that cannot change.
func OpenWatchdog(device string, timeout time.Duration) (*Watchdog, error) {
	f, err := os.OpenFile(device, os.O_WRONLY, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("%s is fed by another program (on OpenWrt by procd: leave watchdog-timer off): %w", device, err)
	}
	if err != nil {
		return nil, err
	}
	w := &Watchdog{f: f, timeout: timeout}
	fd := int(f.Fd())
	seconds := int(timeout / time.Second)
	if unix.IoctlSetPointerInt(fd, unix.WDIOC_SETTIMEOUT, seconds) != nil {
		// It keeps the one it has.
		if s, err := unix.IoctlGetInt(fd, unix.WDIOC_GETTIMEOUT); err == nil && s > 0 {
			seconds = s
		}
	} else if s, err := unix.IoctlGetInt(fd, unix.WDIOC_GETTIMEOUT); err == nil && s > 0 {
		seconds = s
	}
	w.timeout = time.Duration(seconds) * time.Second
	return w, w.feed()
}

// Timeout is how long the board lives without being fed.
func (w *Watchdog) Timeout() time.Duration { return w.timeout }

func (w *Watchdog) feed() error {
	_, err := w.f.Write([]byte{0})
	return err
}

// Close stops the timer by the magic character, then closes. A kernel built with WATCHDOG_NOWAYOUT goes on counting.
func (w *Watchdog) Close() error {
	_, err := w.f.Write([]byte{'V'})
	return errors.Join(err, w.f.Close())
}

// Guard feeds the watchdog as long as alive proves that the program does its work: it must return before its context
// ends. When it does not, nothing feeds until it does again, and if that takes longer than the timeout the board is reset.
// Guard returns when ctx ends; the timer then still runs.
func (w *Watchdog) Guard(ctx context.Context, alive func(context.Context) bool, log *slog.Logger) {
	guard(ctx, w.timeout/4, w.feed, alive, log)
}

func guard(ctx context.Context, period time.Duration, feed func() error, alive func(context.Context) bool, log *slog.Logger) {
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	hungry := false
	for {
		proof, cancel := context.WithTimeout(ctx, period)
		ok := alive(proof)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case !ok:
			if !hungry {
				log.Error("the control loop does not answer: the watchdog is not fed until it does")
			}
			hungry = true
		default:
			if hungry {
				log.Warn("the control loop answers again")
			}
			hungry = false
			if err := feed(); err != nil {
				log.Error("the watchdog cannot be fed", "error", err)
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}
