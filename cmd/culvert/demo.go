package main

import (
	"context"
	"fmt"
	"os"

	"culvert/cmd/culvert/internal/demo"
	pppuser "culvert/ppp/user"
)

// runDemo shows what culvert does, on this machine and with nothing but this binary.
func runDemo(ctx context.Context, c *invocation) int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(c.stderr, "culvert demo makes network namespaces and TUN devices: run it as root")
		return exitFailed
	}
	if err := pppuser.Probe(); err != nil {
		fmt.Fprintln(c.stderr, "culvert demo:", err)
		return exitFailed
	}
	program, err := os.Executable()
	if err != nil {
		fmt.Fprintln(c.stderr, "culvert demo:", err)
		return exitFailed
	}
	o := c.demo
	o.Program, o.Out = program, c.stdout
	if err := demo.Run(ctx, o); err != nil {
		fmt.Fprintln(c.stderr, "culvert demo: FAILED:", err)
		return exitFailed
	}
	fmt.Fprintln(c.stdout, "All of it worked.")
	return exitDone
}
