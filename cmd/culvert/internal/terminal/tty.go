package terminal

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// TTY is a terminal in raw mode.
type TTY struct {
	*os.File
	old unix.Termios
}

// speeds are those of serial lines.
var speeds = map[int]uint32{1200: unix.B1200, 2400: unix.B2400, 4800: unix.B4800, 9600: unix.B9600, 19200: unix.B19200, 38400: unix.B38400,
	57600: unix.B57600, 115200: unix.B115200, 230400: unix.B230400, 460800: unix.B460800, 921600: unix.B921600}

// OpenTTY opens a serial line, makes it the terminal of this process where it can, and sets it up: raw, 8 bits, and its
// speed, unless baud is 0, which leaves the one that the boot loader or kernel chose. Where the line tells by carrier
// detect that nobody is there any more, reading it fails.
func OpenTTY(name string, baud int) (*TTY, error) {
	speed, known := speeds[baud]
	if baud != 0 && !known {
		return nil, fmt.Errorf("%d is not the speed of a serial line: 9600, 19200, 38400, 57600 and 115200 are", baud)
	}
	// A line that waits for its carrier would hold up the opening.
	f, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	t, err := raw(f, speed)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	// A session of our own gets the line's hang-up as SIGHUP; a process that somebody else started has one already.
	if _, err := unix.Setsid(); err == nil || unix.Getpid() == sid() {
		onFd(f, func(fd int) error { return unix.IoctlSetInt(fd, unix.TIOCSCTTY, 0) })
	}
	return t, nil
}

func sid() int {
	id, _ := unix.Getsid(0)
	return id
}

// RawTTY puts a terminal that is open already in raw mode. The error says that it is none.
func RawTTY(f *os.File) (*TTY, error) { return raw(f, 0) }

func raw(f *os.File, speed uint32) (*TTY, error) {
	t := &TTY{File: f}
	err := onFd(f, func(fd int) error {
		old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err != nil {
			return err
		}
		t.old = *old
		m := *old
		// What cfmakeraw(3) does; 8 bits without parity.
		m.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON | unix.INPCK
		m.Oflag &^= unix.OPOST
		m.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
		m.Cflag &^= unix.CSIZE | unix.PARENB | unix.CSTOPB
		m.Cflag |= unix.CS8 | unix.CREAD | unix.HUPCL
		m.Cc[unix.VMIN], m.Cc[unix.VTIME] = 1, 0
		if speed != 0 {
			m.Cflag = m.Cflag&^unix.CBAUD | speed
			m.Ispeed, m.Ospeed = speed, speed
		}
		return unix.IoctlSetTermios(fd, unix.TCSETS, &m)
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

func onFd(f *os.File, do func(fd int) error) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := c.Control(func(fd uintptr) { inner = do(int(fd)) }); err != nil {
		return err
	}
	return inner
}

// Restore gives the terminal back as it was.
func (t *TTY) Restore() {
	onFd(t.File, func(fd int) error { return unix.IoctlSetTermios(fd, unix.TCSETS, &t.old) })
}

// Size is the terminal's, where somebody has told the kernel; a serial line's is not known.
func (t *TTY) Size() (width, height int) {
	onFd(t.File, func(fd int) error {
		ws, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
		if err == nil {
			width, height = int(ws.Col), int(ws.Row)
		}
		return err
	})
	return width, height
}
