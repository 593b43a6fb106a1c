package board

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unsafe"
)

// keyRestart is how device trees name a router's reset button: linux,code = <KEY_RESTART> (input-event-codes.h).
const keyRestart = 0x198

// evKey is the type of a key's event.
const evKey = 0x01

// FindButton returns the input device that has the reset button, "dev/input/event0" under a root such as os.DirFS("/").
func FindButton(root fs.FS) (string, error) {
	names, err := fs.Glob(root, "sys/class/input/event*")
	if err != nil {
		return "", err
	}
	for _, name := range names {
		if hasKey(text(root, name+"/device/capabilities/key"), keyRestart) {
			return "dev/input/" + filepath.Base(name), nil
		}
	}
	return "", errors.New("no input device has a reset button (KEY_RESTART): is gpio-keys or gpio-button-hotplug, and evdev, in the kernel?")
}

// hasKey looks a key up in a bitmap as sysfs prints it: words of an unsigned long in hexadecimal, the highest first.
func hasKey(bitmap string, key int) bool {
	words := strings.Fields(bitmap)
	// The kernel prints words of the reading program's width: input_bits_to_string knows of 32-bit programs on 64-bit kernels.
	const width = strconv.IntSize
	n := len(words) - 1 - key/width
	if n < 0 || n >= len(words) {
		return false
	}
	v, err := strconv.ParseUint(words[n], 16, 64)
	return err == nil && v>>(key%width)&1 == 1
}

// Button tells when the reset button was held.
type Button struct {
	f    *os.File
	hold time.Duration
}

// OpenButton opens an input device; a press counts once the button was held for that long, while it is still down.
func OpenButton(device string, hold time.Duration) (*Button, error) {
	f, err := os.OpenFile(device, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	return &Button{f, hold}, nil
}

// Close ends Watch.
func (b *Button) Close() error { return b.f.Close() }

// Watch calls pressed, on a goroutine of its own, each time the button was held long enough. It returns when the device
// ends or is closed, or with ctx.
func (b *Button) Watch(ctx context.Context, pressed func()) error {
	stop := context.AfterFunc(ctx, func() { b.f.Close() })
	defer stop()
	err := watchKey(b.f, keyRestart, b.hold, pressed)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// eventSize is struct input_event's: a time of two longs, then type, code and value.
const eventSize = int(2*unsafe.Sizeof(uintptr(0))) + 8

// watchKey measures by its own clock how long the key is down: the event's time is the wall clock's, which jumps.
func watchKey(r io.Reader, key uint16, hold time.Duration, pressed func()) error {
	var timer *time.Timer
	stop := func() {
		if timer != nil {
			timer.Stop()
			timer = nil
		}
	}
	defer stop()
	buf := make([]byte, eventSize)
	for {
		if _, err := io.ReadFull(r, buf); err != nil {
			return fmt.Errorf("read the reset button: %w", err)
		}
		e := buf[eventSize-8:]
		kind, code, value := binary.NativeEndian.Uint16(e), binary.NativeEndian.Uint16(e[2:]), binary.NativeEndian.Uint32(e[4:])
		if kind != evKey || code != key {
			continue
		}
		switch value {
		case 1: // down; 2 is the key's own repetition
			stop()
			timer = time.AfterFunc(hold, pressed)
		case 0:
			stop()
		}
	}
}
