package board

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"
)

// WaitEntropy waits until the kernel has seeded its random number generator, and says so where that takes a moment: on a
// board without a hardware source it can be half a minute after power on, and no key must be made before. getrandom itself
// would wait as long without a word.
func WaitEntropy(ctx context.Context, log *slog.Logger) error {
	return waitEntropy(ctx, log, func() error {
		_, err := unix.Getrandom(make([]byte, 1), unix.GRND_NONBLOCK)
		return err
	}, 100*time.Millisecond)
}

func waitEntropy(ctx context.Context, log *slog.Logger, ask func() error, pause time.Duration) error {
	start := time.Now()
	said := false
	for {
		err := ask()
		switch {
		case errors.Is(err, unix.EAGAIN):
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil && !errors.Is(err, unix.ENOSYS): // before Linux 3.17 nobody can tell
			return err
		default:
			if said {
				log.Info("the kernel has entropy", "after", time.Since(start).Round(time.Millisecond))
			}
			return nil
		}
		if !said {
			said = true
			log.Warn("waiting for the kernel's entropy: keys made now could be guessed; a hardware random number generator, or a seed kept over reboots (seedrng, urandom-seed), shortens this")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}
