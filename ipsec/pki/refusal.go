package pki

import (
	"fmt"
	"strconv"
	"time"

	"crypto/x509"
	"crypto/x509/pkix"
)

// Cause tells refusals apart where code has to.
type Cause uint8

const (
	Malformed   Cause = iota + 1 // not a certificate, or one that cannot be used here
	WeakKey                      // its key, or that of an authority above it, is too short
	Untrusted                    // none of the authorities signed it
	OutOfDate                    // expired, not yet valid, or the clock is wrong
	Revoked                      // named by a revocation list
	WrongUsage                   // made for something else
	WrongName                    // not the one that was called
	WrongPerson                  // it does not carry the identity that the peer shows
)

// Refusal is why a certificate is not accepted, in words for an operator.
type Refusal struct {
	Cause   Cause
	Subject string // whose certificate, escaped; empty where it has none
	Reason  string // what is wrong
	Mend    string // what to do about it
}

func (r *Refusal) Error() string {
	s := "certificate"
	if r.Subject != "" {
		s += " of " + r.Subject
	}
	return s + ": " + r.Reason + ": " + r.Mend
}

func refuse(cause Cause, c *x509.Certificate, mend, reason string, args ...any) *Refusal {
	r := &Refusal{Cause: cause, Reason: fmt.Sprintf(reason, args...), Mend: mend}
	if c != nil {
		r.Subject = subjectOf(c)
	}
	return r
}

// maxText bounds what is shown of a name, which a stranger may have chosen.
const maxText = 96

// escape shows printable ASCII as it is and everything else escaped, so that a name cannot forge a log line.
func escape(s string) string {
	cut := ""
	if len(s) > maxText {
		s, cut = s[:maxText], "..."
	}
	q := strconv.QuoteToASCII(s)
	return q[1:len(q)-1] + cut
}

// subjectOf names a certificate for people: by its subject, or by its first alternative name where that is empty.
func subjectOf(c *x509.Certificate) string {
	if s := nameOf(c.Subject); s != "" {
		return s
	}
	names := altNames(c)
	if len(names) > 0 {
		return escape(names[0])
	}
	return "serial number " + c.SerialNumber.Text(16)
}

func nameOf(n pkix.Name) string { return escape(n.String()) }

// altNames lists the subject alternative names that IKE knows.
func altNames(c *x509.Certificate) (names []string) {
	names = append(append(names, c.DNSNames...), c.EmailAddresses...)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	return names
}

// clockFloor is before the first release of this program: a clock below it has not been set.
var clockFloor = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

// ClockIsSet says whether a clock can be right.
func ClockIsSet(now time.Time) bool { return !now.Before(clockFloor) }

// date writes a time as people compare it.
func date(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// checkDates refuses a certificate outside of its time, and says which of the two is probably wrong.
func checkDates(c *x509.Certificate, now time.Time) *Refusal {
	switch {
	case !now.Before(c.NotBefore) && !now.After(c.NotAfter):
		return nil
	case !ClockIsSet(now):
		return refuse(OutOfDate, c, "set the clock (NTP)", "the clock says %s and it is valid from %s", date(now), date(c.NotBefore))
	case now.Before(c.NotBefore):
		return refuse(OutOfDate, c, "set the clock here, or the one of who made it", "it is valid from %s on and the clock says %s", date(c.NotBefore), date(now))
	}
	return refuse(OutOfDate, c, "renew it, or set the clock if that is wrong", "it expired on %s and the clock says %s", date(c.NotAfter), date(now))
}
