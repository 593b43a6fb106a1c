package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"culvert/board"
)

// resolvConf puts the name servers of the servers that we call (`use-peer-dns`) into resolv.conf. What it adds stands
// between marker lines and what it puts out of use behind a mark, so that all of it can be taken back without a copy of
// what was there: what others write meanwhile stays, and what a daemon that crashed has left goes. Its methods may be
// called from any goroutine.
type resolvConf struct {
	path string

	mu  sync.Mutex
	use []peerDNS // the newest last
}

// peerDNS is what one server told.
type peerDNS struct {
	client    string
	servers   []netip.Addr
	exclusive bool // nobody else is asked any more
	own       bool // not told by a server, but of [network]: asked last
}

const (
	resolvBegin = "# culvert begins: "
	resolvEnd   = "# culvert ends"
	resolvOff   = "#culvert# "
)

func newResolvConf(path string) *resolvConf { return &resolvConf{path: path} }

// resolvFiles are where name servers are looked for: on OpenWrt programs ask dnsmasq on this machine, and dnsmasq, which
// notices changes, those of a file of its own.
var resolvFiles = []string{"/tmp/resolv.conf.d/resolv.conf.auto", "/tmp/resolv.conf.auto", "/etc/resolv.conf"}

// findResolvConf takes the first file that there is; without one the last will be made.
func findResolvConf(files []string) *resolvConf {
	for _, f := range files {
		if _, err := os.Stat(f); err == nil {
			return newResolvConf(f)
		}
	}
	return newResolvConf(files[len(files)-1])
}

// set puts a client's name servers in front of all others, or in their place.
func (r *resolvConf) set(p peerDNS) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget(p.client)
	switch {
	case len(p.servers) == 0:
	case p.own:
		r.use = slices.Insert(r.use, 0, p)
	default:
		r.use = append(r.use, p)
	}
	return r.write()
}

// unset takes a client's name servers out again.
func (r *resolvConf) unset(client string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget(client)
	return r.write()
}

func (r *resolvConf) forget(client string) {
	r.use = slices.DeleteFunc(r.use, func(p peerDNS) bool { return p.client == client })
}

// write brings the file in line with what is in use; one that is so already is not touched.
func (r *resolvConf) write() error {
	path, err := filepath.EvalSymlinks(r.path)
	if err != nil {
		path = r.path
	}
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	text := mergeResolv(string(old), r.use)
	if text == string(old) {
		return nil
	}
	return replaceFile(path, []byte(text))
}

// mergeResolv takes out of a resolv.conf what an earlier call has put in, and puts in what is in use now.
func mergeResolv(old string, use []peerDNS) string {
	exclusive := slices.ContainsFunc(use, func(p peerDNS) bool { return p.exclusive })
	var b strings.Builder
	for _, p := range slices.Backward(use) {
		if p.own && exclusive {
			continue
		}
		fmt.Fprintf(&b, "%s%s\n", resolvBegin, p.client)
		for _, a := range p.servers {
			fmt.Fprintf(&b, "nameserver %s\n", a)
		}
		b.WriteString(resolvEnd + "\n")
	}
	inside := false
	for line := range strings.Lines(old) {
		switch {
		case strings.HasPrefix(line, resolvBegin):
			inside = true
			continue
		case strings.HasPrefix(line, resolvEnd):
			inside = false
			continue
		case inside:
			continue
		}
		line = strings.TrimPrefix(line, resolvOff)
		if exclusive && strings.HasPrefix(strings.TrimSpace(line), "nameserver") {
			line = resolvOff + line
		}
		b.WriteString(line)
	}
	return b.String()
}

// replaceFile writes a file at once, so that nobody reads half of it; where that cannot be, as with a file that is
// mounted by itself, in place.
func replaceFile(path string, data []byte) error {
	_, err := board.WriteFile(path, data, 0o644)
	if err == nil {
		return nil
	}
	old, readErr := os.ReadFile(path)
	if readErr == nil && bytes.Equal(old, data) {
		return nil
	}
	if werr := os.WriteFile(path, data, 0o644); werr != nil {
		return errors.Join(err, werr)
	}
	return nil
}

// useDNS asks the server's name servers from now on, as far as `use-peer-dns` wants it.
func (s *session) useDNS(servers []netip.Addr) {
	mode := s.dialer.cfg.UsePeerDNS
	if mode == "no" {
		return
	}
	if len(servers) == 0 {
		s.log.Warn("the server names no name server: use-peer-dns has nothing to use")
		return
	}
	p := peerDNS{client: s.dialer.cfg.Name, servers: servers, exclusive: mode == "exclusively"}
	s.dnsSet = true
	s.lane.do(func() error { return s.d.dns.set(p) }, func(_ time.Time, err error) {
		if err != nil {
			s.log.Warn("name servers not set: make /etc/resolv.conf writable, or set use-peer-dns = \"no\"", "error", err)
		}
	})
}

func (s *session) dropDNS() {
	if !s.dnsSet {
		return
	}
	name := s.dialer.cfg.Name
	s.lane.do(func() error { return s.d.dns.unset(name) }, func(_ time.Time, err error) {
		if err != nil {
			s.log.Warn("name servers not taken back", "error", err)
		}
	})
}
