package ipsectest

import (
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// Plugged listens to what becomes of a link of the calling thread's namespace. What it returns waits until that is up in
// every respect: a worker of the kernel's opens a veth a moment after its second end is up, and what is sent before is lost.
func Plugged(t *testing.T, link string) (wait func()) {
	t.Helper()
	changes, done := make(chan netlink.LinkUpdate, 16), make(chan struct{})
	if err := netlink.LinkSubscribe(changes, done); err != nil {
		close(done)
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		defer close(done)
		for end := time.After(5 * time.Second); ; {
			select {
			case c := <-changes:
				if a := c.Attrs(); a.Name == link && a.OperState == netlink.OperUp {
					return
				}
			case <-end:
				t.Fatalf("%s does not come up", link)
			}
		}
	}
}
