package lab

import (
	"strings"
	"testing"
)

// Each board comes up to the console on its serial line as it is shipped, takes a first password, asks for it the next time,
// and shows what it is.
func TestBoardLogin(t *testing.T) {
	for _, b := range Boards {
		t.Run(b.Name, func(t *testing.T) {
			requireBoards(t, b.Name)
			Reserve(t, false)
			x := bootImage(t, b, "", "128M", NetUser(0)...)
			x.login()
			if out := x.typed("/system resource print"); !strings.Contains(out, "architecture-name") {
				t.Errorf("/system resource print shows\n%s", out)
			}
			x.line("/quit\r", `Login: `)
			x.line("admin\r", `Password: `)
			x.line("wrong\r", `Login: `)
			x.line("admin\r", `Password: `)
			x.line("secret enough\r", `\] > `)
			t.Logf("%s: %.1f s from power on to the console", b.Name, x.boot.Seconds())
		})
	}
}
