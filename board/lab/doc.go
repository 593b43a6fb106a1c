// Package lab is a laboratory of virtual routers for tests and for people: it boots user-mode Linux on the machine's own
// files, runs a program inside, and there builds networks out of namespaces in which real peers (strongSwan, xl2tpd, pppd)
// talk to the program under test.
//
// A test that wants a kernel calls [Run]; the same test binary runs again in the guest and is handed an [L]:
//
//	func TestTunnel(t *testing.T) {
//		lab.Run(t, func(t *testing.T, l *lab.L) {
//			net := l.Internet()
//			server := net.Host("server", "192.0.2.1")
//			client := net.Host("client", "198.51.100.2")
//			...
//		})
//	}
//
// Two kernels serve, 6.1 and 6.12, built by kernel.sh from Debian's sources with what kernel.fragment names and
// kernel.patch mends, because the kernel's L2TP looks a session up by socket before 6.11 and by tunnel and session since.
//
// A guest's clock leaps to the next timer whenever the guest has nothing to do (UML's time travel): a test that waits half a
// minute for a dead peer takes none, only work takes time, and every time-out counts the guest's time. What measures rates
// or processor time needs the real clock: [Alone], or [RealTime] among others. Nothing the guest does reaches the machine's
// files: its root is an overlay in its memory over a read-only mount; only Dir, a directory made for the run, is shared. A
// guest runs in its own process group and process-id namespace and ends with the test, however the test ends.
//
// Where the processor matters (byte order, word size, a router's real kernel), [RunOn] runs the same test on a board that
// QEMU emulates, and [QEMU] starts boards with an image, to be typed at on their serial line: boards.go has the table.
//
// What wants nothing of the kernel but sockets, TUN and namespaces may be measured on the machine's own: [Here].
//
// Files: kernel.go finds the kernels, machine.go boots one, guest.go is its first process, run.go joins that with package
// testing, here.go does without a kernel of its own, share.go rations processors, node.go and internet.go make the network,
// daemon.go and peer_*.go what runs on it. Read run.go first.
package lab
