package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"culvert/ipsec/pki"
)

// `culvert cert` is an authority for those who have none: its certificates lie in one directory, each under the first of
// its names, beside the authority's own (ca.crt, ca.key) and its revocation list (crl.pem).

const (
	defaultPKI = "/etc/culvert/pki"

	caCert, caKey, crlFile = "ca.crt", "ca.key", "crl.pem"
)

// certCommand is a word of `culvert cert WORD`.
type certCommand struct {
	name, args, about string
	run               func(c *certCall) error
}

// certCall is what it gets: its flags, and the world.
type certCall struct {
	names          []string
	dir            string
	name, key      string
	days           int
	password       string
	force          bool
	now            time.Time
	stdin          io.Reader
	stdout, stderr io.Writer
}

func certCommands() []certCommand {
	return []certCommand{
		{"ca", "[-name NAME] [-key KIND] [-days N]", "makes the authority, once", (*certCall).makeCA},
		{"server", "HOST...", "makes a server's certificate: the names and addresses that clients call it by", (*certCall).makeServer},
		{"client", "NAME... [-password WORD]", "makes a client's certificate, with a bundle for Windows and phones (.p12)", (*certCall).makeClient},
		{"revoke", "[NAME|FILE...]", "takes certificates back; without a name, renews the revocation list", (*certCall).revoke},
		{"show", "[FILE...]", "prints what certificates say, all of the directory's without a name", (*certCall).show},
	}
}

func certUsage(w io.Writer) {
	fmt.Fprintf(w, "usage: culvert cert COMMAND [flags]\n  -dir is where everything lies, %s unless something else is said\n", defaultPKI)
	for _, c := range certCommands() {
		fmt.Fprintf(w, "  %-42s %s\n", strings.TrimSpace(c.name+" "+c.args), c.about)
	}
}

// runCert is the command: args are what follows its name.
func runCert(now time.Time, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		certUsage(stderr)
		return exitUsage
	}
	if slices.Contains([]string{"help", "-h", "-help", "--help"}, args[0]) {
		certUsage(stdout)
		return exitDone
	}
	for _, cmd := range certCommands() {
		if cmd.name != args[0] {
			continue
		}
		c := &certCall{now: now, stdin: stdin, stdout: stdout, stderr: stderr}
		flags := flag.NewFlagSet("culvert cert "+cmd.name, flag.ContinueOnError)
		flags.SetOutput(stderr)
		flags.Usage = func() {
			fmt.Fprintf(flags.Output(), "usage: culvert cert %s %s\n  %s\n", cmd.name, cmd.args, cmd.about)
			flags.PrintDefaults()
		}
		flags.StringVar(&c.dir, "dir", defaultPKI, "`DIRECTORY` of the authority")
		if cmd.name == "ca" {
			flags.StringVar(&c.name, "name", "Culvert CA", "`NAME` of the authority")
		}
		if cmd.name == "ca" || cmd.name == "server" || cmd.name == "client" {
			kind, days := "", int(pki.MaxValidity/(24*time.Hour))
			if cmd.name == "ca" {
				kind, days = "rsa2048", int(pki.CAValidity/(24*time.Hour))
			}
			flags.StringVar(&c.key, "key", kind, "`KIND` of key: rsa2048, rsa3072, rsa4096, p256 or p384; the authority's when empty")
			flags.IntVar(&c.days, "days", days, "`DAYS` that the certificate is good for")
			flags.BoolVar(&c.force, "force", false, "replace what is there")
		}
		if cmd.name == "client" {
			flags.StringVar(&c.password, "password", "", "`WORD` that opens the bundle; one is made up when empty; - reads a line")
		}
		for rest := args[1:]; ; rest = flags.Args()[1:] { // flags may stand behind names
			if err := flags.Parse(rest); err != nil {
				if errors.Is(err, flag.ErrHelp) {
					return exitDone
				}
				return exitUsage
			}
			if flags.NArg() == 0 {
				break
			}
			c.names = append(c.names, flags.Arg(0))
		}
		if err := cmd.run(c); err != nil {
			fmt.Fprintf(stderr, "culvert cert %s: %v\n", cmd.name, err)
			return exitFailed
		}
		return exitDone
	}
	fmt.Fprintf(stderr, "culvert cert: no command %q; see culvert cert help\n", args[0])
	return exitUsage
}

func (c *certCall) path(name string) string { return filepath.Join(c.dir, name) }

// makeCA makes the authority and its first, empty revocation list.
func (c *certCall) makeCA() error {
	if len(c.names) > 0 {
		return fmt.Errorf("unexpected %q: the authority's name goes with -name", c.names[0])
	}
	if c.days < 1 || c.days > 36500 {
		return fmt.Errorf("-days %d is not within 1..36500", c.days)
	}
	kind, err := pki.ParseKeyKind(c.key)
	if err != nil {
		return fmt.Errorf("-key: %w", err)
	}
	if err := c.vacant(caCert, caKey); err != nil {
		return fmt.Errorf("%w; every certificate it has issued is worth nothing without it", err)
	}
	ca, err := pki.NewCA(c.now, c.name, kind, time.Duration(c.days)*24*time.Hour)
	if err != nil {
		return err
	}
	list, err := ca.Revoke(c.now, nil, nil)
	if err != nil {
		return err
	}
	if err := c.store(ca, "ca"); err != nil {
		return err
	}
	if err := c.write(crlFile, list); err != nil {
		return err
	}
	fmt.Fprintf(c.stdout, "%s: the authority %q, good until %s\nKeep %s to yourself: whoever has it makes certificates.\n",
		c.path(caCert), c.name, ca.Cert.NotAfter.Format(time.DateOnly), c.path(caKey))
	return nil
}

func (c *certCall) makeServer() error {
	p, base, err := c.issue(true)
	if err != nil {
		return err
	}
	c.report(p, base)
	fmt.Fprintf(c.stdout, `
In culvert.toml of this server:

[ipsec.identity.l2tp-in]
auth-method = "digital-signature"
certificate = %q
key = %q
ca = [%q]
crl = [%q]
`, c.path(base+".crt"), c.path(base+".key"), c.path(caCert), c.path(crlFile))
	return nil
}

func (c *certCall) makeClient() error {
	password, made, err := c.passwordOf()
	if err != nil {
		return err
	}
	p, base, err := c.issue(false)
	if err != nil {
		return err
	}
	ca, err := c.loadCA()
	if err != nil {
		return err
	}
	bundle, err := p.Bundle(c.names[0], password, ca.Cert)
	if err != nil {
		return err
	}
	if err := c.write(base+".p12", bundle); err != nil {
		return err
	}
	c.report(p, base)
	fmt.Fprintf(c.stdout, "%s: the same with the authority, for Windows (into the store of the local machine), macOS and Android\n", c.path(base+".p12"))
	if made {
		fmt.Fprintf(c.stdout, "Its password, shown only now: %s\n", password)
	}
	return nil
}

// passwordOf is the bundle's password: given, read, or made up.
func (c *certCall) passwordOf() (password string, made bool, err error) {
	switch c.password {
	case "":
		const letters = "abcdefghjkmnpqrstuvwxyz23456789" // none that looks like another
		var b strings.Builder
		for range 16 {
			n, err := rand.Int(rand.Reader, big.NewInt(int64(len(letters))))
			if err != nil {
				return "", false, err
			}
			b.WriteByte(letters[n.Int64()])
		}
		return b.String(), true, nil
	case "-":
		line, err := bufio.NewReader(c.stdin).ReadString('\n')
		if line = strings.TrimRight(line, "\r\n"); line == "" {
			return "", false, errors.Join(errors.New("no password on standard input"), err)
		}
		return line, false, nil
	}
	return c.password, false, nil
}

// issue makes and stores a certificate for the names given.
func (c *certCall) issue(server bool) (p *pki.Pair, base string, err error) {
	if len(c.names) == 0 {
		return nil, "", errors.New("needs a name: the host name or address that clients call, or who the client is")
	}
	ca, err := c.loadCA()
	if err != nil {
		return nil, "", err
	}
	kind := pki.RSA2048
	if k, ok := ca.Cert.PublicKey.(*ecdsa.PublicKey); ok {
		if kind = pki.P256; k.Curve == elliptic.P384() {
			kind = pki.P384
		}
	}
	if c.key != "" {
		if kind, err = pki.ParseKeyKind(c.key); err != nil {
			return nil, "", fmt.Errorf("-key: %w", err)
		}
	}
	base = fileName(c.names[0])
	if err := c.vacant(base+".crt", base+".key"); err != nil {
		return nil, "", fmt.Errorf("%w, and culvert cert revoke %s first if it may not be used any more", err, base)
	}
	p, err = ca.Issue(c.now, pki.Request{Names: c.names, Server: server, Kind: kind, Validity: time.Duration(c.days) * 24 * time.Hour})
	if err != nil {
		return nil, "", err
	}
	return p, base, c.store(p, base)
}

func (c *certCall) report(p *pki.Pair, base string) {
	fmt.Fprintf(c.stdout, "%s: %s, good until %s\n%s: its private key\n", c.path(base+".crt"), strings.Join(c.names, ", "),
		p.Cert.NotAfter.Format(time.DateOnly), c.path(base+".key"))
}

// fileName makes a file's name of a certificate's.
func fileName(name string) string {
	s := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("@.-_", r):
			return r
		}
		return '_'
	}, name)
	if s == "ca" || strings.HasPrefix(s, ".") {
		s = "_" + s
	}
	return s
}

// vacant says whether files may be written.
func (c *certCall) vacant(names ...string) error {
	if c.force {
		return nil
	}
	for _, n := range names {
		if _, err := os.Lstat(c.path(n)); !errors.Is(err, fs.ErrNotExist) {
			if err != nil {
				return err
			}
			return fmt.Errorf("%s exists: -force replaces it", c.path(n))
		}
	}
	return nil
}

func (c *certCall) loadCA() (*pki.Pair, error) {
	cert, err := os.ReadFile(c.path(caCert))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s has no authority: make one with culvert cert ca -dir %s", c.dir, c.dir)
	}
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(c.path(caKey))
	if err != nil {
		return nil, err
	}
	ca, err := pki.ReadPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.path(caCert), err)
	}
	return ca, nil
}

// store writes the key before the certificate: one without the other does no harm in this order.
func (c *certCall) store(p *pki.Pair, base string) error {
	key, err := p.KeyPEM()
	if err != nil {
		return err
	}
	if err := c.write(base+".key", key); err != nil {
		return err
	}
	return c.write(base+".crt", p.CertPEM())
}

// write replaces a file as a whole: whoever reads it, now or after a power cut, finds the old one or the new one.
func (c *certCall) write(name string, b []byte) (err error) {
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(c.dir, ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), c.path(name))
}

// find reads a certificate by the name of its file, or by the name it was made for.
func (c *certCall) find(name string) (*x509.Certificate, string, error) {
	path := name
	if !strings.ContainsRune(name, filepath.Separator) {
		if path = c.path(fileName(strings.TrimSuffix(name, ".crt")) + ".crt"); name == "ca" {
			path = c.path(caCert)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, path, err
	}
	certs, err := pki.ParseCertificates(b)
	if err != nil {
		return nil, path, fmt.Errorf("%s %w", path, err)
	}
	return certs[0], path, nil
}

func (c *certCall) revoke() error {
	ca, err := c.loadCA()
	if err != nil {
		return err
	}
	var certs []*x509.Certificate
	for _, name := range c.names {
		cert, path, err := c.find(name)
		if err != nil {
			return err
		}
		if err := cert.CheckSignatureFrom(ca.Cert); err != nil || cert.IsCA {
			return fmt.Errorf("%s was not issued by %s", path, c.path(caCert))
		}
		certs = append(certs, cert)
	}
	list, err := os.ReadFile(c.path(crlFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(certs) == 0 {
		list, err = ca.Revoke(c.now, list, nil)
	} else {
		err = nil
	}
	for _, cert := range certs {
		if err == nil {
			list, err = ca.Revoke(c.now, list, cert.SerialNumber)
		}
	}
	if err != nil {
		return err
	}
	if err := c.write(crlFile, list); err != nil {
		return err
	}
	for _, cert := range certs {
		fmt.Fprintf(c.stdout, "revoked: %s, serial number %x\n", cert.Subject, cert.SerialNumber)
	}
	fmt.Fprintf(c.stdout, "%s: written; a running culvert reads it on SIGHUP\n", c.path(crlFile))
	return nil
}

func (c *certCall) show() error {
	paths := c.names
	if len(paths) == 0 {
		found, err := filepath.Glob(c.path("*.crt"))
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return fmt.Errorf("%s holds no certificates", c.dir)
		}
		paths = found
	}
	var revoked []x509.RevocationListEntry
	if b, err := os.ReadFile(c.path(crlFile)); err == nil {
		if list, err := pki.ParseCRL(b); err == nil {
			revoked = list.RevokedCertificateEntries
		}
	}
	for i, name := range paths {
		cert, path, err := c.find(name)
		if err != nil {
			return err
		}
		if i > 0 {
			fmt.Fprintln(c.stdout)
		}
		state := "good"
		if err := pki.CheckDates(cert, c.now); err != nil {
			state = err.Error()
		}
		for _, e := range revoked {
			if e.SerialNumber.Cmp(cert.SerialNumber) == 0 {
				state = "revoked on " + e.RevocationTime.UTC().Format(time.DateOnly)
			}
		}
		fmt.Fprintf(c.stdout, "%s: %s\n", path, pki.Describe(cert))
		fmt.Fprintf(c.stdout, "  state          %s\n", state)
	}
	return nil
}
