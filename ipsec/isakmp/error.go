package isakmp

import (
	"errors"
	"fmt"
)

// Error says what is wrong with a message: where, what, the number found and the number it should have been, and the
// notify code to refuse it with (RFC 2408 section 5).
type Error struct {
	Payload PayloadType // PayloadNone: the ISAKMP header or the chain itself
	Problem string      // a constant: "length below minimum", "unknown type"
	Have    int
	Want    int // the bound or value that Have violates; -1 where there is none to name
	Notify  NotifyType
}

func (e *Error) Error() string {
	where := "header"
	if e.Payload != PayloadNone {
		where = e.Payload.String() + " payload"
	}
	if e.Want < 0 {
		return fmt.Sprintf("isakmp: %s: %s: %d", where, e.Problem, e.Have)
	}
	return fmt.Sprintf("isakmp: %s: %s: %d, want %d", where, e.Problem, e.Have, e.Want)
}

// RefuseWith returns the notify code that an error of this package carries, PayloadMalformed for any other error.
func RefuseWith(err error) NotifyType {
	var e *Error
	if errors.As(err, &e) {
		return e.Notify
	}
	return PayloadMalformed
}

func malformed(p PayloadType, problem string, have, want int) *Error {
	return &Error{Payload: p, Problem: problem, Have: have, Want: want, Notify: PayloadMalformed}
}

// badProposal is for what is inside an SA payload (RFC 2408 section 5.5: BAD-PROPOSAL-SYNTAX).
func badProposal(p PayloadType, problem string, have, want int) *Error {
	return &Error{Payload: p, Problem: problem, Have: have, Want: want, Notify: BadProposalSyntax}
}
