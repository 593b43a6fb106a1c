package board

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// LEDClass is where the kernel has its lights.
const LEDClass = "/sys/class/leds"

// Light is what an LED shows.
type Light uint8

const (
	LightOff   Light = iota
	LightBlink       // half a second on, half a second off
	LightOn
)

func (l Light) String() string { return [...]string{"off", "blinking", "on"}[l] }

// LED is one of the board's lights, taken from whatever trigger had it.
type LED struct {
	dir   string
	shown Light
	known bool
}

// OpenLED takes the light of that name, as in /sys/class/leds; dir is [LEDClass]. Where there is no such light the error
// lists those that there are.
func OpenLED(dir, name string) (*LED, error) {
	if name == "" || strings.ContainsAny(name, "/\x00") || name == "." || name == ".." {
		return nil, fmt.Errorf("%q is not the name of an LED", name)
	}
	l := &LED{dir: filepath.Join(dir, name)}
	if _, err := os.Stat(filepath.Join(l.dir, "brightness")); err != nil {
		var have []string
		all, _ := filepath.Glob(filepath.Join(dir, "*/brightness"))
		for _, f := range all {
			have = append(have, filepath.Base(filepath.Dir(f)))
		}
		if len(have) == 0 {
			return nil, fmt.Errorf("no LED %q: the kernel shows none in %s", name, dir)
		}
		return nil, fmt.Errorf("no LED %q: there are %s", name, strings.Join(have, ", "))
	}
	return l, nil
}

// Show sets the light; showing the same again writes nothing. The kernel blinks by itself where it has the timer trigger;
// without it a blinking light is on.
func (l *LED) Show(to Light) error {
	if l.known && l.shown == to {
		return nil
	}
	var err error
	switch to {
	case LightBlink:
		if err = l.set("trigger", "timer"); err == nil {
			err = errors.Join(l.set("delay_on", "500"), l.set("delay_off", "500"))
		} else {
			err = l.steady(true)
		}
	default:
		err = l.steady(to == LightOn)
	}
	l.shown, l.known = to, err == nil
	return err
}

// steady takes the light from its trigger, which would switch it again, and sets it.
func (l *LED) steady(on bool) error {
	if _, err := os.Stat(filepath.Join(l.dir, "trigger")); err == nil {
		if err := l.set("trigger", "none"); err != nil {
			return err
		}
	}
	level := "0"
	if on {
		level = text(os.DirFS(l.dir), "max_brightness")
		if level == "" {
			level = "255"
		}
	}
	return l.set("brightness", level)
}

func (l *LED) set(file, value string) error {
	f, err := os.OpenFile(filepath.Join(l.dir, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(value)
	return err
}
