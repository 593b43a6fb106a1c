package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"culvert/cmd/culvert/internal/demo"
	pppuser "culvert/ppp/user"
)

// runDemo shows what culvert does, on this machine and with nothing but this binary.
func runDemo(ctx context.Context, c *invocation) int {
	program, err := os.Executable()
	if err != nil {
		fmt.Fprintln(c.stderr, "culvert demo:", err)
		return exitFailed
	}
	if os.Geteuid() != 0 {
		return demoAsRoot(ctx, program, c)
	}
	if err := pppuser.Probe(); err != nil {
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

// demoAsRoot runs the demo in a user namespace, whose root anybody may be where the kernel lets them.
func demoAsRoot(ctx context.Context, program string, c *invocation) int {
	cmd := exec.CommandContext(ctx, program, os.Args[1:]...)
	cmd.Stdout, cmd.Stderr = c.stdout, c.stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	err := cmd.Run()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return exitFailed // it has said why
	}
	if err != nil {
		fmt.Fprintf(c.stderr, "culvert demo makes network namespaces and TUN devices: run it as root (%v)\n", err)
		return exitFailed
	}
	return exitDone
}
